"""The checks of one symbol: reads its tables, runs the checks, and puts a sentence to each finding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets import market as columns_of
from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN, REPLACE
from mmdata.datasets.book import NO_PRICE, Tops, rebuild
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.errors import DatasetError
from mmdata.datasets.layout import Part, list_parts
from mmdata.datasets.market import NO_TIME, Market, load_market, read_part
from mmdata.datasets.schema import TABLES
from mmdata.datasets.validation import checks
from mmdata.datasets.validation.files import check_files, rows_of
from mmdata.datasets.validation.report import Finding, Severity, SymbolReport, ValidationReport

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_SECOND = 1_000_000_000
_ALWAYS = (-(2**62), 2**62)
_TOUCH = ("bid_price", "bid_size", "ask_price", "ask_size")
_TRADE_IDS = ("session", "frame", "ts_recv", "kind", "origin", "trade_id", "first_trade_id", "last_trade_id")


class SymbolChecks:
    """Checks one symbol, all of it or one UTC day; findings and figures go into the report."""

    def __init__(
        self,
        root: Path,
        exchange: str,
        symbol: str,
        date: str | None,
        day: tuple[int, int] | None,
        report: ValidationReport,
    ) -> None:
        self._root = root
        self._exchange = exchange
        self._symbol = symbol
        self._date = date
        self._day = day or _ALWAYS
        self._report = report
        self._figures = SymbolReport(exchange, symbol)

    def run(self) -> None:
        """Run all checks; a damaged file ends them for this symbol, with a finding."""
        found = [finding for table in TABLES for finding in check_files(self._parts(table))]
        self._figures.rows = {
            table: sum(map(rows_of, parts)) for table in TABLES if (parts := self._parts(table))
        }
        if not found and not self._figures.rows:
            return  # nothing on this date
        self._report.symbols.append(self._figures)
        self._report.findings += found
        if any(finding.check == "file" for finding in found):
            return
        if not self._all_parts("depth") and not self._all_parts("trades"):
            self._tell_bbo_latency(self._bbo())
            return
        try:
            market = load_market(self._root, self._exchange, self._symbol, end=self._end())
        except DatasetError as error:
            self._find("error", "load", 1, str(error))
            return
        tops = rebuild(market.columns, market.chain)
        today = self._today(market.ts_recv)
        messages = today & (market.columns.kind <= REPLACE)
        self._figures.messages = int(messages.sum())
        self._figures.valid_share = checks.valid_share(market, tops, *self._day)
        if messages.any() and not tops.valid[today].any():
            self._find(
                "error",
                "book",
                1,
                "the book is never valid: no snapshot is continued by a diff, so nothing can be replayed",
            )
        self._check_doubled(market, messages)
        self._check_chain(market, today)
        self._check_clock(market, today)
        self._check_trades()
        self._check_crossed(market, tops, today)
        self._check_bbo(market, tops)
        self._check_checksums(market, today)

    # --- helpers

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
            )
        )

    def _find_message(
        self, severity: Severity, check: str, count: int, sentence: str, market: Market, at: int
    ) -> None:
        """Report a finding whose place is message ``at``."""
        order, ts_recv = int(market.order[at]), int(market.ts_recv[at])
        self._find(severity, check, count, sentence, market=market, order=order, ts_recv=ts_recv)

    def _end(self) -> int | None:
        return None if self._date is None else self._day[1]

    def _today(self, ts_recv: Ints) -> Flags:
        begin, end = self._day
        return np.asarray((ts_recv >= begin) & (ts_recv < end))

    def _parts(self, table: str) -> list[Part]:
        return list_parts(self._root, table, exchange=self._exchange, symbol=self._symbol, date=self._date)

    def _all_parts(self, table: str) -> list[Part]:
        return list_parts(self._root, table, exchange=self._exchange, symbol=self._symbol)

    def _gaps(self, channel: str) -> set[tuple[int | None, int | None]]:
        """Return the (last_id, next_id) of the recorded gaps of a channel."""
        found: set[tuple[int | None, int | None]] = set()
        for part in self._all_parts("events"):
            rows = read_part(part, ("kind", "channel", "last_id", "next_id"))
            of_channel = pc.and_(pc.equal(rows["kind"], "gap"), pc.equal(rows["channel"], channel))
            chosen = rows.filter(of_channel)
            found |= {*zip(chosen["last_id"].to_pylist(), chosen["next_id"].to_pylist(), strict=True)}
        return found

    # --- the checks

    def _check_doubled(self, market: Market, messages: Flags) -> None:
        at = np.flatnonzero(messages)
        frame = market.order[at] & ((1 << columns_of.FRAME_BITS) - 1)
        found = checks.doubled(market.session_of(market.order[at]), frame, market.columns.last_id[at])
        # Without ids, several books of one frame cannot be told apart.
        found = found[market.columns.last_id[at[found]] != NO_ID]
        if found.size:
            self._find_message(
                "error",
                "doubled",
                int(found.size),
                f"{found.size} book messages stand twice: rows were published again, so counts of changes "
                f"are wrong",
                market,
                int(at[found[0]]),
            )

    def _check_chain(self, market: Market, today: Flags) -> None:
        breaks = [found for found in checks.chain_breaks(market, self._gaps("depth")) if today[found.message]]
        unrecorded = [found for found in breaks if not found.recorded]
        self._figures.chain_breaks = len(breaks)
        self._figures.unrecorded_breaks = len(unrecorded)
        for found in unrecorded:
            self._find_message(
                "error",
                "chain",
                1,
                f"the message at id {market.columns.last_id[found.message]} does not continue the book at "
                f"{found.book_id} (it builds on {found.next_id}), and no gap is on record: changes are "
                f"missing, and the book is invalid until the next snapshot",
                market,
                found.message,
            )
        holes = np.flatnonzero(np.isin(market.columns.kind, (GAP, GAP_OPEN)) & today)
        if holes.size:
            self._find_message(
                "warning",
                "gap",
                int(holes.size),
                f"{holes.size} recorded hole{'s' if holes.size > 1 else ''} in the book; it is invalid from "
                f"each to the next snapshot, and replay takes resting orders off there",
                market,
                int(holes[0]),
            )

    def _check_clock(self, market: Market, today: Flags) -> None:
        """Tell the latency of each channel, a clock that is behind, and one that stepped back."""
        trades = market.trades
        books = today & (market.columns.kind <= REPLACE)
        mine = self._today(trades.ts_recv)
        for channel, order, ts_recv, ts_event in (
            ("depth", market.order[books], market.ts_recv[books], market.ts_event[books]),
            ("trades", trades.order[mine], trades.ts_recv[mine], trades.ts_event[mine]),
        ):
            self._check_arrival(market, channel, order, ts_recv)
            figures = checks.latency(channel, ts_recv, ts_event)
            if figures is not None:
                self._figures.latencies.append(figures)
        negative = [figures for figures in self._figures.latencies if figures.negative_share > 0]
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

    def _check_arrival(self, market: Market, channel: str, order: Ints, ts_recv: Ints) -> None:
        back = checks.steps_back(order, ts_recv)
        if back.size:
            worst = int((ts_recv[back - 1] - ts_recv[back]).max())
            self._find(
                "warning",
                "arrival",
                int(back.size),
                f"the receive clock of {channel} steps back {back.size} times (by {worst / 1e6:.3f} ms at "
                f"most): the order of rows is right, differences of ts_recv are not",
                market=market,
                order=int(order[back[0]]),
                ts_recv=int(ts_recv[back[0]]),
            )

    def _check_trades(self) -> None:
        rows = [read_part(part, _TRADE_IDS) for part in self._parts("trades")]
        if not rows:
            return
        table = pa.concat_tables(rows).combine_chunks()
        table = table.filter(pc.equal(table["origin"], "stream"))
        self._figures.trades = table.num_rows
        for kind in pc.unique(table["kind"]).to_pylist():
            self._check_trade_ids(kind, table.filter(pc.equal(table["kind"], kind)))

    def _check_trade_ids(self, kind: str, own: pa.Table) -> None:
        # Aggregates of Binance are counted in ids of their own; OKX's by the trades that they cover.
        counted = kind == "agg" and self._exchange.startswith("binance")
        first = columns_of.ids(own["trade_id" if counted else "first_trade_id"])
        last = columns_of.ids(own["trade_id" if counted else "last_trade_id"])
        steps = checks.trade_steps(first, last)
        times = own["ts_recv"].cast(pa.int64()).to_numpy()
        sessions = own["session"].to_pylist()
        known = self._gaps("trades")
        self._figures.trade_holes += len(steps.holes)
        for at, before in zip(steps.holes.tolist(), steps.before.tolist(), strict=True):
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
        frames = own["frame"].to_numpy()
        twice = checks.doubled(np.unique(sessions, return_inverse=True)[1], frames, last)
        again = np.setdiff1d(steps.again, twice)
        severity: Severity
        for severity, what, places in (
            ("error", "stand twice: rows were published again", twice),
            ("warning", "were sent again, as to a new subscription", again),
            ("warning", "came after younger ones", steps.late),
            ("warning", "go back to ids that were passed: the venue counts anew", steps.back),
        ):
            if places.size:
                self._find(
                    severity,
                    "trade ids",
                    int(places.size),
                    f"{places.size} trades {what} (first id {first[places[0]]}); count each trade_id once",
                    ts_recv=int(times[places[0]]),
                )

    def _check_crossed(self, market: Market, tops: Tops, today: Flags) -> None:
        found = checks.crossed(tops)
        found = found[today[found]]
        if found.size:
            at = int(found[0])
            self._find_message(
                "error",
                "crossed",
                int(found.size),
                f"the book is crossed after {found.size} messages (first: bid {tops.bid_price[at]}, ask "
                f"{tops.ask_price[at]} ticks of {market.tick_size}): levels are stale or missing",
                market,
                at,
            )

    def _bbo(self) -> pa.Table | None:
        wanted = ("session", "frame", "ts_recv", "ts_event", "last_id", *_TOUCH)
        tables = [read_part(part, wanted) for part in self._parts("bbo")]
        if not tables:
            return None
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()

    def _tell_bbo_latency(self, bbo: pa.Table | None) -> None:
        if bbo is not None:
            figures = checks.latency(
                "bbo", columns_of.times(bbo["ts_recv"]), columns_of.times(bbo["ts_event"])
            )
            if figures is not None:
                self._figures.latencies.append(figures)

    def _check_bbo(self, market: Market, tops: Tops) -> None:
        bbo = self._bbo()
        self._tell_bbo_latency(bbo)
        if bbo is None:
            return
        touch = np.column_stack(
            [
                columns_of.multiples(bbo[name], market.tick_size, NO_PRICE)
                if name.endswith("price")
                else columns_of.multiples(bbo[name], market.lot_size, 0)
                for name in _TOUCH
            ]
        )
        index = {session: at for at, session in enumerate(market.sessions)}
        sessions = np.array([index.get(name, -1) for name in bbo["session"].to_pylist()], np.int64)
        order = (sessions << columns_of.FRAME_BITS) | bbo["frame"].to_numpy()
        ids = columns_of.ids(bbo["last_id"])
        compared = checks.compare_touches(market, tops, order, ids, touch)
        self._figures.bbo_compared = compared.compared
        self._figures.bbo_equal = compared.compared - len(compared.unequal)
        if compared.unequal:
            at = compared.unequal[0]
            self._find(
                "error",
                "bbo",
                len(compared.unequal),
                f"the venue's own best bid and ask differ from the rebuilt book's at "
                f"{len(compared.unequal)} of {compared.compared} equal ids (first {ids[at]}): the book is "
                f"not the exchange's",
                ts_recv=int(columns_of.times(bbo["ts_recv"])[at]),
            )

    def _check_checksums(self, market: Market, today: Flags) -> None:
        """Compare the checksums of OKX recordings that have some; bound to messages by their order."""
        heads = []
        for part in self._all_parts("depth"):
            rows = read_part(part, ("checksum", "is_last"))
            heads.append(rows.filter(rows["is_last"])["checksum"])
        sums = pa.chunked_array(heads, pa.int32()) if heads else None
        if sums is None or sums.null_count == len(sums):
            return
        messages = np.flatnonzero(np.isin(market.columns.kind, (DIFF, REPLACE)))
        expected = {
            int(message): value
            for message, value in zip(messages, sums.to_pylist(), strict=False)
            if value is not None and today[message]
        }
        wrong = checks.verify_checksums(market, expected)
        self._figures.checksums = len(expected)
        self._figures.checksums_equal = len(expected) - len(wrong)
        if wrong:
            self._find_message(
                "error",
                "checksum",
                len(wrong),
                f"the rebuilt book's checksum differs from the venue's after {len(wrong)} of "
                f"{len(expected)} messages: the book is not the exchange's",
                market,
                wrong[0],
            )
