"""`mmdata import`: other recordings, and our own captures, as tables of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa

from mmdata.datasets.booksync import Action, Ask, BookSync, Note, TradeChain
from mmdata.datasets.certificate import certify_ingested
from mmdata.datasets.certificate.accounts import write_account
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.decimals import shortest
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.importing import check_grid
from mmdata.datasets.formats.sources import fingerprint
from mmdata.datasets.grid import Divisors
from mmdata.datasets.locks import session_lock
from mmdata.datasets.stores import local_root
from mmdata.datasets.version import version
from mmdata.recorder.capture import EVENT, REST, Event, Line, read_segment
from mmdata.recorder.formats import cryptofeed, hftbacktest
from mmdata.recorder.formats.sources import Lines
from mmdata.recorder.ingest import Grid, Ingest, IngestReport, describe
from mmdata.recorder.records import Depth, Instrument, Record, Trade
from mmdata.recorder.venues import DECODERS

FORMATS: dict[str, tuple[str, ...]] = {
    "mmdata": (),
    "hftbacktest": ("binance", "binance-usdm"),
    "cryptofeed": ("okx",),
}
"""Formats that can be imported, and the exchanges that each is read for (ours name their own)."""
_PARSERS: dict[str, Callable[[int, bytes], Line]] = {
    "hftbacktest": hftbacktest.parse,
    "cryptofeed": cryptofeed.parse,
}


@dataclass
class ImportReport:
    """What an import did."""

    session: str
    exchange: str
    ingest: IngestReport
    derived: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """Tick and lot size by symbol, where they were derived from the values seen."""
    gaps: int = 0

    @property
    def quarantined(self) -> int:
        """How many lines could not be decoded."""
        return self.ingest.quarantined

    @property
    def certified(self) -> int:
        """How many days of a symbol got a certificate, or another one."""
        return self.ingest.certified

    @property
    def warnings(self) -> list[str]:
        """Sentences for whoever imports."""
        return self.ingest.warnings

    def accounting(self) -> list[tuple[str, int]]:
        """Return what became of the lines as (what, how many)."""
        return describe(self.ingest)


def import_sources(
    sources: Sequence[Path],
    out: Path,
    *,
    source_format: str,
    exchange: str | None = None,
    symbol: str | None = None,
    grid: Grid | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import ``sources``, one stream in the order given, into the dataset at ``out``.

    ``symbol`` names the symbol where the source does not (hftbacktest's REST books), and filters
    elsewhere. ``grid`` gives tick and lot by symbol; else they are derived. Importing the same bytes
    again changes nothing. ``progress`` is called with the number of lines read so far, now and then.

    UsageError: an unknown format or exchange, ``out`` in an object store, a source that cannot be read, the
    same sources being imported by another process. DiskError: ``out`` cannot be written.
    """
    if source_format not in FORMATS:
        raise UsageError(f"format {source_format!r} is not known, expected one of {', '.join(FORMATS)}")
    out = local_root(out, "an import")
    check_grid(grid or {})
    if source_format == "mmdata":
        if symbol is not None or grid:
            raise UsageError("our own captures name symbol, tick and lot themselves: leave them out")
        return _import_own(sources, out, exchange=exchange)
    readable = FORMATS[source_format]
    if exchange not in readable:
        raise UsageError(
            f"exchange {exchange!r}: format {source_format} is read for {' and '.join(readable)}"
        )
    session = f"import-{fingerprint(sources)}"
    with session_lock(out, session, wait=False):
        return _import_foreign(
            sources,
            out,
            session,
            source_format=source_format,
            exchange=exchange,
            symbol=symbol,
            grid=grid,
            progress=progress,
        )


