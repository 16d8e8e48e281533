"""hftbacktest's `.npz`: one array of events, in the order of the exchange and of the strategy at once.

Each row says which of the two takes it: the exchange at ``exch_ts``, the strategy at ``local_ts``, or both.
Rows for the one ascend by its time, and so do rows for the other; where the two orders differ, a row
stands twice, once for each. Prices and sizes are floats, ids have no place.

Source: hftbacktest 2.4.2 (``types.py``, ``data/validation.py``), and its documentation, "Data", read in 2026.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import BID
from mmdata.datasets.decimals import to_floats
from mmdata.datasets.formats.flow import CLEAR, LEVEL, TRADE, WHOLE, Rows, open_flow
from mmdata.datasets.formats.output import Output
from mmdata.datasets.layout import date_name, encode_symbol
from mmdata.datasets.market import NO_TIME, Grid
from mmdata.datasets.times import DAY_NS

Ints = NDArray[np.int64]

EVENT: Final = np.dtype(
    [
        ("ev", "<u8"),
        ("exch_ts", "<i8"),
        ("local_ts", "<i8"),
        ("px", "<f8"),
        ("qty", "<f8"),
        ("order_id", "<u8"),
        ("ival", "<i8"),
        ("fval", "<f8"),
    ]
)
"""What an event is; times in ns."""
DEPTH_EVENT, TRADE_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT = 1, 2, 3, 4
EXCH_EVENT, LOCAL_EVENT, BUY_EVENT, SELL_EVENT = 1 << 31, 1 << 30, 1 << 29, 1 << 28
_EVENTS = np.zeros(4, np.uint64)
_EVENTS[[LEVEL, TRADE, CLEAR, WHOLE]] = (DEPTH_EVENT, TRADE_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT)

HORIZON_NS: Final = 10 * 1_000_000_000
"""How far the order of arrival and the exchange's may lie apart."""
_CHUNK = 1 << 24


def to_events(rows: Rows, grid: Grid) -> NDArray[np.void]:
    """Return rows as events, without saying yet who takes them."""
    events = np.zeros(len(rows), EVENT)
    side = np.where(rows.side == BID, BUY_EVENT, SELL_EVENT)
    # A clear without a side is of the whole book.
    events["ev"] = _EVENTS[rows.kind] | np.where(rows.kind == CLEAR, 0, side).astype(np.uint64)
    events["exch_ts"] = rows.acts
    events["local_ts"] = rows.seen
    events["px"] = to_floats(rows.price, grid.tick.size)
    events["qty"] = to_floats(rows.size, grid.lot.size)
    return events


@dataclass
class BothOrders:
    """Puts events that come in the order of arrival into the exchange's order too.

    What comes after something that happened later is split: the strategy takes it where it came, the
    exchange where it happened, trades of a moment before its book. For that the last `HORIZON_NS` of
    events are kept back.
    """

    due: InitVar[Rows]
    """Trades that only the exchange takes: those that were asked for later. Ascending."""
    grid: Grid
    split: int = 0
    """Rows that stand twice."""
    unplaced: int = 0
    """Rows that came so late that the exchange does not take them."""
    _held: list[tuple[NDArray[np.void], Ints, Ints]] = field(default_factory=list)
    _book: int = NO_TIME  # when the book's last row acted
    _reached: int = NO_TIME
    _done: int = NO_TIME

    def __post_init__(self, due: Rows) -> None:
        """Make events of what is due."""
        self._due = to_events(due, self.grid)

    def take(self, rows: Rows) -> tuple[NDArray[np.void], Ints]:
        """Take events in order of arrival; return those whose place is settled, and the day of each."""
        early = self._early(rows)
        reached = np.maximum.accumulate(np.maximum(np.where(early, NO_TIME, rows.acts), self._reached))
        apart = early | (rows.acts < reached)
        events = to_events(rows, self.grid)
        events["ev"] |= np.where(apart, LOCAL_EVENT, LOCAL_EVENT | EXCH_EVENT).astype(np.uint64)
        placed = apart & (rows.acts >= self._done)
        self.split += int(placed.sum())
        self.unplaced += int(apart.sum() - placed.sum())
        self._owe(to_events(rows.take(placed), self.grid))
        self._held.append((events, reached, rows.day))
        self._reached = int(reached[-1])
        return self._settled(self._reached - HORIZON_NS)

    def _early(self, rows: Rows) -> NDArray[np.bool_]:
        """Return which trades claim to be so far ahead of the book that it would be late beside them."""
        of_book = rows.kind != TRADE
        if self._book == NO_TIME and of_book.any():
            self._book = int(rows.acts[of_book][0])
        book = np.maximum.accumulate(np.maximum(np.where(of_book, rows.acts, NO_TIME), self._book))
        self._book = int(book[-1])
        early: NDArray[np.bool_] = (book != NO_TIME) & (rows.acts - HORIZON_NS > book)
        return early

    def rest(self) -> tuple[NDArray[np.void], Ints]:
        """Return what is left at the end. What only the exchange takes ends with what the strategy saw."""
        return self._settled(self._reached)

    def _owe(self, events: NDArray[np.void]) -> None:
        due = np.concatenate((self._due, events))
        self._due = due[np.argsort(due["exch_ts"], kind="stable")]

    def _settled(self, until: int) -> tuple[NDArray[np.void], Ints]:
        """Take out the held events that lie before whatever may still come: that acts after ``until``."""
        if not self._held:
            return np.empty(0, EVENT), np.empty(0, np.int64)
        events, reached, days = (np.concatenate(column) for column in zip(*self._held, strict=True))
        count = int(np.searchsorted(reached, until, side="right"))
        owed = int(np.searchsorted(self._due["exch_ts"], until, side="right"))
        self._held = [(events[count:], reached[count:], days[count:])]
        due, self._due = self._due[:owed], self._due[owed:]
        self._done = max(self._done, until)
        due["ev"] |= np.uint64(EXCH_EVENT)
        # Behind what acted at the same moment: that came before it.
        at = np.searchsorted(reached[:count], due["exch_ts"], side="right")
        day = days[np.minimum(at, len(days) - 1)]  # the last row is always held, so there is one
        return self._trades_first(np.insert(events[:count], at, due), np.insert(days[:count], at, day))

    def _trades_first(self, events: NDArray[np.void], days: Ints) -> tuple[NDArray[np.void], Ints]:
        """Let the exchange take the trades of a moment before the book, as our replay does.

        The book of a moment may hold its trades already: taken first, it would shrink a queue once as a
        cancellation and once more by the trade.
        """
        places = np.flatnonzero(events["ev"] & EXCH_EVENT)
        moments = events["exch_ts"][places]
        is_trade = events["ev"][places] & 0xFF == TRADE_EVENT
        last = np.full(len(places), -1)
        # Where the last trade of each row's moment stands.
        np.maximum.at(last, np.searchsorted(moments, moments)[is_trade], np.flatnonzero(is_trade))
        last = last[np.searchsorted(moments, moments)]
        early = ~is_trade & (np.arange(len(places)) < last)
        if not early.any():
            return events, days
        rows, behind = places[early], places[last[early]]
        moved = events[rows]
        moved["ev"] &= np.uint64(~LOCAL_EVENT & (1 << 64) - 1)
        events["ev"][rows] &= np.uint64(~EXCH_EVENT & (1 << 64) - 1)
        stays = events["ev"] & (EXCH_EVENT | LOCAL_EVENT) != 0
        self.split += int(stays[rows].sum())
        events, days = np.insert(events, behind + 1, moved), np.insert(days, behind + 1, days[behind])
        stays = np.insert(stays, behind + 1, True)
        return events[stays], days[stays]


