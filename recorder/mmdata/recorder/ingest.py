"""Capture lines into tables: the one path for closed segments, recovery and imports.

What a partition already holds of a session (its highest frame) is skipped, so that ingesting the same
lines again changes nothing: a crash between two published files is mended by doing it once more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pyarrow as pa

from mmdata.datasets.certificate import CertifyReport
from mmdata.datasets.certificate.accounts import Account, DayAccount, Lines
from mmdata.datasets.chain import CHAINS
from mmdata.datasets.layout import NO_SYMBOL, Partition, date_name
from mmdata.datasets.locks import symbol_lock
from mmdata.datasets.published import Published, by_date, frames_of
from mmdata.datasets.schema import EXACT_TABLES, WIDE, exact_columns
from mmdata.recorder.capture import DAMAGED, EVENT, FRAME, REST, SENT, Event, Line, RestAnswer
from mmdata.recorder.merge import MergeState, Merging
from mmdata.recorder.records import (
    UNREADABLE,
    Bbo,
    Depth,
    Instrument,
    Record,
    Snapshot,
    Trade,
    Untabled,
)
from mmdata.recorder.rows import (
    BboRows,
    Columns,
    DepthRows,
    PlainRows,
    Rows,
    SnapshotRows,
    TradeRows,
    first_misfit,
    fits,
    instrument_row,
    misfits,
    sorted_by_frame,
    to_table,
    without_frames,
)
from mmdata.recorder.venues import DECODERS, HISTORIES

if TYPE_CHECKING:
    from mmdata.recorder.plain import PlainLines, Watcher

_FLUSH_ROWS = 1 << 20  # with a part in hand and one that is being written, some 300 MB
_SETTLE_ROWS = 1 << 17  # small enough to stay in the processor's caches until they are columns
_DAY_NS = 86_400 * 1_000_000_000
_PLAIN = ("binance", "binance-usdm")
"""Exchanges whose plain frames are read many at once."""
_PLAIN_ROWS: dict[str, Callable[[], Rows]] = {"depth": DepthRows, "trades": TradeRows, "bbo": BboRows}
_MOST_STRICT = 1 << 10  # lines on end; then the next is tried as a plain one

_R = TypeVar("_R", DepthRows, SnapshotRows, TradeRows, BboRows)
Grid = dict[str, tuple[str, str]]
"""Tick and lot size by symbol."""


@dataclass
class IngestReport:
    """What became of the lines of a capture, and how many rows were published."""

    lines: int = 0
    decoded: int = 0
    control: int = 0
    repeats: int = 0
    """Records among the decoded that another connection had brought before; they make no rows."""
    untabled: Counter[str] = field(default_factory=Counter)
    """Frames of channels that no table holds, by channel."""
    quarantined: int = 0
    sent: int = 0
    rest: int = 0
    events: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    """Rows that were there already."""
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Segments that could not be ingested, a sentence each; they stay where they are."""
    certified: int = 0
    """Days of a symbol that got a certificate, or another."""

    def check(self) -> None:
        """Raise AssertionError unless every line is accounted for, once: anything else is a bug of ours."""
        parts = (self.decoded, self.control, sum(self.untabled.values()), self.quarantined)
        told = sum(parts) + self.sent + self.rest + self.events
        if self.lines != told:
            raise AssertionError(f"{self.lines} lines were read and {told} accounted for: {self}")

    def add(self, other: IngestReport) -> None:
        """Add another report to this one."""
        for name in (
            *("lines", "decoded", "control", "repeats"),
            *("quarantined", "sent", "rest", "events", "skipped"),
        ):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.untabled += other.untabled
        self.rows += other.rows
        self.warnings += other.warnings
        self.failures += other.failures
        self.certified += other.certified

    def add_certified(self, other: CertifyReport) -> None:
        """Add what was certified of the rows."""
        self.certified += len(other.done)
        self.warnings += [*other.warnings, *other.skipped]
        self.failures += other.failures


@dataclass(frozen=True)
class _Batch:
    """What is to be published of a symbol."""

    symbol: str
    columns: dict[str, Columns]
    """By table."""
    wide: bool
    facts: dict[str, str]