def _import_foreign(
    sources: Sequence[Path],
    out: Path,
    session: str,
    *,
    source_format: str,
    exchange: str,
    symbol: str | None,
    grid: Grid | None,
    progress: Callable[[int], None] | None,
) -> ImportReport:
    """Import another recorder's files as one session, whose lock is held."""
    metadata = {"version": version(), "source": source_format}
    parse = _PARSERS[source_format]
    number = 0
    with ThreadPoolExecutor(2) as aside:
        ingest = Ingest(out, exchange, session, metadata, grid, aside=aside)
        reader = _ForeignReader(ingest, exchange, symbol, user_grid=grid or {})
        for path in sources:
            lines = Lines(path)
            for text in lines:
                number = reader.take_lines(text, number, parse)
                if progress is not None:
                    progress(number)
            if lines.torn:
                reader.torn(number, path, lines.torn)
        reader.finish(number)
        ingest.flush()
    if symbol is not None and number and not ingest.report.decoded:
        ingest.report.warnings.append(
            f"no frame of {symbol} is in {', '.join(str(path) for path in sources)}; symbols are written as "
            f"the venue does, such as BTCUSDT"
        )
    ingest.report.check()
    write_account(out, ingest.account(0))
    ingest.report.add_certified(certify_ingested(out, exchange, sessions={session}))
    return ImportReport(session, exchange, ingest.report, reader.derived, reader.gaps)


