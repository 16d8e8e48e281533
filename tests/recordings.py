"""Recordings drawn by hypothesis: a book that changes, and what a recorder that loses things keeps of it.

Written as tables, in several parts, so that readers meet holes, snapshots that come early or late, sessions
that follow one another with or without a loss, and midnight.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from mmdata.datasets.layout import Partition, date_name
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import arrow_schema, exact_columns

TICK, LOT = Decimal("0.25"), Decimal("0.001")
BEFORE_MIDNIGHT = 1_795_305_590_000_000_000  # 2026-11-21T23:59:50Z

_LEVELS = st.lists(
    st.tuples(st.sampled_from(["bid", "ask"]), st.integers(1, 9), st.integers(0, 3)), max_size=5
)
_STEPS = st.one_of(
    st.tuples(st.just("diff"), _LEVELS),
    st.tuples(st.just("diff"), _LEVELS),
    st.tuples(st.just("diff"), _LEVELS),
    st.tuples(st.just("lost"), _LEVELS),
    st.tuples(st.just("snapshot"), st.none()),
    st.tuples(st.just("disconnect"), _LEVELS),
    st.tuples(st.just("session"), st.none()),
    st.tuples(st.just("part"), st.none()),
)
STEPS = st.lists(st.tuples(_STEPS, st.integers(1, 1500)), min_size=1, max_size=40)
"""What happens, and after how many ms."""


@dataclass
class Recording:
    """A book of Binance spot or OKX, and a recorder of it; prices of bids 1 to 9 ticks, of asks 11 to 19."""

    root: Path
    exchange: str = "binance"
    symbol: str = "BTCUSDT"
    tick: Decimal = TICK
    lot: Decimal = LOT
    now: int = BEFORE_MIDNIGHT
    _truth: dict[tuple[str, int], int] = field(default_factory=dict)
    _id: int = 100
    _noted: int = 100
    _sessions: int = 0
    _frame: int = 0
    _part: int = 0
    _lost: bool = False
    _rows: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)

    def play(self, steps: list[tuple[tuple[str, Any], int]]) -> None:
        """Do ``steps``, and publish what was recorded."""
        for (what, levels), ms in steps:
            self.now += ms * 1_000_000
            getattr(self, what)(*([] if levels is None else [levels]))
        self.part()

    def diff(self, levels: list[tuple[str, int, int]]) -> None:
        """Change levels, and receive the message; a loss before it is told by an event now and then."""
        first, prev = self._id + 1, self._id
        self._change(levels)
        self._message(levels, first, prev, is_snapshot=False)
        if self._lost and first % 3:  # else a break that nobody noted
            next_id = first if self.exchange == "binance" else prev
            self.event("gap", self._noted, next_id, cause="missing")
        self._lost = False
        self._noted = self._id

    def lost(self, levels: list[tuple[str, int, int]]) -> None:
        """Change levels, and do not receive the message."""
        self._change(levels)
        self._lost = True

    def snapshot(self) -> None:
        """Receive the whole book: over REST, or in the stream where the exchange sends it so."""
        whole = [(side, price, size) for (side, price), size in sorted(self._truth.items())]
        whole.sort(key=lambda level: level[0] == "ask")
        if self.exchange == "okx":
            self._message(whole, self._id, -1, is_snapshot=True)
            return
        key = self._key() | {"last_id": self._id, "reason": "start"}
        rows = [key | {"side": side, "level": 0} | self._exact(side, p, size) for side, p, size in whole]
        self._add("snapshots", rows or [key])

    def disconnect(self, levels: list[tuple[str, int, int]]) -> None:
        """Lose the connection, and what changes meanwhile."""
        self.event("gap", self._noted, cause="disconnect")
        self._change(levels)
        self._lost = False

    def session(self) -> None:
        """End the recording, and begin another at once."""
        self.part()
        self._sessions += 1
        self._frame = self._part = 0
        self._lost = False

    def trade(self, number: int, side: str, price: int, size: int, **more: Any) -> None:
        """Receive a trade."""
        told = {"kind": "trade", "origin": "stream", "trade_id": number, "side": side, "ts_event": self.now}
        self._add("trades", [self._key() | told | self._exact(side, price, size) | more])

    def quote(self, bid: int | None, ask: int | None) -> None:
        """Receive the best bid and ask, in ticks; None: the side is empty."""
        told: dict[str, Any] = {"conn": 0, "last_id": self._id}
        for side, price in (("bid", bid), ("ask", ask)):
            if price is not None:
                told |= {f"{side}_{name}": value for name, value in self._exact(side, price, 1).items()}
        self._add("bbo", [self._key() | told])

    def instrument(self, tick: Decimal, lot: Decimal, source: str = "venue") -> None:
        """Be told tick and lot."""
        self._add("instruments", [self._key() | {"source": source, "tick_size": tick, "lot_size": lot}])

    def event(self, kind: str, last_id: int | None = None, next_id: int | None = None, **detail: str) -> None:
        """Note something about the book."""
        told = {"kind": kind, "channel": "depth", "last_id": last_id, "next_id": next_id}
        self._add("events", [self._key() | told | {"detail": json.dumps(detail)}])

    def part(self) -> None:
        """Publish what was received so far."""
        for (table, date), rows in self._rows.items():
            names = exact_columns(table)
            exact = [row[name] for row in rows for name in names if row.get(name) is not None]
            wide = any(value != round(value, 8) for value in exact)
            partition = Partition(table, wide, self.exchange, self.symbol, date)
            made = pa.Table.from_pylist(rows, arrow_schema(table, wide=wide))
            publish(self.root, partition, self._session(), self._part, made, {"version": "0"})
            self._part += 1
        self._rows = {}

    def _change(self, levels: list[tuple[str, int, int]]) -> None:
        for side, price, size in levels:
            self._truth[side, price] = size
            if not size:
                del self._truth[side, price]
        self._id += 1

    def _message(
        self, levels: list[tuple[str, int, int]], first: int, prev: int, *, is_snapshot: bool
    ) -> None:
        key = self._key() | {"ts_event": self.now - 1_000_000, "conn": 0, "is_snapshot": is_snapshot}
        key |= {"first_id": first, "last_id": self._id, "prev_id": prev, "is_last": False}
        ordered = sorted(levels, key=lambda level: level[0] == "ask")
        rows = [key | {"side": side} | self._exact(side, price, size) for side, price, size in ordered]
        rows = rows or [key]
        rows[-1]["is_last"] = True
        self._add("depth", rows)

    def _exact(self, side: str, price: int, size: int) -> dict[str, Decimal]:
        return {"price": self.tick * (price + 10 * (side == "ask")), "size": self.lot * size}

    def _key(self) -> dict[str, Any]:
        self._frame += 1
        return {"session": self._session(), "frame": self._frame - 1, "ts_recv": self.now}

    def _add(self, table: str, rows: list[dict[str, Any]]) -> None:
        self._rows.setdefault((table, date_name(self.now)), []).extend(rows)

    def _session(self) -> str:
        return f"20261121T08{self._sessions:02d}00Z-abcdef"