class Ingest:
    """Takes the lines of one session in order and publishes them as parts of the tables.

    With ``aside``, which must have two workers at least, parts are published there while more lines are
    taken: twice the memory, less time. What goes wrong there is raised when the next are handed over, at
    the latest by `flush`.
    """

    def __init__(
        self,
        root: Path,
        exchange: str,
        session: str,
        metadata: dict[str, str],
        grid: Grid | None = None,
        merges: Mapping[str, MergeState] | None = None,
        *,
        dry: bool = False,
        aside: Executor | None = None,
    ) -> None:
        """``dry``: count what would become of the lines, and publish nothing."""
        self._root = root
        self._exchange = exchange
        self._session = session
        self._metadata = metadata
        self.grid: Grid = dict(grid or {})
        self._decoder = DECODERS[exchange]
        self._merge = Merging(CHAINS[exchange].rule, merges or {})
        self._rows: dict[tuple[str, str], Rows] = {}
        self._unsettled = 0
        self._pending = 0
        self._published = Published(root, exchange, session)
        self._aside = aside
        self._publishing: Future[None] | None = None
        self._counting = Lock()
        """Held while two threads might count rows."""
        self._plain_lines: PlainLines | None = None
        self._strict_run, self._strict_left = 1, 0
        """Lines on end that the strict reader takes before the next is tried as a plain one."""
        self.last_stamp = 0
        """``ts_recv`` of the newest plain line; whoever takes others sets it."""
        self.report = IngestReport()
        self._dry = dry
        self._days = _DayCounts(self.report)
        self.only_symbol: str | None = None
        """Leave out records of any other symbol."""
        self.watcher: Watcher | None = None
        """Sees each record that enters the tables: the importers watch the chains with it."""
        self.on_rows: Callable[[str, pa.Table], None] | None = None
        """Called with symbol and rows of each table of prices when they are published, one at a time."""

    def take(self, line: Line) -> None:
        """Decode one line and keep its rows; publishes when enough have gathered."""
        report = self.report
        self.enter(line)
        report.lines += 1
        if line.kind == FRAME:
            self._take_frame(line)
        elif line.kind == REST:
            self._take_rest(line)
        elif line.kind == EVENT:
            report.events += 1
            self._take_event(line)
        elif line.kind == SENT:
            report.sent += 1
        elif line.kind == DAMAGED:
            self.quarantine(line, "the line is not of the capture's grammar")
        if self._unsettled + len(self._plain_lines or ()) >= _SETTLE_ROWS:
            self._settle()

    def take_lines(
        self, text: bytes, number: int, strict: Callable[[int, bytes], None], *, is_tagged: bool
    ) -> int:
        """Take whole lines, those with plain frames many at once; return the number of the line after them.

        ``strict`` is called with number and text of each other line, and has `take` take it.
        ``is_tagged``: the lines are those of our captures, else of hftbacktest's collector.
        """
        at = 0
        while at < len(text):
            if self._strict_left == 0 and self._exchange in _PLAIN:
                before = number
                at, number = self._take_plain(text, at, number, is_tagged=is_tagged)
                # Where no line is plain, looking again at each one would cost more than it brings.
                self._strict_run = 1 if number > before else min(2 * self._strict_run, _MOST_STRICT)
                self._strict_left = self._strict_run if at < len(text) else 0
                continue
            end = text.index(b"\n", at)
            strict(number, text[at:end])
            self._strict_left = max(self._strict_left - 1, 0)
            at, number = end + 1, number + 1
        return number

    def _take_plain(self, text: bytes, at: int, number: int, *, is_tagged: bool) -> tuple[int, int]:
        """Take lines until one is for the strict reader; return where that begins, and its number."""
        from mmdata.recorder.plain import DATE, DONE, FULL, PlainLines

        if self._plain_lines is None:
            self._plain_lines = PlainLines(
                self._exchange, self._merge, self.watcher, self.only_symbol, _SETTLE_ROWS
            )
        lines = self._plain_lines
        ending = FULL
        while ending in (FULL, DATE):
            begun = number
            ending, at, number = lines.read(
                *(text, at, number, self._days.span),
                is_tagged=is_tagged,
                room=_SETTLE_ROWS - self._unsettled,
            )
            frames, repeats, stamp = lines.counts()
            self.report.lines += number - begun
            self.report.decoded += frames
            self.report.repeats += repeats
            if number > begun and ending != DATE:
                self.last_stamp = stamp
            if ending == DATE:
                self._days.enter(stamp)
            elif ending == FULL:
                if not self._unsettled and not len(lines):
                    break  # one message with more levels than there is room for
                self._settle()
        lines.hand_back()
        assert ending != DONE or at == len(text)
        return at, number

    def _settle(self) -> None:
        """Turn what has gathered into columns; publish them when they are enough."""
        self._gather()
        if self._pending >= _FLUSH_ROWS:
            self._hand_over()

    def _gather(self) -> None:
        plain: dict[tuple[str, str], Columns] = {}
        if self._plain_lines is not None:
            for table, symbol, columns in self._plain_lines.settle():
                if (table, symbol) not in self._rows:
                    self._rows[table, symbol] = _PLAIN_ROWS[table]()
                plain[table, symbol] = columns
                self._pending += len(columns["frame"])
        for key, rows in self._rows.items():
            rows.settle(plain.get(key))
        self._pending += self._unsettled
        self._unsettled = 0

    def enter(self, line: Line) -> None:
        """Count what follows on the UTC date of ``line``: `take` does it, others who add to the report do."""
        self._days.enter(line.ts_recv)

    def note(self, line: Line, event: Event) -> None:
        """Add a row to the table `events`, at the place of ``line``."""
        rows = self._plain("events", event.symbol or NO_SYMBOL)
        rows.add(
            frame=line.number,
            ts_recv=line.ts_recv,
            kind=event.kind,
            conn=event.conn,
            channel=event.channel,
            last_id=event.last_id,
            next_id=event.next_id,
            detail=msgspec.json.encode(event.detail).decode() if event.detail else None,
        )
        self._unsettled += 1

    def add_instrument(self, line: Line, record: Instrument, source: str) -> None:
        """Add a row to the table `instruments`. ArrowInvalid: a number that no decimal(38, 18) holds."""
        pa.array([value for value in _numbers(record) if value is not None], pa.string()).cast(WIDE)
        self.grid[record.symbol] = (record.tick_size, record.lot_size)
        self._plain("instruments", record.symbol).add(
            frame=line.number, ts_recv=line.ts_recv, **instrument_row(record, source)
        )
        self._unsettled += 1

    def add_snapshot(self, line: Line, record: Snapshot, reason: str, ts_request: int | None) -> None:
        """Add a book that was asked for to the table `snapshots`."""
        self._of(SnapshotRows, record.symbol).add(line, record, ts_request, reason)
        self._unsettled += len(record.bids) + len(record.asks) or 1

    def quarantine(self, line: Line, error: str) -> None:
        """Keep a line that nobody understands, with what is wrong with it; it is never dropped."""
        self.report.quarantined += 1
        self._plain("quarantine", NO_SYMBOL).add(
            frame=line.number,
            ts_recv=line.ts_recv,
            conn=line.conn,
            error=error,
            frame_text=line.payload.decode("utf-8", errors="backslashreplace"),
        )
        self._unsettled += 1
        self.note(line, Event("quarantine", conn=line.conn, detail={"error": error}))

    def flush(self) -> None:
        """Publish what has gathered. DiskError: the disk failed; doing it again completes it."""
        self._hand_over()
        self._wait()

    def _hand_over(self) -> None:
        """Have what has gathered published, aside where there is somebody."""
        self._gather()
        self._wait()  # what is there decides what is added
        columns = {key: rows.columns(self._session) for key, rows in self._rows.items() if len(rows)}
        self._set_misfits_apart(columns)
        batches = [
            self._batch(symbol, {table: arrays for (table, own), arrays in columns.items() if own == symbol})
            for symbol in sorted({symbol for _, symbol in columns})
        ]
        self._rows, self._pending, self._unsettled = {}, 0, 0
        if self._aside is None:
            self._publish(batches)
        else:
            self._publishing = self._aside.submit(self._publish, batches)

    def _wait(self) -> None:
        """Wait until what was handed over is published, or raise what went wrong with it."""
        publishing, self._publishing = self._publishing, None
        if publishing is not None:
            publishing.result()

    def account(self, segment: int) -> Account:
        """Return what the lines came to, by UTC date of their receive times; call it after `flush`."""
        return Account(self._exchange, self._session, segment, self._days.told())

    def _take_frame(self, line: Line) -> None:
        """Decode a frame, then add its records: ids are known here, levels of books still unparsed."""
        try:
            records = self._decoder.skim(line.payload)
        except UNREADABLE as error:
            self.quarantine(line, f"cannot be decoded: {error}")
            return
        if len(records) == 1 and isinstance(records[0], Untabled):
            untabled = records[0]
            if untabled.control:
                self.report.control += 1
            else:
                self.report.untabled[untabled.channel] += 1
            return
        if self.only_symbol is not None:
            records = [r for r in records if not isinstance(r, Untabled) and r.symbol == self.only_symbol]
            if not records:
                self.report.untabled["other symbols"] += 1
                return
        self.report.decoded += 1
        conn = line.conn or 0
        for record in records:
            if not self._merge.enters(conn, record):
                self.report.repeats += 1
                continue
            self._add(line, record)
            if self.watcher is not None:
                self.watcher.see(line, record)

    def _add(self, line: Line, record: Record) -> None:
        if isinstance(record, Depth):
            self._of(DepthRows, record.symbol).add(line, record)
            self._unsettled += len(record.bids) + len(record.asks) or 1
        elif isinstance(record, Trade):
            self._of(TradeRows, record.symbol).add(line, record)
            self._unsettled += 1
        elif isinstance(record, Bbo):
            self._of(BboRows, record.symbol).add(line, record)
            self._unsettled += 1

    def _take_rest(self, line: Line) -> None:
        self.report.rest += 1
        try:
            answer = msgspec.json.decode(line.payload, type=RestAnswer)
            if answer.status != 200:
                return  # kept in the capture; what the recorder made of it is an event
            body = answer.body.encode()
            if answer.purpose == "snapshot" and answer.symbol is not None:
                record = self._decoder.skim_snapshot(body, answer.symbol)
                self.add_snapshot(line, record, answer.reason or "audit", answer.t0)
            elif answer.purpose == "backfill":
                self._take_backfill(line, answer)
            elif answer.purpose == "instruments":
                wanted = (answer.symbol or "").split(",") if answer.symbol else ()
                for instrument in self._decoder.decode_instruments(body, wanted):
                    self.add_instrument(line, instrument, "venue")
        except UNREADABLE as error:
            self.report.rest -= 1
            self.quarantine(line, f"REST answer cannot be decoded: {error!r}")

    def _take_backfill(self, line: Line, answer: RestAnswer) -> None:
        """Add the trades of a hole that a page of the venue's history holds, oldest first."""
        first_id, last_id = answer.first_id, answer.last_id
        if answer.symbol is None or answer.kind is None or first_id is None or last_id is None:
            raise ValueError("it does not say which trades were missing")
        page = HISTORIES[self._exchange].decode(answer.body.encode(), answer.symbol, answer.kind)
        missing = [trade for trade in page if first_id <= trade.trade_id <= last_id]
        for trade in sorted(missing, key=lambda trade: trade.trade_id):
            self._of(TradeRows, trade.symbol).add(line, trade, origin="backfill")
            self._unsettled += 1

    def _take_event(self, line: Line) -> None:
        try:
            event = msgspec.json.decode(line.payload, type=Event)
            if event.kind == "disconnected" and event.conn is not None:
                self._merge.leave(event.conn)
            self.note(line, event)
        except UNREADABLE as error:
            self.report.events -= 1
            self.quarantine(line, f"event cannot be decoded: {error}")

    def _of(self, kind: type[_R], symbol: str) -> _R:
        """Return what has gathered of a symbol's depth, snapshots, trades or best bids and asks."""
        rows = self._rows.get((kind.table, symbol))
        if rows is None:
            rows = self._rows[kind.table, symbol] = kind()
        assert isinstance(rows, kind)
        return rows

    def _plain(self, table: str, symbol: str) -> PlainRows:
        rows = self._rows.get((table, symbol))
        if rows is None:
            rows = self._rows[table, symbol] = PlainRows(table)
        assert isinstance(rows, PlainRows)
        return rows

    def _set_misfits_apart(self, columns: dict[tuple[str, str], dict[str, pa.Array]]) -> None:
        """Move frames whose numbers no decimal holds into quarantine, out of every other table."""
        bad: dict[int, str] = {}
        for (table, _), arrays in columns.items():
            names = exact_columns(table)
            if not fits(arrays, names, wide=False) and not fits(arrays, names, wide=True):
                bad.update(misfits(table, arrays, wide=True))
        if not bad:
            return
        for key in [key for key in columns if key[0] in EXACT_TABLES]:
            columns[key] = without_frames(columns[key], [*bad])
            if not len(columns[key]["frame"]):
                del columns[key]
        for frame, error in sorted(bad.items()):
            line = self._line(frame)
            self.enter(line)
            if line.kind == REST:
                self.report.rest -= 1
            else:
                self.report.decoded -= 1
            self.quarantine(line, error)
        for table in ("quarantine", "events"):
            rows = self._rows[table, NO_SYMBOL]
            columns[table, NO_SYMBOL] = sorted_by_frame(rows.columns(self._session))

    def _line(self, frame: int) -> Line:
        """Return the line of a frame with a number that is no narrow decimal."""
        return next(rows.lines[frame] for rows in self._rows.values() if frame in rows.lines)

    def _batch(self, symbol: str, tables: dict[str, Columns]) -> _Batch:
        """Decide how wide the decimals of a symbol are, and say so where it changes."""
        wide_from = self._wide_from(symbol, tables)
        if wide_from is not None:
            tables["events"] = self._with_wide_event(symbol, wide_from)
        facts = dict(self._metadata)
        if symbol in self.grid:
            facts["tick_size"], facts["lot_size"] = self.grid[symbol]
        return _Batch(symbol, tables, wide_from is not None or self._published.is_wide(symbol), facts)

    def _publish(self, batches: list[_Batch]) -> None:
        while batches:
            batch = batches.pop(0)  # its memory is given back before the next
            tables = {
                table: to_table(table, batch.columns.pop(table), wide=batch.wide)
                for table in sorted(batch.columns)
            }
            with nullcontext() if self._dry else symbol_lock(self._root, self._exchange, batch.symbol):
                self._publish_tables(batch, tables)

    def _publish_tables(self, batch: _Batch, tables: dict[str, pa.Table]) -> None:
        """Publish the tables of a symbol; aside, the largest beside all the rest."""
        exact = [tables[table] for table in tables if table in EXACT_TABLES]
        largest = max(tables, key=lambda table: tables[table].num_rows)
        with ExitStack() as beside:
            if self._aside is not None:
                rows = tables.pop(largest)
                largest_done = self._aside.submit(self._publish_table, batch, largest, rows)
                beside.callback(largest_done.result)  # it is waited for, whatever happens to the others
            while exact and self.on_rows is not None:
                self.on_rows(batch.symbol, exact.pop())
            exact.clear()
            for table in [*tables]:
                self._publish_table(batch, table, tables.pop(table))

    def _publish_table(self, batch: _Batch, table: str, rows: pa.Table) -> None:
        for day, part in by_date(rows):
            partition = Partition(
                table, batch.wide and table in EXACT_TABLES, self._exchange, batch.symbol, day
            )
            self._publish_part(partition, part, batch.facts)

    def _wide_from(self, symbol: str, tables: dict[str, dict[str, pa.Array]]) -> int | None:
        """Return the frame that makes the symbol wide; None where it is wide already, or stays narrow."""
        frames = (first_misfit(table, columns, wide=False) for table, columns in tables.items())
        first = min((frame for frame in frames if frame is not None), default=None)
        if first is None:
            return None
        # Taken from the data, so that ingesting the same lines again says the same: of what is published
        # only what came before these lines counts.
        begin = min(frames_of(columns)[0] for columns in tables.values())
        return None if self._published.is_wide_before(symbol, begin) else first

    def _with_wide_event(self, symbol: str, frame: int) -> dict[str, pa.Array]:
        """Return the symbol's events with one more: from ``frame`` on its values need decimal(38, 18)."""
        detail = {"decimal": "decimal(38, 18)", "tables": "-wide"}
        self.note(self._line(frame), Event("instrument", symbol=symbol, detail=detail))
        return sorted_by_frame(self._rows["events", symbol].columns(self._session))

    def _publish_part(self, partition: Partition, rows: pa.Table, facts: dict[str, str]) -> None:
        with self._counting:
            self._days.add_rows(partition, rows.num_rows)
        if self._dry:
            return
        fresh = self._published.publish(partition, rows, facts)
        with self._counting:
            self.report.skipped += rows.num_rows - fresh
            if fresh:
                self.report.rows[partition.table] += fresh


