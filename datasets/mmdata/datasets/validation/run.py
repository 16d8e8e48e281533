"""`mmdata validate`: reads a dataset, runs the checks, and puts a sentence to each finding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.datasets import market as columns_of
from mmdata.datasets.book import NO_PRICE, Tops, rebuild
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.layout import CAPTURES, NO_SYMBOL, Part, date_name, list_parts, list_symbols
from mmdata.datasets.market import NO_TIME, Market, load_market, read_part
from mmdata.datasets.schema import TABLES, arrow_schema
from mmdata.datasets.validation import checks
from mmdata.datasets.validation.report import Finding, Severity, SymbolReport, ValidationReport

Ints = NDArray[np.int64]
_SECOND = 1_000_000_000
_TRADE_IDS = ("session", "frame", "ts_recv", "kind", "origin", "first_trade_id", "last_trade_id")


def validate(
    root: Path,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Check what is published in the dataset at ``root``, all of it or one exchange, symbol, UTC date.

    Damaged files become findings, and what they held is left out of the other checks. ``progress`` is
    called with the name of each symbol when its turn comes. UsageError: there is nothing to check.
    """
    pairs = [
        pair
        for pair in list_symbols(root)
        if exchange in (None, pair[0]) and symbol in (None, pair[1]) and pair[0] in CHAINS
    ]
    if not pairs:
        have = ", ".join(f"{e} {s}" for e, s in list_symbols(root)) or "nothing"
        raise UsageError(
            f"{root}: nothing of {exchange or 'any exchange'} {symbol or ''} to validate; it holds {have}"
        )
    report = ValidationReport(str(root))
    for name in dict.fromkeys(pair[0] for pair in pairs):
        _check_unsorted(root, name, report)
    for own_exchange, own_symbol in pairs:
        if progress is not None:
            progress(f"{own_exchange} {own_symbol}")
        _Symbol(root, own_exchange, own_symbol, date, report).check()
    _name_pending(root, report)
    return report


def _check_unsorted(root: Path, exchange: str, report: ValidationReport) -> None:
    """Report what lies in quarantine and which captures ended torn."""
    rows = sum(_rows(part) for part in list_parts(root, "quarantine", exchange=exchange))
    if rows:
        sentence = (
            f"{rows} frames could not be decoded and lie in the table quarantine: what they said is missing "
            f"from the other tables"
        )
        report.findings.append(Finding("warning", "quarantine", exchange, NO_SYMBOL, rows, sentence))


