"""Message by message: what the venues published is in the tables, once, or on record as lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from mmdata.datasets.layout import list_parts
from mmdata.recorder.capture import Event, Line
from mmdata.sandbox.faults import FaultRecord
from mmdata.sandbox.truth import BookTruth, OrderEvent
from tests.explain.frames import Captured, Matched
from tests.explain.wire import BBO, DEPTH, TRADES, Rows, Said, read_frame
from tests.sent import told

_AT_THE_END_NS = 2_000_000_000
_ASKED_AGAIN_NS = 12_000_000_000
"""A refused snapshot of Binance is asked for again within so long: our share of its limit is one in 5 s."""
_COLUMNS = {
    DEPTH: ("first_id", "last_id", "prev_id", "is_snapshot", "side", "price", "size"),
    TRADES: ("trade_id", "first_trade_id", "last_trade_id", "side", "price", "size"),
    BBO: ("last_id", "bid_price", "bid_size", "ask_price", "ask_size"),
}
_ALTERED = ("truncate", "invalid_json", "wrong_type", "oversize")
_COMES_AGAIN = ("duplicate", "reorder", "delay")


@dataclass(frozen=True)
class Published:
    """What a market published of one symbol, in order, whoever listened."""

    books: dict[int, int]
    """Id of each book message -> its place."""
    trades: dict[int, int]
    """Id of each trade -> its place."""
    book_times: list[int]
    trade_times: list[int]
    fills: dict[int, tuple[str, int, int]]
    """Id of each trade -> the taker's side, price in ticks, size in lots."""


@dataclass
class Explained:
    """What became of every message, by class; what nothing explains, in words."""

    classes: Counter[str] = field(default_factory=Counter)
    unexplained: list[str] = field(default_factory=list)


def published(truth: Path) -> dict[tuple[str, str], Published]:
    """Return what was published, by venue and symbol: from the matching engines' own journals."""
    found: dict[tuple[str, str], Published] = defaultdict(lambda: Published({}, {}, [], [], {}))
    for book in told(truth, "books", BookTruth):
        own = found[book.venue, book.symbol]
        if book.last_id not in own.books:  # a heartbeat, and another stream's, come with the same id
            own.books[book.last_id] = len(own.books)
            own.book_times.append(book.ts)
    for order in told(truth, "orders", OrderEvent):
        if order.event == "fill":
            assert order.trade_id is not None
            own = found[order.venue, order.symbol]
            own.trades[order.trade_id] = len(own.trades)
            own.trade_times.append(order.ts)
            side = "buy" if order.side == "ask" else "sell"
            own.fills[order.trade_id] = (side, order.px_ticks, order.qty_lots)
    return found


def stored(root: Path, venue: str, symbol: str, table: str, origin: str = "stream") -> dict[int, Rows]:
    """Return a table's rows by frame, in order."""
    found: dict[int, Rows] = {}
    for part in list_parts(root, table, exchange=venue, symbol=symbol):
        rows = pq.read_table(part.path, partitioning=None)
        if table == TRADES:
            rows = rows.filter(pc.equal(rows["origin"], origin))
        columns = [rows[name].to_pylist() for name in _COLUMNS[table]]
        for frame, *values in zip(rows["frame"].to_pylist(), *columns, strict=True):
            found.setdefault(frame, []).append(tuple(values))
    return found