def write(
    root: Path, out: Output, exchange: str, symbol: str, start: int | None, end: int | None
) -> dict[str, Any]:
    """Write what was received of one symbol in ``[start, end)`` (ns, None: open), a file a day of that.

    ``<exchange>_<SYMBOL>_<YYYYMMDD>.npz``, and beside each a ``.json`` with tick and lot, which hftbacktest
    asks for, and with what was done to the clocks; it is returned too. Errors: those of `open_flow`.
    """
    flow = open_flow(root, exchange, symbol, start, end)
    orders = BothOrders(flow.backfilled(), flow.grid)
    files = _Days(out, f"{exchange}_{encode_symbol(symbol)}")
    for rows in flow.rows():
        files.take(*orders.take(rows))
    files.take(*orders.rest())
    files.close()
    facts = flow.facts() | {"rows_standing_twice": orders.split, "rows_not_placed": orders.unplaced}
    for name in files.names:
        out.path(f"{name}.json").write_text(json.dumps(facts, indent=2) + "\n")
    return facts


class _Days:
    """Writes events, a file a day; a day's events are staged raw, since the array's length leads its file."""

    def __init__(self, out: Output, name: str) -> None:
        self._out = out
        self._name = name
        self._day: int | None = None
        self._raw: IO[bytes] | None = None
        self._rows = 0
        self.names: list[str] = []
        """Of the files that are written, without their ending."""

    def take(self, events: NDArray[np.void], days: Ints) -> None:
        """Take events with the day of each; days ascend."""
        for day in np.unique(days):
            if day != self._day:
                self.close()
                self._day = int(day)
                self._raw = self._out.path(f"{self._file()}.raw").open("xb")
            assert self._raw is not None
            chosen = events[days == day]
            self._raw.write(chosen.tobytes())
            self._rows += len(chosen)

    def _file(self) -> str:
        assert self._day is not None
        return f"{self._name}_{date_name(self._day * DAY_NS).replace('-', '')}"

    def close(self) -> None:
        """Finish the day that is open, if one is."""
        if self._raw is None:
            return
        self._raw.close()
        name = self._file()
        raw = self._out.path(f"{name}.raw")
        write_npz(self._out.path(f"{name}.npz"), raw, self._rows)
        raw.unlink()
        self._out.count(f"{name}.npz", self._rows)
        self.names.append(name)
        self._raw, self._rows = None, 0


def write_npz(path: Path, raw: Path, rows: int) -> None:
    """Make the `.npz` of ``rows`` events that lie in ``raw`` as in memory; the same bytes each time."""
    name = zipfile.ZipInfo("data.npy")  # its date is fixed
    name.compress_type = zipfile.ZIP_DEFLATED
    header = {"descr": np.lib.format.dtype_to_descr(EVENT), "fortran_order": False, "shape": (rows,)}
    with (
        zipfile.ZipFile(path, "x", allowZip64=True) as archive,
        archive.open(name, "w", force_zip64=rows * EVENT.itemsize >= 1 << 31) as member,
        raw.open("rb") as file,
    ):
        np.lib.format.write_array_header_1_0(member, header)
        while chunk := file.read(_CHUNK):
            member.write(chunk)


def read(path: Path) -> NDArray[np.void]:
    """Return the events of a `.npz`, (n,) of `EVENT`.

    It cannot become tables: without ids nothing proves a chain, and trades need theirs.
    """
    with np.load(path) as archive:
        events: NDArray[np.void] = archive["data"]
    return events