def _rows(part: Part) -> int:
    try:
        return int(pq.read_metadata(part.path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0  # told by the check of the file itself


def _name_pending(root: Path, report: ValidationReport) -> None:
    for folder in sorted(root.glob(f"{CAPTURES}/*")):
        waiting = sorted([*folder.glob("*/*.open"), *folder.glob("*/*.cap")])
        if waiting:
            sentence = (
                f"{len(waiting)} capture segments are not ingested yet (first: {waiting[0]}): a recorder is "
                f"running, or died; `mmdata recover` ingests what a dead one left"
            )
            finding = Finding("info", "pending", folder.name, NO_SYMBOL, len(waiting), sentence)
            report.findings.append(finding)


class _Symbol:
    """The checks of one symbol."""

    def __init__(
        self, root: Path, exchange: str, symbol: str, date: str | None, report: ValidationReport
    ) -> None:
        self._root = root
        self._exchange = exchange
        self._symbol = symbol
        self._date = date
        self._report = report
        self.figures = SymbolReport(exchange, symbol)

    def check(self) -> None:
        """Run all checks; a damaged file ends them for this symbol, with a finding."""
        self._report.symbols.append(self.figures)
        if not self._check_files():
            return
        try:
            market = load_market(self._root, self._exchange, self._symbol, end=self._end())
        except (DatasetError, UsageError) as error:
            self._find("error", "load", 1, str(error))
            return
        tops = rebuild(market.columns, market.chain)
        self.figures.messages = int((market.columns.kind <= 1).sum())
        self.figures.valid_share = checks.valid_share(market, tops)
        if self.figures.messages and not tops.valid.any():
            self._find(
                "error",
                "book",
                1,
                "the book is never valid: no snapshot is continued by a diff, so nothing can be replayed",
            )
        self._check_chain(market)
        self._check_clock(market)
        self._check_trades(market)
        self._check_crossed(market, tops)
        self._check_bbo(market, tops)
        self._check_checksums(market)

    def _find(
        self,
        severity: Severity,
        check: str,
        count: int,
        sentence: str,
        *,
        market: Market | None = None,
        order: int | None = None,
        ts_recv: int | None = None,
        file: str | None = None,
    ) -> None:
        session = frame = None
        if market is not None and order is not None:
            session = market.sessions[order >> columns_of.FRAME_BITS]
            frame = order & ((1 << columns_of.FRAME_BITS) - 1)
        self._report.findings.append(
            Finding(
                severity,
                check,
                self._exchange,
                self._symbol,
                count,
                f"{self._symbol} on {self._exchange}: {sentence}",
                session,
                frame,
                None if ts_recv in (None, NO_TIME) else ts_recv,
                file,
            )
        )

    def _end(self) -> int | None:
        if self._date is None:
            return None
        return int(np.datetime64(self._date, "ns").astype(np.int64)) + 86_400 * _SECOND

    def _on_date(self, ts_recv: int) -> bool:
        return self._date is None or date_name(ts_recv) == self._date

    def _parts(self, table: str) -> list[Part]:
        return list_parts(self._root, table, exchange=self._exchange, symbol=self._symbol, date=self._date)

    def _check_files(self) -> bool:
        """Compare each file with the schema; False when one is damaged."""
        sound = True
        for table in TABLES:
            for part in self._parts(table):
                problem = _file_problem(part)
                if problem is not None:
                    sound = False
                    self._find("error", "file", 1, f"{part.path}: {problem}", file=str(part.path))
                    continue
                self.figures.rows[table] = self.figures.rows.get(table, 0) + _rows(part)
                self._check_rows(part)
        return sound

    def _check_rows(self, part: Part) -> None:
        """Compare the rows' order and dates with where the file lies."""
        rows = read_part(part, ("frame", "ts_recv"))
        frames, times = rows["frame"].to_numpy(), rows["ts_recv"].cast(pa.int64()).to_numpy()
        back = np.flatnonzero(frames[1:] < frames[:-1])
        if back.size:
            self._find(
                "error",
                "order",
                int(back.size),
                f"{part.path}: rows are not in the order of their frames (first at row {back[0] + 1}): the "
                f"order of arrival is lost",
                file=str(part.path),
            )
        days = {date_name(int(times.min())), date_name(int(times.max()))}
        if days != {part.partition.date}:
            self._find(
                "error",
                "partition",
                1,
                f"{part.path}: holds rows of {', '.join(sorted(days))}, expected only {part.partition.date}",
                file=str(part.path),
            )

    def _check_chain(self, market: Market) -> None:
        gaps = self._events("gap", "depth")
        breaks = [
            found
            for found in checks.chain_breaks(market, gaps)
            if self._on_date(int(market.ts_recv[found.message]))
        ]
        self.figures.chain_breaks = len(breaks)
        unrecorded = [found for found in breaks if not found.recorded]
        self.figures.unrecorded_breaks = len(unrecorded)
        for found in unrecorded:
            self._find(
                "error",
                "chain",
                1,
                f"the message at id {market.columns.last_id[found.message]} does not continue the book at "
                f"{found.book_id} (it builds on {found.next_id}), and no gap is on record: changes are "
                f"missing, and the book is invalid until the next snapshot",
                market=market,
                order=int(market.order[found.message]),
                ts_recv=int(market.ts_recv[found.message]),
            )
        holes = checks.recorded_gaps(market)
        if holes.size:
            at = int(holes[0])
            self._find(
                "warning",
                "gap",
                int(holes.size),
                f"{holes.size} recorded hole{'s' if holes.size > 1 else ''} in the book; it is invalid "
                f"from each to the next snapshot, and replay takes resting orders off there",
                market=market,
                order=int(market.order[at]),
                ts_recv=int(market.ts_recv[at]),
            )

    def _events(self, kind: str, channel: str) -> list[tuple[int | None, int | None]]:
        found: list[tuple[int | None, int | None]] = []
        for part in list_parts(self._root, "events", exchange=self._exchange, symbol=self._symbol):
            rows = read_part(part, ("kind", "channel", "last_id", "next_id"))
            chosen = rows.filter(pc.and_(pc.equal(rows["kind"], kind), pc.equal(rows["channel"], channel)))
            found += zip(chosen["last_id"].to_pylist(), chosen["next_id"].to_pylist(), strict=True)
        return found

    def _check_clock(self, market: Market) -> None:
        """Tell the latency of each channel, a clock that is behind, and one that stepped back."""
        streams: Sequence[tuple[str, Ints, Ints, Ints]] = (
            ("depth", market.order, market.ts_recv, market.ts_event),
            ("trades", market.trades.order, market.trades.ts_recv, market.trades.ts_event),
        )
        for channel, order, ts_recv, ts_event in streams:
            timed = np.flatnonzero(ts_recv != NO_TIME)
            back = checks.steps_back(order[timed], ts_recv[timed])
            if back.size:
                at = int(timed[back[0]])
                worst = int((ts_recv[timed][back - 1] - ts_recv[timed][back]).max())
                self._find(
                    "warning",
                    "arrival",
                    int(back.size),
                    f"the receive clock of {channel} steps back {back.size} times (by {worst / 1e6:.3f} ms "
                    f"at most): the order of rows is right, differences of ts_recv are not",
                    market=market,
                    order=int(order[at]),
                    ts_recv=int(ts_recv[at]),
                )
            figures = checks.latency(channel, ts_recv, ts_event)
            if figures is not None:
                self.figures.latencies.append(figures)
        negative = [figures for figures in self.figures.latencies if figures.negative_share > 0]
        if negative:
            least = min(figures.min for figures in negative)
            share = max(figures.negative_share for figures in negative)
            self._find(
                "warning",
                "clock",
                1,
                f"receive precedes event by up to {-least / _SECOND:.3f} s ({share:.1%} of a channel): the "
                f"recorder's clock is behind the venue's by at least that; taken raw, ts_recv shows the "
                f"future, so replay maps it to the venue's clock",
            )

    def _check_trades(self, market: Market) -> None:
        rows = [read_part(part, _TRADE_IDS) for part in self._parts("trades")]
        if not rows:
            return
        table = pa.concat_tables(rows).combine_chunks()
        self.figures.trades = table.num_rows
        known = set(self._events("gap", "trades"))
        for kind in pc.unique(table["kind"]).to_pylist():
            own = table.filter(pc.and_(pc.equal(table["kind"], kind), pc.equal(table["origin"], "stream")))
            first = columns_of.ids(own["first_trade_id"])
            last = columns_of.ids(own["last_trade_id"])
            steps = checks.trade_steps(first, last)
            times = own["ts_recv"].cast(pa.int64()).to_numpy()
            self.figures.trade_holes += len(steps.holes)
            sessions = own["session"].to_pylist()
            for at in steps.holes.tolist():
                before = int(last[:at][last[:at] != NO_ID][-1])
                lost = int(first[at]) - before - 1
                # Between two sessions nothing was recorded, and both sessions' ends are on record.
                recorded = (before, int(first[at])) in known or sessions[at] != sessions[at - 1]
                self._find(
                    "warning" if recorded else "error",
                    "trade ids",
                    lost,
                    f"{lost} trades are missing between ids {before} and {first[at]}, "
                    f"{'' if recorded else 'not '}on record: volume and last price are wrong there",
                    ts_recv=int(times[at]),
                )
            if steps.repeats.size:
                self._find(
                    "warning",
                    "trade ids",
                    int(steps.repeats.size),
                    f"{steps.repeats.size} trades repeat an id or go back (first {first[steps.repeats[0]]}): "
                    f"drop them by trade_id before summing volume",
                    ts_recv=int(times[steps.repeats[0]]),
                )

    def _check_crossed(self, market: Market, tops: Tops) -> None:
        found = checks.crossed(tops)
        if found.size:
            at = int(found[0])
            self._find(
                "error",
                "crossed",
                int(found.size),
                f"the book is crossed after {found.size} messages (first: bid {tops.bid_price[at]}, ask "
                f"{tops.ask_price[at]} ticks of {market.tick_size}): levels are stale or missing",
                market=market,
                order=int(market.order[at]),
                ts_recv=int(market.ts_recv[at]),
            )

    def _check_bbo(self, market: Market, tops: Tops) -> None:
        names = ("bid_price", "bid_size", "ask_price", "ask_size")
        wanted = ("frame", "ts_recv", "ts_event", "last_id", *names)
        tables = [read_part(part, wanted) for part in self._parts("bbo")]
        if not tables:
            return
        table = pa.concat_tables(tables, promote_options="permissive").combine_chunks()
        times = columns_of.times(table["ts_recv"])
        figures = checks.latency("bbo", times, columns_of.times(table["ts_event"]))
        if figures is not None:
            self.figures.latencies.append(figures)
        touch = np.column_stack(
            [
                columns_of.multiples(
                    table[name],
                    market.tick_size if name.endswith("price") else market.lot_size,
                    NO_PRICE if name.endswith("price") else 0,
                )
                for name in names
            ]
        )
        compared = checks.compare_touches(market, tops, columns_of.ids(table["last_id"]), touch)
        self.figures.bbo_compared = compared.compared
        self.figures.bbo_equal = compared.compared - len(compared.unequal)
        if compared.unequal:
            at = compared.unequal[0]
            self._find(
                "error",
                "bbo",
                len(compared.unequal),
                f"the venue's own best bid and ask differ from the rebuilt book's at "
                f"{len(compared.unequal)} of {compared.compared} equal ids (first "
                f"{table['last_id'][at]}): the book is not the exchange's",
                ts_recv=int(times[at]),
            )

    def _check_checksums(self, market: Market) -> None:
        """Compare the checksums of OKX recordings that have some; bound to messages by their order."""
        heads = []
        for part in list_parts(self._root, "depth", exchange=self._exchange, symbol=self._symbol):
            rows = read_part(part, ("checksum", "is_last"))
            heads.append(rows.filter(rows["is_last"])["checksum"])
        sums = pa.chunked_array(heads, pa.int32()) if heads else None
        if sums is None or sums.null_count == len(sums):
            return
        messages = np.flatnonzero(market.columns.kind <= 1)
        expected = {
            int(message): value
            for message, value in zip(messages, sums.to_pylist(), strict=False)
            if value is not None
        }
        wrong = checks.verify_checksums(market, expected)
        self.figures.checksums = len(expected)
        self.figures.checksums_equal = len(expected) - len(wrong)
        if wrong:
            self._find(
                "error",
                "checksum",
                len(wrong),
                f"the rebuilt book's checksum differs from the venue's after {len(wrong)} of "
                f"{len(expected)} messages: the book is not the exchange's",
                market=market,
                order=int(market.order[wrong[0]]),
                ts_recv=int(market.ts_recv[wrong[0]]),
            )


def _file_problem(part: Part) -> str | None:
    """Return what is wrong with a file; None when it can be read and has the schema."""
    size = part.path.stat().st_size
    if size == 0:
        return "is empty (0 bytes), expected a Parquet file: its rows are lost unless its capture was kept"
    try:
        found = pq.read_schema(part.path)
    except (pa.ArrowInvalid, OSError) as error:
        return f"cannot be read as Parquet ({size} bytes: {error}); its rows are left out"
    expected = arrow_schema(part.partition.table, wide=part.partition.wide)
    if not found.remove_metadata().equals(expected):
        wrong = [field.name for field in expected if field not in list(found)]
        return f"is not of schema version 1: {', '.join(wrong) or 'it has further columns'} differ"
    return None
