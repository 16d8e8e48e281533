"""Channels of an import become one session of a dataset: ordered in time, numbered, published.

What the channels bring is merged by ``ts_recv`` into one sequence of messages, each with its number
(``frame``). At equal times trades stand before the book, which shows what they left, and that before quotes.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.certificate.accounts import Account, DayAccount, Lines
from mmdata.datasets.decimals import shortest
from mmdata.datasets.formats.rows import Bad, Channel, Flags, Ints, Piece, joined, pieces
from mmdata.datasets.grid import DERIVED, USER, Divisors
from mmdata.datasets.layout import NO_SYMBOL, Partition, date_name
from mmdata.datasets.locks import symbol_lock
from mmdata.datasets.published import Published, by_date
from mmdata.datasets.schema import EXACT_TABLES, NARROW, arrow_schema, exact_columns
from mmdata.datasets.times import DAY_NS

Grid = dict[str, tuple[str, str]]
"""Tick and lot size by symbol."""

_FLUSH_ROWS = 1 << 20
_RANK = {"trades": 0, "depth": 1, "snapshots": 2, "bbo": 3}
_OTHERS = "other symbols"
_CONN = 0  # a file has no connections: all of it came on one


@dataclass
class TableReport:
    """What an import of tables did."""

    session: str
    exchange: str
    messages: int = 0
    read: int = 0
    """Rows of book, trades and quotes that could be read."""
    other_symbols: int = 0
    """Of these, rows of symbols that were not asked for."""
    quarantined: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    """Rows that were there already."""
    gaps: int = 0
    certified: int = 0
    """Days of a symbol that got a certificate, or another in place of the old."""
    derived: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """Tick and lot size by symbol, where they were derived from the values seen."""
    warnings: list[str] = field(default_factory=list)

    def accounting(self) -> list[tuple[str, int]]:
        """Return what became of the lines as (what, how many)."""
        return [
            ("messages", self.messages),
            ("rows read", self.read),
            ("rows of other symbols", self.other_symbols),
            ("quarantined", self.quarantined),
            *((f"rows in {table}", count) for table, count in sorted(self.rows.items())),
            ("rows that were there already", self.skipped),
        ]


class TableSession:
    """One import's session: takes its channels, publishes their rows; the session's lock is the caller's."""

    def __init__(
        self,
        root: Path,
        exchange: str,
        session: str,
        facts: dict[str, str],
        *,
        start: dict[str, Any],
        only_symbol: str | None = None,
        grid: Grid | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.report = TableReport(session, exchange)
        self._root = root
        self._facts = facts
        self._start = start
        self._only_symbol = only_symbol
        self._grid = grid or {}
        self._progress = progress
        self._published = Published(root, exchange, session)
        self._gathered: dict[tuple[str, str], list[pa.Table]] = defaultdict(list)
        self._pending = 0
        self._divisors: dict[str, Divisors] = defaultdict(Divisors)
        self._highest: dict[tuple[str, str], int] = {}
        """By table and symbol: the highest trade id so far."""
        self._in_snapshot: dict[str, bool] = {}
        self._last_ts = 0
        self._begun = False
        self._days: dict[str, DayAccount] = defaultdict(lambda: DayAccount(Lines()))

    def take(
        self, channels: Sequence[Channel], torn: Callable[[], Sequence[tuple[Path, str]]]
    ) -> TableReport:
        """Take all channels to their ends; ``torn`` then tells which sources were cut off, and how."""
        for group in _in_time([pieces(channel.batches) for channel in channels]):
            self._take_group([(channels[at], piece) for at, piece in group])
            if self._pending >= _FLUSH_ROWS:
                self._flush()
            if self._progress is not None:
                self._progress(self.report.messages)
        self._end(torn())
        return self.report

    def account(self) -> Account:
        """Return what the files came to, by UTC date: their messages are its lines; call it after `take`."""
        return Account(self.report.exchange, self.report.session, 0, dict(self._days))

    def _take_group(self, group: Sequence[tuple[Channel, Piece]]) -> None:
        """Keep the rows of one stretch of time, each with the number of its message."""
        marks = [_Marks.of(channel, piece, self._last_ts) for channel, piece in group]
        times = np.concatenate([mark.time for mark in marks])
        ranks = np.repeat([_RANK[channel.table] for channel, _ in group], [len(mark.time) for mark in marks])
        frames = np.empty(len(times), np.int64)
        frames[np.lexsort((ranks, times))] = np.arange(len(times)) + self.report.messages
        if len(times):
            if not self._begun:
                self._note(0, int(times.min()), "session_start", detail=self._start)
                self._begun = True
            self._last_ts = int(times.max())
        for date, count in _by_day(times):
            self._days[date].lines.lines += count
        at = 0
        for mark, (channel, piece) in zip(marks, group, strict=True):
            own = frames[at : at + len(mark.time)]
            at += len(mark.time)
            self._take_bad(piece.bad, own[~mark.is_rows], mark.time[~mark.is_rows])
            if piece.rows.num_rows:
                rows = piece.rows.append_column("frame", pa.array(own[mark.is_rows][mark.message_of_row]))
                self._take_rows(channel, rows, mark.begins, mark.time[mark.is_rows])
        self.report.messages += len(times)

    def _take_bad(self, bad: Sequence[Bad], frames: Ints, times: Ints) -> None:
        for line, frame, ts in zip(bad, frames.tolist(), times.tolist(), strict=True):
            self.report.quarantined += 1
            self._days[date_name(ts)].lines.quarantined += 1
            row = {"frame": frame, "ts_recv": ts, "conn": None, "error": line.error, "frame_text": line.text}
            self._gather("quarantine", NO_SYMBOL, _one_row("quarantine", row))
            self._note(frame, ts, "quarantine", detail={"error": line.error})

    def _take_rows(self, channel: Channel, rows: pa.Table, begins: Flags, times: Ints) -> None:
        """Keep rows; ``begins`` tells where their messages begin, ``times`` when each of these came."""
        self.report.read += rows.num_rows
        for symbol in pc.unique(rows["symbol"]).to_pylist():
            of_symbol = pc.equal(rows["symbol"], symbol)
            here = of_symbol.to_numpy()
            is_wanted = self._only_symbol in (None, symbol)
            for date, count in _by_day(times[here[begins]]):
                lines = self._days[date].lines
                if is_wanted:
                    lines.decoded += count
                else:
                    lines.untabled = {_OTHERS: lines.untabled.get(_OTHERS, 0) + count}
            if not is_wanted:
                self.report.other_symbols += int(here.sum())
                continue
            own = rows if here.all() else rows.filter(of_symbol)
            self._divisors[symbol].see(own)
            if channel.table == "depth":
                self._note_synced(symbol, own, begins[here])
                own = _with_is_last(own, begins[here])
            elif channel.table == "trades" and channel.chained is not None:
                self._note_holes(symbol, own, channel.chained)
            self._gather(channel.table, symbol, own.drop_columns(["symbol"]))

    def _note_synced(self, symbol: str, rows: pa.Table, begins: Flags) -> None:
        """Note where a book begins: at the first of snapshots that follow one another."""
        is_snapshot = rows["is_snapshot"].to_numpy()
        before = np.concatenate(([self._in_snapshot.get(symbol, False)], is_snapshot[:-1]))
        for row in np.flatnonzero(is_snapshot & ~before).tolist():
            frame, ts = rows["frame"][row].as_py(), rows["ts_recv"][row].value
            self._note(frame, ts, "synced", symbol=symbol, channel="depth")
        self._in_snapshot[symbol] = bool(is_snapshot[-1])

    def _note_holes(self, symbol: str, rows: pa.Table, column: str) -> None:
        """Note the ids that are missing. One that comes late, or again, leaves the chain where it is."""
        ids = rows[column].to_numpy()
        for kind in pc.unique(rows["kind"]).to_pylist():
            own = np.flatnonzero(pc.equal(rows["kind"], kind).to_numpy())
            told = ids[own]
            before = np.maximum.accumulate(
                np.concatenate(([self._highest.get((kind, symbol), told[0] - 1)], told[:-1]))
            )
            for at in np.flatnonzero(told > before + 1).tolist():
                row = int(own[at])
                self.report.gaps += 1
                self._note(
                    rows["frame"][row].as_py(),
                    rows["ts_recv"][row].value,
                    "gap",
                    symbol=symbol,
                    channel="trades",
                    last_id=int(before[at]),
                    next_id=int(told[at]),
                    detail={"cause": "missing"},
                )
            self._highest[kind, symbol] = int(max(before[-1], told[-1]))

    def _end(self, torn: Sequence[tuple[Path, str]]) -> None:
        for path, what in torn:
            self.report.warnings.append(f"{path}: {what}; it was cut off, all before it was imported")
        if not self._begun:
            return
        frame, ts = self.report.messages, self._last_ts
        for path, what in torn:
            self._note(frame, ts, "torn", detail={"source": path.name, "what": what})
        for symbol, divisors in sorted(self._divisors.items()):
            tick, lot = shortest(divisors.tick or Decimal(1)), shortest(divisors.lot or Decimal(1))
            steps, source = (f"{tick:f}", f"{lot:f}"), DERIVED
            if symbol in self._grid:
                steps, source = self._grid[symbol], USER
            else:
                self.report.derived[symbol] = (tick, lot)
            row = {"frame": frame, "ts_recv": ts, "source": source}
            row |= dict(zip(("tick_size", "lot_size"), map(Decimal, steps), strict=True))
            self._gather("instruments", symbol, _one_row("instruments", row))
        self._note(frame, ts, "session_end", detail={"source": "import"})
        self._flush()

    def _note(self, frame: int, ts: int, kind: str, *, symbol: str = NO_SYMBOL, **values: Any) -> None:
        detail = values.pop("detail", None)
        told = json.dumps(detail, separators=(",", ":"), ensure_ascii=False) if detail else None
        row = {"frame": frame, "ts_recv": ts, "kind": kind, "detail": told, **values}
        self._gather("events", symbol, _one_row("events", row))

    def _gather(self, table: str, symbol: str, rows: pa.Table) -> None:
        self._gathered[table, symbol].append(rows)
        self._pending += rows.num_rows

    def _flush(self) -> None:
        """Publish what has gathered. DiskError: the disk failed; doing it again completes it."""
        for symbol in sorted({symbol for _, symbol in self._gathered}):
            tables = {table: joined(rows) for (table, own), rows in self._gathered.items() if own == symbol}
            with symbol_lock(self._root, self.report.exchange, symbol):
                self._publish(symbol, tables)
        self._gathered.clear()
        self._pending = 0

    def _publish(self, symbol: str, tables: dict[str, pa.Table]) -> None:
        wide_from = _wide_from(tables)
        # Taken from the data, so that importing the same files again says the same.
        begin = min(int(rows["frame"].to_numpy().min()) for rows in tables.values())
        if wide_from is not None and not self._published.is_wide_before(symbol, begin):
            frame, ts = wide_from
            detail = json.dumps({"decimal": "decimal(38, 18)", "tables": "-wide"}, separators=(",", ":"))
            event = _one_row(
                "events", {"frame": frame, "ts_recv": ts, "kind": "instrument", "detail": detail}
            )
            tables["events"] = joined([*([tables["events"]] if "events" in tables else []), event])
        wide = wide_from is not None or self._published.is_wide(symbol)
        facts = dict(self._facts)
        if symbol in self._grid:
            facts["tick_size"], facts["lot_size"] = self._grid[symbol]
        for table, gathered in sorted(tables.items()):
            rows = self._complete(table, gathered, wide=wide)
            for day, part in by_date(rows):
                partition = Partition(
                    table, wide and table in EXACT_TABLES, self.report.exchange, symbol, day
                )
                made = self._days[day].rows.setdefault(symbol, {})
                made[table] = made.get(table, 0) + part.num_rows
                fresh = self._published.publish(partition, part, facts)
                self.report.skipped += part.num_rows - fresh
                if fresh:
                    self.report.rows[table] += fresh

    def _complete(self, table: str, rows: pa.Table, *, wide: bool) -> pa.Table:
        """Return rows in order of their frames, with every column of the table."""
        frames = rows["frame"].to_numpy()
        if (frames[1:] < frames[:-1]).any():
            rows = rows.take(pa.array(np.argsort(frames, kind="stable")))
        schema = arrow_schema(table, wide=wide)
        columns = []
        for told in schema:
            if told.name == "session":
                columns.append(pa.repeat(self.report.session, len(rows)))
            elif told.name == "conn" and table not in ("events", "quarantine"):
                columns.append(pa.repeat(pa.scalar(_CONN, told.type), len(rows)))
            elif told.name in rows.column_names:
                columns.append(rows[told.name].cast(told.type))
            else:
                columns.append(pa.nulls(len(rows), told.type))
        return pa.Table.from_arrays(columns, schema=schema)


@dataclass(frozen=True)
class _Marks:
    """The messages of a piece and the lines that are none, in order."""

    time: Ints
    is_rows: Flags
    """Of each: whether it is a message, not a line that cannot be read."""
    begins: Flags
    message_of_row: Ints

    @staticmethod
    def of(channel: Channel, piece: Piece, last_ts: int) -> _Marks:
        begins = channel.begins(piece.rows) if piece.rows.num_rows else np.empty(0, np.bool_)
        starts = np.flatnonzero(begins)
        places = np.array([line.row for line in piece.bad], np.int64)
        order = np.argsort(np.concatenate((2 * starts + 1, 2 * places)), kind="stable")
        if len(piece.time):
            time = np.concatenate((piece.time[starts], piece.time[np.maximum(places - 1, 0)]))
        else:
            time = np.full(len(places), last_ts)
        return _Marks(
            np.maximum.accumulate(time[order]) if len(order) else time,
            order < len(starts),
            begins,
            np.cumsum(begins) - 1,
        )


def _by_day(times: Ints) -> Iterator[tuple[str, int]]:
    """Yield how many of ``times`` are of each UTC date."""
    for day, count in zip(*np.unique(times // DAY_NS, return_counts=True), strict=True):
        yield date_name(int(day) * DAY_NS), int(count)


def _in_time(streams: Sequence[Iterator[Piece]]) -> Iterator[list[tuple[int, Piece]]]:
    """Yield what lies in one stretch of time of all streams, stretch after stretch."""
    heads: dict[int, Piece] = {}
    live = dict(enumerate(streams))
    while True:
        for at in [at for at in live if at not in heads]:
            head = next(live[at], None)
            if head is None:
                del live[at]
            else:
                heads[at] = head
        if not heads:
            return
        until = min(_end_of(piece) for piece in heads.values())
        group = []
        for at, piece in list(heads.items()):
            taken, left = _cut(piece, until)
            if taken is not None:
                group.append((at, taken))
            if left is None:
                del heads[at]
            else:
                heads[at] = left
        yield group


def _end_of(piece: Piece) -> int:
    return int(piece.time[-1]) if len(piece.time) else -1


def _cut(piece: Piece, until: int) -> tuple[Piece | None, Piece | None]:
    """Cut a piece behind the time ``until``."""
    cut = int(np.searchsorted(piece.time, until, side="right"))
    if cut == len(piece.time):
        return piece, None
    if cut == 0:
        return None, piece
    return (
        Piece(piece.rows.slice(0, cut), [line for line in piece.bad if line.row < cut], piece.time[:cut]),
        Piece(
            piece.rows.slice(cut),
            [line._replace(row=line.row - cut) for line in piece.bad if line.row >= cut],
            piece.time[cut:],
        ),
    )


def _with_is_last(rows: pa.Table, begins: Flags) -> pa.Table:
    """Mark the last row of each message, and put its bids before its asks."""
    message = np.cumsum(begins)
    is_ask = pc.equal(rows["side"], "ask").to_numpy()
    order = np.lexsort((is_ask, message))
    if (np.diff(order) < 0).any():
        rows = rows.take(pa.array(order))
    is_last = np.append(begins[1:], True)
    return rows.append_column("is_last", pa.array(is_last))


def _wide_from(tables: dict[str, pa.Table]) -> tuple[int, int] | None:
    """Return frame and time of the first row with a value that no narrow decimal holds."""
    found = []
    for table, rows in tables.items():
        for name in exact_columns(table):
            if name in rows.column_names and rows[name].type != NARROW:
                at = _first_misfit(rows[name])
                if at is not None:
                    found.append((rows["frame"][at].as_py(), rows["ts_recv"][at].value))
    return min(found, default=None)


def _first_misfit(values: pa.ChunkedArray) -> int | None:
    at = 0
    for chunk in values.chunks:
        begin, end = 0, len(chunk)
        if not _fits(chunk):
            while end - begin > 1:  # halve: the first one is in the earlier half that does not fit
                middle = (begin + end) // 2
                if _fits(chunk.slice(begin, middle - begin)):
                    begin = middle
                else:
                    end = middle
            return at + begin
        at += len(chunk)
    return None


def _fits(values: pa.Array) -> bool:
    try:
        values.cast(NARROW)
    except pa.ArrowInvalid:
        return False
    return True


def _one_row(table: str, values: dict[str, Any]) -> pa.Table:
    schema = arrow_schema(table)
    chosen = [told for told in schema if told.name in values]
    return pa.table(
        [pa.array([values[told.name]], told.type) for told in chosen],
        schema=pa.schema([told.with_nullable(True) for told in chosen]),
    )
