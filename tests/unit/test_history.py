"""Trades over REST, as the venues' documents show them, and holes that are filled page by page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.datasets.errors import VenueError
from mmdata.recorder import backfill
from mmdata.recorder.ask import Asker, Good
from mmdata.recorder.backfill import Hole, fill
from mmdata.recorder.capture import RestAnswer
from mmdata.recorder.records import Trade
from mmdata.recorder.venues import HISTORIES
from mmdata.recorder.venues.binance import history as binance
from mmdata.recorder.venues.okx import history as okx
from mmdata.recorder.venues.stream import Request

# Samples of the documents: Binance spot REST of July 2026, OKX v5 "Get trades" of July 2026.
TRADES = (
    b'[{"id":28457,"price":"4.00000100","qty":"12.00000000","quoteQty":"48.000012",'
    b'"time":1499865549590,"isBuyerMaker":true,"isBestMatch":true}]'
)
AGG_TRADES = (
    b'[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,"m":true,"M":true}]'
)
OKX_TRADES = (
    b'{"code":"0","msg":"","data":[{"instId":"BTC-USDT","side":"sell","sz":"0.00013669","px":"102537.9",'
    b'"tradeId":"734864333","ts":"1747087163557"}]}'
)


def test_samples_of_the_documents_are_decoded() -> None:
    [trade] = binance.decode(TRADES, "LTCBTC", "trade")
    assert (trade.kind, trade.trade_id, trade.price, trade.size, trade.side) == (
        *("trade", 28457, "4.00000100"),
        *("12.00000000", "sell"),
    )
    assert trade.ts_event == 1499865549590 * 10**6
    [agg] = binance.decode(AGG_TRADES, "LTCBTC", "agg")
    assert (agg.kind, agg.trade_id, agg.first_trade_id, agg.last_trade_id) == ("agg", 26129, 27781, 27781)
    [single] = okx.decode(OKX_TRADES, "BTC-USDT", "agg")
    assert (single.kind, single.trade_id, single.side) == ("trade", 734864333, "sell")


def test_okx_says_errors_with_status_200() -> None:
    with pytest.raises(msgspec.ValidationError, match="code 50011: Too Many Requests"):
        okx.decode(b'{"code":"50011","msg":"Too Many Requests","data":[]}', "BTC-USDT", "agg")


def trade(number: int) -> Trade:
    return Trade("X", "trade", 0, None, number, number, number, "buy", "1", "1")


class Venue:
    """An asker whose venue knows some trades, and answers pages of at most ``page``."""

    def __init__(self, known: set[int], page: int, *, oldest_first: bool) -> None:
        self.known = known
        self.page = page
        self.oldest_first = oldest_first
        self.asked = 0

    async def ask(self, request: Request, read: Callable[[bytes], object], **_: object) -> Good[list[Trade]]:
        """Answer a page."""
        self.asked += 1
        first, last = (int(part) for part in request.path.split("-"))
        if self.oldest_first:
            ids = sorted(number for number in self.known if number >= first)[: self.page]
        else:
            ids = sorted((number for number in self.known if number <= last), reverse=True)[: self.page]
        return Good([trade(number) for number in ids], RestAnswer(0, "", 200, {}, ""), 0)


class Pages:
    """A history whose requests say what they ask for."""

    def __init__(self, *, oldest_first: bool) -> None:
        self.OLDEST_FIRST = oldest_first

    def request(self, symbol: str, kind: str, first_id: int, last_id: int) -> Request:
        """Return a request that `Venue` understands."""
        return Request("backfill", f"{first_id}-{last_id}", (symbol,))

    def decode(self, body: bytes, symbol: str, kind: str) -> list[Trade]:
        """Never called: `Venue` answers trades."""
        raise AssertionError


@given(
    size=st.integers(1, 40),
    page=st.integers(1, 15),
    oldest_first=st.booleans(),
    lost=st.sets(st.integers(100, 140), max_size=3),
)
def test_hole_is_filled_with_all_that_the_venue_has_and_says_what_it_has_not(
    size: int, page: int, oldest_first: bool, lost: set[int]
) -> None:
    hole = Hole("X", "trade", 100, 99 + size)
    wanted = {*range(hole.first_id, hole.last_id + 1)}
    venue = Venue({*range(60, 200)} - lost, page, oldest_first=oldest_first)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(HISTORIES, "binance", Pages(oldest_first=oldest_first))
        patched.setattr(backfill, "_AGAIN_AFTER_S", 0.0)
        asker: Asker = venue  # type: ignore[assignment]
        count, event = asyncio.run(fill(hole, "binance", asker))
    assert count == len(wanted - lost)
    assert event.detail["missing"] == size
    assert event.detail["filled"] == count
    assert (event.last_id, event.next_id) == (99, 100 + size)


def test_hole_that_is_too_large_or_that_the_venue_refuses_stays_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Refusing(Venue):
        async def ask(self, request: Request, read: object, **_: object) -> Good[list[Trade]]:
            raise VenueError("status 503")

    refusing: Asker = Refusing(set(), 1, oldest_first=True)  # type: ignore[assignment]
    count, event = asyncio.run(fill(Hole("X", "trade", 1, 2), "binance", refusing))
    assert (count, event.detail["problem"]) == (0, "status 503")
    count, event = asyncio.run(fill(Hole("X", "trade", 1, 10**6), "binance", refusing))
    assert count == 0
    assert "more than 100000 trades" in event.detail["problem"]
