"""Trades and the venue's own best bid and ask, beside the rebuilt book and by their ids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import NO_PRICE
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.validation.books import Walked
from mmdata.datasets.validation.chains import TradeChains
from mmdata.datasets.validation.findings import Teller
from mmdata.datasets.validation.rows import Decoder, Units
from mmdata.datasets.validation.seen import Seen, count_days
from mmdata.datasets.validation.streams import Columns
from mmdata.datasets.validation.thresholds import Thresholds
from mmdata.datasets.validation.touch import Prices, QuoteChecks, Told, TradeChecks

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_BLOCK = 2  # kind of trades that are off the book
_S = 1_000_000_000


def _chosen(rows: Flags, *columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return some rows of columns; the columns themselves where it is all of them."""
    return columns if rows.all() else tuple(column[rows] for column in columns)


class TradesAndQuotes:
    """Checks the rows of `trades` and `bbo` as they are streamed beside the book."""

    def __init__(
        self,
        exchange: str,
        teller: Teller,
        seen: Seen,
        units: Units,
        thresholds: Thresholds,
        arrive: Callable[[str, Ints, Ints, Ints], None],
    ) -> None:
        """``arrive`` takes channel, places, receive and event times of the rows that the venue streamed."""
        self._exchange = exchange
        self._teller = teller
        self._seen = seen
        self._units = units
        self._thresholds = thresholds
        self._arrive = arrive
        self._trade_chains = TradeChains()
        self._quote_checks = QuoteChecks()
        self._trade_checks = TradeChecks(round(thresholds.trade_lag_s * _S), thresholds.trade_outside_bp)
        self._last_range = np.array([[0, 0, -1]], np.int64)
        """Last trade, own id and place of the last aggregate."""

    def end(self) -> None:
        """Say that no row follows."""
        self._seen.trade_steps += self._trade_chains.end()

    def take_trades(
        self, rows: Columns, walked: Walked, decoder: Decoder, *, is_tainted: bool, is_end: bool
    ) -> None:
        """Take rows of `trades` and the book around them; a ``is_tainted`` book says nothing of prices."""
        own = dict(zip(rows, _chosen(~rows["is_backfill"], *rows.values()), strict=True))
        order, times, kind = own["order"], own["ts_recv"], own["kind"]
        # Aggregates of Binance are counted in ids of their own; OKX's by the trades that they cover.
        counted = (kind == 1) & self._exchange.startswith("binance")
        impossible = self._check_ranges(own, kind, counted)
        by_id = counted | impossible
        first = np.where(by_id, own["trade_id"], own["first_trade_id"])
        last = np.where(by_id, own["trade_id"], own["last_trade_id"])
        known = _chosen((first != NO_ID) & (last != NO_ID), kind, first, last, order, times)
        broken = decoder.breaks_before(int(order[-1]) + 1) if len(order) else []
        cuts = np.searchsorted(known[3], broken).tolist()
        parts = [np.split(column, cuts) for column in known]
        for number, part in enumerate(zip(*parts, strict=True)):
            if number:
                self._trade_chains.restart()
            self._seen.trade_steps += self._trade_chains.take(*part)
        count_days(self._seen.trades, times)
        self._arrive("trades", order, times, own["ts_event"])
        on_book = (kind != _BLOCK) & (own["price"] > 0) & (times != NO_TIME)
        prices = Prices(*_chosen(on_book, order, times, last, own["price"]))
        found = self._trade_checks.take(walked, prices, is_end=is_end)
        if is_tainted:
            return
        for place, when, trade, price in zip(*(column.tolist() for column in found), strict=True):
            self._teller.tell(
                "warning",
                "trade_price",
                f"trade {trade} at {price * self._units.price:f} lies outside the book, more than "
                f"{self._thresholds.trade_outside_bp:g} bp beyond every best bid and ask within "
                f"{self._thresholds.trade_lag_s:g} s of it: book or trade is not the exchange's",
                place,
                id=trade,
                ts_recv=when,
                table="trades",
            )

    def _check_ranges(self, own: Columns, kind: NDArray[np.int8], counted: Flags) -> Flags:
        """Check what aggregates say of the trades that they cover; return which of them cannot be.

        First comes before last, and an aggregate's own id is the last where ids are those of trades. The
        ranges of two that follow each other do not overlap, and meet where the venue counts every trade (on
        USDⓈ-M ids of the insurance fund's trades belong to no aggregate).
        """
        first, last, number = own["first_trade_id"], own["last_trade_id"], own["trade_id"]
        told = (first != NO_ID) & (last != NO_ID)
        impossible = told & ((first > last) | (~counted & (number != last)))
        rows = np.flatnonzero(told & (kind == 1) & ~impossible)
        behind = np.column_stack((last[rows], number[rows], own["order"][rows])).astype(np.int64)
        since = np.vstack((self._last_range, behind))
        before = since[:-1]
        same = before[:, 2] >> FRAME_BITS == behind[:, 2] >> FRAME_BITS
        follows = before[:, 1] + 1 == behind[:, 1]
        gaps = np.where(
            counted[rows],
            follows & (first[rows] != before[:, 0] + 1) & (self._exchange == "binance"),
            (first[rows] <= before[:, 0]) & (last[rows] > before[:, 0]),
        )
        if len(rows):
            self._last_range = since[-1:]
        for at in sorted({*np.flatnonzero(impossible).tolist(), *rows[gaps & same].tolist()}):
            self._teller.tell(
                "error",
                "trade_ids",
                f"trade {int(number[at])} says that it covers the trades {int(first[at])} to "
                f"{int(last[at])}, which does not fit it, or the one before it: volume cannot be counted by "
                "id there",
                int(own["order"][at]),
                id=int(number[at]),
                ts_recv=int(own["ts_recv"][at]),
                table="trades",
            )
        return np.asarray(impossible)

    def take_quotes(self, rows: Columns, walked: Walked, *, is_tainted: bool) -> None:
        """Take rows of `bbo` and the book around them."""
        touch = (rows[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size"))
        quotes = Told(rows["order"], rows["ts_recv"], rows["last_id"], *touch)
        count_days(self._seen.quotes, quotes.ts_recv)
        self._arrive("bbo", quotes.order, quotes.ts_recv, rows["ts_event"])
        crossed = (quotes.bid_price > quotes.ask_price) & (quotes.ask_price != NO_PRICE)
        if crossed.any():
            for at in np.flatnonzero(crossed).tolist():
                self._tell_quote(quotes, at, "is crossed in itself: it cannot be the exchange's")
            quotes = quotes.at(~crossed)
        compared, unequal = self._quote_checks.take(walked, quotes)
        count_days(self._seen.bbo_compared, compared.ts_recv)
        count_days(self._seen.bbo_unequal, unequal.ts_recv)
        for at in range(len(unequal.order)) if not is_tainted else ():
            self._tell_quote(
                unequal,
                at,
                "differs from the rebuilt book's at the same id: one of the two is not the exchange's",
            )

    def _tell_quote(self, quotes: Told, at: int, what: str) -> None:
        own = int(quotes.ids[at])
        self._teller.tell(
            "error",
            "bbo",
            f"the venue's own best bid and ask at id {own} {what}",
            int(quotes.order[at]),
            id=own,
            ts_recv=int(quotes.ts_recv[at]),
            table="bbo",
        )
