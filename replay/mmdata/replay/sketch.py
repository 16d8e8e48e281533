"""Markets sketched by hand: a few messages and trades as a loaded recording, for warming up and tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from mmdata.datasets._kernel import ASK, BID, DIFF, GAP_OPEN, REPLACE, SESSION, Columns
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.grid import Instrument
from mmdata.datasets.market import FRAME_BITS, NO_TIME, Holes, Market, Quotes, Trades

EPOCH = 1_700_000_000_000_000_000
"""Where a sketch's time 0 lies, ns."""
_MS = 1_000_000


@dataclass(slots=True)
class Sketch:
    """Messages, trades and quotes in the order in which they are told; times in ms from `EPOCH`.

    Each arrives ``latency`` ms after it happened, unless told otherwise. Prices are ticks, sizes lots.

    >>> sketch = Sketch()
    >>> sketch.book(0, bids={100: 5}, asks={102: 7})
    >>> sketch.trade(10, "sell", 100, 3)
    >>> len(sketch.market().order), len(sketch.market().trades.order)
    (2, 1)
    """

    latency: float = 1.0
    tick_size: Decimal = Decimal(1)
    lot_size: Decimal = Decimal(1)
    _messages: list[tuple[int, int, int, int, list[tuple[int, int, int]]]] = field(
        default_factory=lambda: [(0, SESSION, NO_TIME, NO_TIME, [])]
    )
    _trades: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    _quotes: list[tuple[int, int, int, int, int, int, int, int]] = field(default_factory=list)
    _holes: list[tuple[int, int]] = field(default_factory=list)
    _instruments: list[Instrument] = field(default_factory=list)
    _order: int = 0

    def book(
        self,
        at: float,
        bids: Mapping[int, int] | None = None,
        asks: Mapping[int, int] | None = None,
        latency: float | None = None,
    ) -> None:
        """Tell a whole book."""
        self._message(REPLACE, at, bids, asks, latency)

    def diff(
        self,
        at: float,
        bids: Mapping[int, int] | None = None,
        asks: Mapping[int, int] | None = None,
        latency: float | None = None,
    ) -> None:
        """Tell changed levels; size 0 removes one."""
        self._message(DIFF, at, bids, asks, latency)

    def gap(self, at: float) -> None:
        """Lose the connection: the book is invalid until the next whole one."""
        self._message(GAP_OPEN, at, None, None, None)

    def trade(self, at: float, taker: str, price: int, size: int, latency: float | None = None) -> None:
        """Tell a trade; ``taker`` did ``buy`` or ``sell``."""
        event, received = self._told(at, latency)
        self._trades.append((self._order, received, event, 1 if taker == "buy" else -1, price, size))

    def quote(
        self, at: float, bid: tuple[int, int], ask: tuple[int, int], latency: float | None = None
    ) -> None:
        """Tell best bid and ask, (ticks, lots), as of after the last message."""
        event, received = self._told(at, latency)
        self._quotes.append((self._order, received, event, len(self._messages), *bid, *ask))

    def trade_hole(self, at: float) -> None:
        """Note that trades are missing."""
        _, received = self._told(at, None)
        self._holes.append((self._order, received))

    def instrument(
        self,
        at: float,
        tick: Decimal,
        lot: Decimal,
        source: str = "venue",
        contract_value: Decimal | None = None,
    ) -> None:
        """Tell tick and lot, which need not be the sketch's units."""
        _, received = self._told(at, None)
        session = self._order >> FRAME_BITS
        self._instruments.append(
            Instrument(self._order, session, received, source, tick, lot, contract_value)
        )

    def session(self) -> None:
        """Begin another recording."""
        self._order = ((self._order >> FRAME_BITS) + 1) << FRAME_BITS
        self._messages.append((self._order, SESSION, NO_TIME, NO_TIME, []))

    def _told(self, at: float, latency: float | None) -> tuple[int, int]:
        """Return when what is told next happened, and when it is received."""
        self._order += 1
        event = EPOCH + round(at * _MS)
        return event, event + round((self.latency if latency is None else latency) * _MS)

    def _message(
        self,
        kind: int,
        at: float,
        bids: Mapping[int, int] | None,
        asks: Mapping[int, int] | None,
        latency: float | None,
    ) -> None:
        event, received = self._told(at, latency)
        levels = [(BID, price, size) for price, size in (bids or {}).items()]
        levels += [(ASK, price, size) for price, size in (asks or {}).items()]
        timed = NO_TIME if kind == GAP_OPEN else event
        self._messages.append((self._order, kind, received, timed, levels))

    def market(self) -> Market:
        """Return the recording."""
        n = len(self._messages)
        counts = [len(levels) for *_, levels in self._messages]
        rows = np.array([row for *_, levels in self._messages for row in levels], np.int64).reshape(-1, 3)
        ids = np.arange(n, dtype=np.int64)
        trades = np.array(self._trades, np.int64).reshape(-1, 6)
        quotes = np.array(self._quotes, np.int64).reshape(-1, 8)
        holes = np.array(self._holes, np.int64).reshape(-1, 2)
        count = (self._order >> FRAME_BITS) + 1
        return Market(
            exchange="okx",
            symbol="SKETCH",
            chain=CHAINS["okx"],
            tick_size=self.tick_size,
            lot_size=self.lot_size,
            tick_source="user",
            sessions=("sketch", *(f"sketch-{i}" for i in range(1, count))),
            columns=Columns(
                kind=np.array([kind for _, kind, *_ in self._messages], np.uint8),
                first_id=np.full(n, NO_ID, np.int64),
                last_id=ids,
                prev_id=ids - 1,
                start=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
                side=rows[:, 0].astype(np.int8),
                price=rows[:, 1].copy(),
                size=rows[:, 2].copy(),
            ),
            order=np.array([order for order, *_ in self._messages], np.int64),
            ts_recv=np.array([received for _, _, received, *_ in self._messages], np.int64),
            ts_event=np.array([event for *_, event, _ in self._messages], np.int64),
            trades=Trades(
                order=trades[:, 0].copy(),
                ts_recv=trades[:, 1].copy(),
                ts_event=trades[:, 2].copy(),
                trade_id=np.arange(len(trades), dtype=np.int64),
                side=trades[:, 3].astype(np.int8),
                price=trades[:, 4].copy(),
                size=trades[:, 5].copy(),
                backfilled=np.zeros(len(trades), np.bool_),
            ),
            quotes=Quotes(*(quotes[:, column].copy() for column in range(8))),
            trade_holes=Holes(holes[:, 0].copy(), holes[:, 1].copy()),
            instruments=tuple(self._instruments),
        )