class _DayCounts:
    """What is counted of an ingest, told apart by the UTC date of the line that was being taken."""

    def __init__(self, report: IngestReport) -> None:
        self._report = report
        self._days: dict[str, DayAccount] = {}
        self._before = _lines_of(report)
        self.span = (0, 0)
        """The date that is counted now, from its first moment to the next date's."""

    def enter(self, ts_recv: int) -> None:
        """Count on the date of ``ts_recv`` from here on."""
        if self.span[0] <= ts_recv < self.span[1]:
            return
        self._settle()
        begin = ts_recv - ts_recv % _DAY_NS
        self.span = (begin, begin + _DAY_NS)

    def add_rows(self, partition: Partition, rows: int) -> None:
        """Count rows of a partition, whether they are published or were there."""
        own = self._day(partition.date).rows.setdefault(partition.symbol, {})
        own[partition.table] = own.get(partition.table, 0) + rows

    def told(self) -> dict[str, DayAccount]:
        """Return the counts by date."""
        self._settle()
        return self._days

    def _day(self, date: str) -> DayAccount:
        return self._days.setdefault(date, DayAccount(Lines()))

    def _settle(self) -> None:
        """Add what was counted since the last time to the date that was counted on."""
        now, before = _lines_of(self._report), self._before
        self._before = now
        if now == before:
            return
        lines = self._day(date_name(self.span[0])).lines
        for name in Lines.__struct_fields__:
            if name != "untabled":
                setattr(lines, name, getattr(lines, name) + getattr(now, name) - getattr(before, name))
        untabled = Counter(lines.untabled) + Counter(now.untabled) - Counter(before.untabled)
        lines.untabled = dict(sorted(untabled.items()))


def _lines_of(report: IngestReport) -> Lines:
    """Return what an ingest has counted of lines so far."""
    return Lines(
        **{name: getattr(report, name) for name in Lines.__struct_fields__}
        | {"untabled": dict(report.untabled)}
    )


def _numbers(record: Instrument) -> tuple[str | None, ...]:
    sizes = (record.lot_size, record.min_size, record.contract_value)
    return (record.tick_size, record.min_notional, *sizes)


def describe(report: IngestReport) -> list[tuple[str, int]]:
    """Return the accounting of a report as (what, how many), for a table that a person reads."""
    untabled: Sequence[tuple[str, Any]] = sorted(report.untabled.items())
    return [
        ("lines", report.lines),
        ("frames decoded", report.decoded),
        ("control frames", report.control),
        ("messages brought twice", report.repeats),
        *((f"frames of {channel} (no table)", count) for channel, count in untabled),
        ("quarantined", report.quarantined),
        ("sent", report.sent),
        ("REST answers", report.rest),
        ("events", report.events),
        *((f"rows in {table}", count) for table, count in sorted(report.rows.items())),
        ("rows that were there already", report.skipped),
    ]