class Explaining:
    """Explains one venue's tables."""

    def __init__(
        self,
        root: Path,
        venue: str,
        captured: Captured,
        matched: Matched,
        faults: list[FaultRecord],
    ) -> None:
        self._root = root
        self._venue = venue
        self._captured = captured
        self._matched = matched
        self._faults = faults
        [self._ended_ns] = [line.ts_recv for line, event in captured.events if event.kind == "session_end"]
        self.found = Explained()
        # Every connection's end is on record; after the last one's there was nobody to notice a hole.
        self._alone_from_ns = [line.ts_recv for line, e in captured.events if e.kind == "disconnected"][-1]
        self._struck = {
            (record.kind, said.symbol, said.last_id)
            for record in faults
            if record.kind in _COMES_AGAIN
            for said in read_frame(venue, record.frame.encode())
        }
        self._quarantined = self._read_quarantine()

    def explain(self, symbol: str, market: Published) -> None:
        """Explain every row and every message of one symbol."""
        received = self._check_rows(symbol)
        self._explain_books(symbol, market, received[DEPTH])
        self._explain_trades(symbol, market, received[TRADES])

    def check_quarantine(self) -> None:
        """See that what could not be read had been spoilt."""
        lines = {line.number: line for lines in self._captured.frames.values() for line in lines}
        spoilt: dict[int, list[str]] = defaultdict(list)
        for record in self._faults:
            if record.kind in _ALTERED:
                spoilt[record.conn].append(record.frame)
        for number in self._quarantined:
            line = lines.get(number)
            if line is None or line.conn is None:
                self._miss(f"quarantine holds line {number}, which is no frame")
                continue
            text = line.payload.decode()
            if any(_alike(text, frame) for frame in spoilt[self._matched.conns.get(line.conn, -1)]):
                self._tell("frames that were spoilt, in quarantine")
            else:
                self._miss(f"frame {number} is in quarantine, and nobody spoilt it: {text[:200]}")

    # --- rows against frames

    def _check_rows(self, symbol: str) -> dict[str, set[int]]:
        """Compare each row with the frame that it came from; return the ids that were received."""
        tables = {table: stored(self._root, self._venue, symbol, table) for table in _COLUMNS}
        have = {
            table: {said[1 if table == DEPTH else 0] for rows in frames.values() for said in rows}
            for table, frames in tables.items()
        }
        received: dict[str, set[int]] = {table: set() for table in tables}
        for line, said in self._messages(symbol):
            rows = tables[said.table].pop(line.number, None)
            received[said.table].add(said.last_id)
            if rows == said.rows:
                self._tell(f"{said.table} messages in the tables")
            elif rows is not None:
                self._miss(f"{symbol}: rows of frame {line.number} are {rows[:3]}, sent was {said.rows[:3]}")
            elif said.is_snapshot:
                self._tell("snapshots of one more connection")
            elif said.last_id in have[said.table]:
                self._tell(f"{said.table} messages brought twice, in the tables once")
            elif said.table == BBO:
                self._tell("bbo messages overtaken by a newer one")
            else:
                self._tell(f"{said.table} messages received, left to a connection that ended")
        for table, frames in tables.items():
            for frame in frames:
                self._miss(f"{symbol}: {table} has rows of frame {frame}, which no frame explains")
        return received

    def _messages(self, symbol: str) -> Iterator[tuple[Line, Said]]:
        for lines in self._captured.frames.values():
            for line in lines:
                if line.number in self._quarantined:
                    continue
                for said in read_frame(self._venue, line.payload):
                    if said.symbol == symbol:
                        yield line, said

    # --- books

    def _explain_books(self, symbol: str, market: Published, received: set[int]) -> None:
        places = market.books
        seen: Counter[int] = Counter()
        for _, rows in sorted(stored(self._root, self._venue, symbol, DEPTH).items()):
            _, last_id, prev_id, is_snapshot = rows[0][:4]
            if last_id not in places:
                self._miss(f"{symbol}: a book message ends at id {last_id}, where none was published")
            elif is_snapshot:
                # What another connection brought beyond it, of a book that was not whole, has to come again.
                for place in [place for place in seen if place > places[last_id]]:
                    self._tell(f"{DEPTH} in the tables, and again behind an older snapshot")
                    del seen[place]
            elif prev_id != last_id:
                seen[places[last_id]] += 1
        holes = self._book_holes(symbol, places)
        for last_id, place in places.items():
            if place == 0:
                continue  # the book before the first message
            self._tell(f"{DEPTH} published")
            count = seen[place]
            if count == 1:
                self._tell(f"{DEPTH} published, in the tables")
            elif count > 1:
                self._twice(symbol, DEPTH, last_id, count)
            elif any(first < place <= last for first, last in holes):
                self._tell(f"{DEPTH} published, in a hole on record")
                if last_id in received:
                    self._tell(f"{DEPTH} in a hole on record, in the capture")
            elif market.book_times[place] > self._ended_ns - _AT_THE_END_NS:
                self._tell(f"{DEPTH} published, as the recording ended")
            else:
                self._miss(
                    f"{symbol}: book message {last_id} of {market.book_times[place]} is missing, without "
                    f"a gap ({'it was received' if last_id in received else 'it was not received'})"
                )

    def _book_holes(self, symbol: str, places: dict[int, int]) -> list[tuple[int, int]]:
        """Return the places that are on record as lost: after the first, up to the second."""
        holes: list[tuple[int, int]] = []
        begun: int | None = -1
        for event in self._events(symbol, DEPTH):
            if event.kind == "gap" and event.last_id is not None:
                self._check_gap(symbol, event, places)
                if begun is None:
                    begun = places.get(event.last_id)
            elif event.kind == "synced" and begun is not None:
                assert event.last_id is not None
                holes.append((begun, places[event.last_id]))
                begun = None
        if begun is not None:
            holes.append((begun, len(places)))
            if self._is_refused_at_the_end(symbol):
                self._tell("books not whole at the end, since the venue refused the snapshot")
            else:
                self._miss(f"{symbol}: the book was not whole when the recording ended")
        return holes

    def _is_refused_at_the_end(self, symbol: str) -> bool:
        """Tell whether the last thing that came of asking for a book was a refusal, a short while ago."""
        asked = [(line, answer) for line, answer in self._captured.answers if answer.symbol == symbol]
        asked = [(line, answer) for line, answer in asked if answer.reason in ("start", "gap")]
        if not asked:
            return False
        line, answer = asked[-1]
        return answer.status != 200 and line.ts_recv > self._ended_ns - _ASKED_AGAIN_NS

    def _check_gap(self, symbol: str, event: Event, places: dict[int, int]) -> None:
        """See that a gap's ids are ids that the venue used."""
        self._tell(f"gaps of books on record, {event.detail['cause']}")
        if event.last_id not in places:
            self._miss(f"{symbol}: a gap begins at {event.last_id}, where no book message ended")
        if event.next_id is not None:
            before = event.next_id - 1 if self._venue == "binance" else event.next_id
            known = before in places or any(before + record_by in places for record_by in (1_000_000,))
            if not known:
                self._miss(f"{symbol}: a gap ends at {event.next_id}, where no book message begins")

    # --- trades

    def _explain_trades(self, symbol: str, market: Published, received: set[int]) -> None:
        seen: Counter[int] = Counter()
        row_of: dict[int, int] = {}  # a row may stand for several trades, and goes by its last
        for rows in stored(self._root, self._venue, symbol, TRADES).values():
            for row in rows:
                self._check_trade(symbol, row, market)
                seen.update(range(row[1], row[2] + 1))
                row_of |= dict.fromkeys(range(row[1], row[2] + 1), int(row[2]))
        filled: Counter[int] = Counter()
        for rows in stored(self._root, self._venue, symbol, TRADES, "backfill").values():
            for row in rows:
                self._check_trade(symbol, row, market)
                filled[row[0]] += 1
        holes = self._trade_holes(symbol, market.trades)
        recorded = [market.trades[number] for number in seen if number in market.trades]
        first = min(recorded, default=0)
        for number, place in market.trades.items():
            self._tell(f"{TRADES} published")
            count, again = seen[number], filled[number]
            if count == 1:
                self._tell(f"{TRADES} published, in the tables")
                if again:
                    self._twice(symbol, "backfilled trades", row_of[number], count + again)
            elif count > 1:
                self._twice(symbol, TRADES, row_of[number], count)
            elif again:
                self._tell(f"{TRADES} published, lost and filled in")
                if again > 1:
                    self._miss(f"{symbol}: trade {number} was filled in {again} times")
            elif place < first:
                self._tell(f"{TRADES} published, before the first that was recorded")
            elif any(begin < place < end for begin, end in holes):
                self._tell(f"{TRADES} published, in a hole on record that the venue did not fill")
            elif (end := self._end_at(market.trade_times[place])) is not None:
                self._tell(f"{TRADES} published, {end}")
            else:
                self._miss(
                    f"{symbol}: trade {number} of {market.trade_times[place]} is missing without a gap "
                    f"({'it was received' if number in received else 'it was not received'})"
                )

    def _check_trade(self, symbol: str, row: tuple[Any, ...], market: Published) -> None:
        """See that a trade is the engine's: all fills that it stands for, their side and price and size."""
        fills = [market.fills.get(number) for number in range(row[1], row[2] + 1)]
        told = [fill for fill in fills if fill is not None]
        if len(told) < len(fills) or {fill[:2] for fill in told} != {(row[3], told[0][1])}:
            self._miss(f"{symbol}: trade {row} is not what the engine filled: {fills}")

    def _trade_holes(self, symbol: str, places: dict[int, int]) -> list[tuple[int, int]]:
        holes = []
        for event in self._events(symbol, TRADES):
            if event.kind != "gap":
                continue
            self._tell(f"gaps of trades on record, {event.detail['cause']}")
            begin, end = places.get(event.last_id or 0), places.get(event.next_id or 0)
            if begin is None or end is None:
                self._miss(
                    f"{symbol}: a gap of trades from {event.last_id} to {event.next_id}, which are none"
                )
            else:
                holes.append((begin, end))
        return holes

    def _end_at(self, time_ns: int) -> str | None:
        """Return by which end a trade was overtaken, if by any: nobody could notice the hole then."""
        if time_ns > self._ended_ns - _AT_THE_END_NS:
            return "as the recording ended"
        return "after the last connection ended" if time_ns > self._alone_from_ns - _AT_THE_END_NS else None

    # --- what all share

    def _twice(self, symbol: str, what: str, last_id: int, count: int) -> None:
        """Explain what stands in a table more than once: the venue said it again, or late."""
        for kind in _COMES_AGAIN:
            if (kind, symbol, last_id) in self._struck:
                self._tell(f"{what} told twice by a {kind}")
                return
        self._miss(f"{symbol}: {what} {last_id} stands {count} times, and the venue did not send it again")

    def _events(self, symbol: str, channel: str) -> list[Event]:
        return [e for _, e in self._captured.events if (e.symbol, e.channel) == (symbol, channel)]

    def _read_quarantine(self) -> set[int]:
        parts = list_parts(self._root, "quarantine", exchange=self._venue)
        return {frame for part in parts for frame in pq.read_table(part.path)["frame"].to_pylist()}

    def _tell(self, what: str) -> None:
        self.found.classes[what] += 1

    def _miss(self, sentence: str) -> None:
        self.found.unexplained.append(f"{self._venue}: {sentence}")


def _alike(text: str, frame: str) -> bool:
    """Tell whether a text is a frame with one thing changed, as the faults change them."""
    same = 0
    for a, b in zip(text, frame, strict=False):
        if a != b:
            break
        same += 1
    behind = 0
    for a, b in zip(reversed(text[same:]), reversed(frame[same:]), strict=False):
        if a != b:
            break
        behind += 1
    return same + behind >= len(text) - 25