class _ForeignReader:
    """Feeds a foreign capture's lines to ingest, and notes what its own recorder did not: the chain."""

    def __init__(self, ingest: Ingest, exchange: str, symbol: str | None, *, user_grid: Grid) -> None:
        self._ingest = ingest
        self._exchange = exchange
        self._symbol = symbol
        self._user_grid = user_grid
        self._books: dict[str, BookSync] = {}
        self._chains: dict[tuple[str, str], TradeChain] = {}
        self._divisors: dict[str, Divisors] = {}
        self._begun = False
        self.derived: dict[str, tuple[Decimal, Decimal]] = {}
        self.gaps = 0
        ingest.only_symbol = symbol
        ingest.watcher = self
        ingest.on_rows = self.see_rows

    def take_lines(self, text: bytes, number: int, parse: Callable[[int, bytes], Line]) -> int:
        """Take whole lines, the first of them number ``number``; return the number of the line after them."""
        at = 0
        while not self._begun and at < len(text):
            end = text.index(b"\n", at)
            line = parse(number, text[at:end])
            self._begin(line)
            if self._begun:
                break
            self._take(line)
            at, number = end + 1, number + 1
        return self._ingest.take_lines(
            text[at:], number, lambda at, line: self._take(parse(at, line)), is_tagged=False
        )

    def _begin(self, line: Line) -> None:
        if not self._begun and line.ts_recv:
            self._begun = True
            self._ingest.last_stamp = line.ts_recv
            self._ingest.note(line, Event("session_start", detail={"source": "import", "stamp": "foreign"}))

    def _take(self, line: Line) -> None:
        self._begin(line)
        self._ingest.last_stamp = line.ts_recv or self._ingest.last_stamp
        if line.kind == REST:
            self._take_snapshot(line)
        else:
            self._ingest.take(line)

    def torn(self, number: int, path: Path, what: str) -> None:
        """Note that a source ends in the middle of something."""
        self._ingest.report.warnings.append(f"{path}: {what}; it was cut off, all before it was imported")
        line = self._at_end(number)
        if line is not None:
            self._ingest.note(line, Event("torn", detail={"source": path.name, "what": what}))

    def finish(self, number: int) -> None:
        """Tell tick and lot, and end the session."""
        line = self._at_end(number)
        if line is None:
            return
        self._ingest.flush()
        for symbol, divisors in sorted(self._divisors.items()):
            tick, lot = (shortest(step or Decimal(1)) for step in (divisors.tick, divisors.lot))
            if symbol in self._user_grid:
                tick_size, lot_size = self._user_grid[symbol]
                source = "user"
            else:
                tick_size, lot_size = f"{tick:f}", f"{lot:f}"
                self.derived[symbol] = (tick, lot)
                source = "derived"
            told = Instrument(symbol, None, None, None, tick_size, lot_size, None, None, None, "")
            self._ingest.add_instrument(line, told, source)
        self._ingest.note(line, Event("session_end", detail={"source": "import"}))

    def _at_end(self, number: int) -> Line | None:
        return Line(number, EVENT, self._ingest.last_stamp, None, b"") if self._begun else None

    def _take_snapshot(self, line: Line) -> None:
        """Take a bare REST book, which names neither its symbol nor why it was asked for."""
        report = self._ingest.report
        self._ingest.enter(line)
        report.lines += 1
        if self._symbol is None:
            raise UsageError(
                f"line {line.number + 1} is a REST book that does not name its symbol: say which by --symbol"
            )
        try:
            record = DECODERS[self._exchange].skim_snapshot(line.payload, self._symbol)
        except (msgspec.MsgspecError, ValueError) as error:
            self._ingest.quarantine(line, f"REST answer cannot be decoded: {error}")
            return
        report.rest += 1
        book = self._book(self._symbol)
        self._ingest.add_snapshot(line, record, book.reason, None)
        if record.last_id is not None:
            self._act(line, self._symbol, "depth", book.receive_snapshot(record.last_id))

    def see(self, line: Line, record: Record) -> None:
        """Take a record that enters the tables into its chain, and note what that says."""
        if isinstance(record, Depth):
            ids = (NO_ID if i is None else i for i in (record.first_id, record.last_id, record.prev_id))
            actions = self._book(record.symbol).receive(*ids, is_snapshot=record.is_snapshot)
            if actions:
                self._act(line, record.symbol, "depth", actions)
        elif isinstance(record, Trade) and record.first_trade_id is not None:
            chain = self._chain(record)
            first, last = record.first_trade_id, record.last_trade_id or record.trade_id
            if record.kind == "agg" and self._exchange != "okx":
                first = last = record.trade_id
            self._act(line, record.symbol, "trades", chain.receive(first, last))

    def proven_id(self, record: Record) -> int:
        """Return the id that the chain of ``record`` is at; NO_ID: the next is to be looked at anyhow."""
        if isinstance(record, Depth):
            book = self._book(record.symbol)
            return book.book_id if book.synced else NO_ID
        return self._chain(record).last_id if isinstance(record, Trade) else NO_ID

    def went_on(self, record: Record, last_id: int) -> None:
        """Take over that the chain of ``record`` was continued up to ``last_id``."""
        if isinstance(record, Depth):
            self._book(record.symbol).went_on(last_id)
        elif isinstance(record, Trade):
            self._chain(record).went_on(last_id)

    def _act(self, line: Line, symbol: str, channel: str, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Ask):
                continue  # a recording cannot be asked; its own next snapshot answers
            assert isinstance(action, Note)
            self.gaps += action.kind == "gap"
            event = Event(
                action.kind,
                channel=channel,
                symbol=symbol,
                last_id=action.last_id,
                next_id=action.next_id,
                detail=dict(action.detail),
            )
            self._ingest.note(line, event)

    def _book(self, symbol: str) -> BookSync:
        if symbol not in self._books:
            self._books[symbol] = BookSync(CHAINS[self._exchange])
        return self._books[symbol]

    def _chain(self, trade: Trade) -> TradeChain:
        return self._chains.setdefault((trade.symbol, trade.kind), TradeChain())

    def see_rows(self, symbol: str, rows: pa.Table) -> None:
        """Take the prices and sizes of published rows into the greatest common divisors."""
        self._divisors.setdefault(symbol, Divisors()).see(rows)


def _import_own(sources: Sequence[Path], out: Path, *, exchange: str | None) -> ImportReport:
    """Ingest captures of ours, each into its own session, in order: the same as recovery does."""
    from mmdata.recorder.segments import ingest_segment

    headers = {path: read_segment(path).header for path in sources}
    for path, header in headers.items():
        if exchange not in (None, header.exchange):
            raise UsageError(f"{path}: is a capture of {header.exchange}, not of {exchange}")
    report = IngestReport()
    for path in sorted(sources, key=lambda path: (headers[path].session, headers[path].segment)):
        with session_lock(out, headers[path].session, wait=False):
            report.add(ingest_segment(out, path))
    sessions = dict.fromkeys(header.session for header in headers.values())
    exchanges = dict.fromkeys(header.exchange for header in headers.values())
    for name in exchanges:
        report.add_certified(certify_ingested(out, name, sessions=sessions))
    return ImportReport(", ".join(sessions), ", ".join(exchanges), report)
