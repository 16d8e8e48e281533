"""The trades that REST tells: found by id and by time, bounded, in the venues' own rows."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mmdata.sandbox.binance.rest import BinanceRest
from mmdata.sandbox.engine import Limit, Market
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.live import LiveBinance, LiveOkx
from mmdata.sandbox.market import Event, LiveMarket
from mmdata.sandbox.okx.rest import OkxRest
from mmdata.sandbox.tape import Tape, TapeTrade

_T0 = 1_795_600_000_000_000_000
_MS = 1_000_000
_BTC, _OKX = MARKETS[0], MARKETS[2]


def _tape(count: int, kept: int = 1000) -> Tape[TapeTrade]:
    tape: Tape[TapeTrade] = Tape(kept)
    for n in range(count):
        tape.add(TapeTrade(n, _T0 + n * _MS, "1.00000000", "2.00000000", "buy"))
    return tape


def _ids(trades: list[TapeTrade]) -> list[int]:
    return [trade.trade_id for trade in trades]


def test_tape_is_found_by_id_and_by_time() -> None:
    tape = _tape(10)
    assert _ids(tape.newest(3)) == [7, 8, 9]
    assert _ids(tape.from_id(4, 2)) == [4, 5]
    assert _ids(tape.from_id(-5, 1)) == [0]
    assert _ids(tape.from_id(10, 5)) == []
    assert _ids(tape.before_id(4, 2)) == [2, 3]
    assert _ids(tape.before_id(1, 9)) == [0]
    assert _ids(tape.between(_T0 + 2 * _MS, _T0 + 4 * _MS, 9)) == [2, 3, 4]
    assert _ids(tape.between(_T0 + 2 * _MS, _T0 + 4 * _MS, 2)) == [2, 3]
    assert _ids(tape.between(_T0 + 4 * _MS, _T0 + 2 * _MS, 9)) == []
    assert _ids(tape.until(_T0 + 4 * _MS, 2)) == [3, 4]


def test_tape_keeps_the_newest_and_passes_over_a_repetition() -> None:
    tape = _tape(500, kept=100)
    tape.add(TapeTrade(499, _T0, "9", "9", "sell"))
    assert 100 <= len(tape.newest(1000)) <= 113
    assert _ids(tape.newest(100)) == list(range(400, 500))
    assert tape.newest(1)[0].price == "1.00000000"
    tape.clear()
    assert tape.newest(5) == []


# ------------------------------------------------------------------------------------------ Binance


@pytest.fixture
def binance() -> BinanceRest:
    """Return the REST of a market with three buyers, then a seller who met two orders or more."""
    market = LiveMarket(_BTC, np.random.SeedSequence(1), 0, _T0)
    live = LiveBinance([market], None, _T0)
    feed = live._by_symbol["BTCUSDT"]
    for n, lots in enumerate((1, 2, 3)):
        feed.observe(Event(_T0 + n * _MS + 1_000, market.engine.apply(Market("bid", lots))), _T0)
    bid = market.engine.best_bid()
    assert bid is not None
    market.engine.apply(Limit("bid", bid, 6))
    level = market.engine.at("bid", bid).qty_lots
    feed.observe(Event(_T0 + 3 * _MS, market.engine.apply(Market("ask", level))), _T0)
    return BinanceRest(live)


def _get(rest: BinanceRest, target: str, **headers: str) -> Any:
    answer = rest.answer(target, headers, _T0)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_binance_trades_are_written_as_documented(binance: BinanceRest) -> None:
    *_, last = _get(binance, "/api/v3/trades?symbol=BTCUSDT")
    assert list(last) == ["id", "price", "qty", "quoteQty", "time", "isBuyerMaker", "isBestMatch"]
    assert last["qty"] == "0.00006000"
    assert last["quoteQty"] == f"{float(last['price']) * 0.00006:.8f}"
    assert (last["time"], last["isBuyerMaker"], last["isBestMatch"]) == (_T0 // _MS + 3, True, True)


def test_binance_historical_trades_begin_at_from_id_itself(binance: BinanceRest) -> None:
    every = _get(binance, "/api/v3/historicalTrades?symbol=BTCUSDT")
    assert [trade["isBuyerMaker"] for trade in every[:5]] == [False, False, False, True, True]
    second = every[1]["id"]
    some = _get(binance, f"/api/v3/historicalTrades?symbol=BTCUSDT&fromId={second}&limit=2")
    assert some == every[1:3]


def test_binance_aggregates_name_the_trades_that_they_hold(binance: BinanceRest) -> None:
    trades = _get(binance, "/api/v3/trades?symbol=BTCUSDT")
    aggs = _get(binance, "/api/v3/aggTrades?symbol=BTCUSDT")
    assert list(aggs[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]
    assert [(a["f"], a["l"]) for a in aggs[-2:]] == [
        (trades[2]["id"], trades[2]["id"]),
        (trades[3]["id"], trades[-1]["id"]),
    ]
    assert float(aggs[-1]["q"]) == pytest.approx(sum(float(trade["qty"]) for trade in trades[3:]))
    assert [b["a"] - a["a"] for a, b in pairwise(aggs)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", slice(0, 4)),
        ("&limit=2", slice(2, 4)),
        (f"&startTime={_T0 // _MS + 1}", slice(1, 4)),
        (f"&startTime={_T0 // _MS + 1}&limit=1", slice(1, 2)),
        (f"&startTime={_T0 // _MS + 1}&endTime={_T0 // _MS + 2}", slice(1, 3)),
        (f"&endTime={_T0 // _MS + 1}", slice(0, 2)),
        (f"&endTime={_T0 // _MS + 2}&limit=1", slice(2, 3)),
        (f"&startTime={_T0 // 1000 + 1002}", slice(2, 4)),
        (f"&startTime={_T0 // 1000 + 1001}", slice(1, 4)),
        (f"&startTime={_T0 // _MS + 9}", slice(0, 0)),
    ],
)
def test_binance_aggregates_are_chosen_by_time_both_ends_included(
    binance: BinanceRest, query: str, expected: slice
) -> None:
    every = _get(binance, "/api/v3/aggTrades?symbol=BTCUSDT")
    assert _get(binance, f"/api/v3/aggTrades?symbol=BTCUSDT{query}") == every[expected]


def test_binance_aggregates_begin_at_from_id_itself(binance: BinanceRest) -> None:
    every = _get(binance, "/api/v3/aggTrades?symbol=BTCUSDT")
    assert _get(binance, f"/api/v3/aggTrades?symbol=BTCUSDT&fromId={every[2]['a']}") == every[2:]


def test_binance_times_are_microseconds_when_the_header_asks_for_them(binance: BinanceRest) -> None:
    micro = {"X-MBX-TIME-UNIT": "MICROSECOND"}
    assert _get(binance, "/api/v3/aggTrades?symbol=BTCUSDT", **micro)[1]["T"] == _T0 // 1000 + 1001
    assert _get(binance, "/api/v3/trades?symbol=BTCUSDT", **micro)[1]["time"] == _T0 // 1000 + 1001


@pytest.mark.parametrize(
    ("path", "weight"), [("aggTrades", "4"), ("historicalTrades", "25"), ("trades", "25")]
)
def test_binance_trades_cost_their_weight(binance: BinanceRest, path: str, weight: str) -> None:
    answer = binance.answer(f"/api/v3/{path}?symbol=BTCUSDT", {}, _T0)
    assert answer.headers["X-MBX-USED-WEIGHT-1M"] == weight


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("aggTrades?symbol=NOPE", -1121),
        ("historicalTrades", -1102),
        ("trades?symbol=BTCUSDT&limit=0", -1130),
        ("aggTrades?symbol=BTCUSDT&fromId=x", -1100),
        ("aggTrades?symbol=BTCUSDT&fromId=1&startTime=2", -1128),
    ],
)
def test_binance_refuses_a_wrong_request_for_trades(binance: BinanceRest, query: str, code: int) -> None:
    answer = binance.answer(f"/api/v3/{query}", {}, _T0)
    assert (answer.status, json.loads(answer.body)["code"]) == (400, code)


# ---------------------------------------------------------------------------------------------- OKX


@pytest.fixture
def okx() -> OkxRest:
    """Return the REST of a market that traded 250 times, a millisecond apart."""
    market = LiveMarket(_OKX, np.random.SeedSequence(1), 0, _T0)
    live = LiveOkx([market], None, _T0, 60)
    for n in range(250):
        event = Event(_T0 + n * _MS, market.engine.apply(Market("bid", 1_000 + n)))
        live._by_id["BTC-USDT"].observe(event, _T0)
    return OkxRest(live)


def _data(rest: OkxRest, target: str) -> list[dict[str, str]]:
    body = json.loads(rest.answer(target, _T0).body)
    assert body["code"] == "0", body
    data: list[dict[str, str]] = body["data"]
    return data


_HISTORY = "/api/v5/market/history-trades?instId=BTC-USDT"


def test_okx_trades_are_newest_first_and_written_as_documented(okx: OkxRest) -> None:
    newest, *older = _data(okx, "/api/v5/market/trades?instId=BTC-USDT&limit=500")
    assert list(newest) == ["instId", "side", "sz", "px", "source", "tradeId", "ts"]
    assert (newest["instId"], newest["side"], newest["sz"]) == ("BTC-USDT", "buy", "0.00001249")
    assert newest["ts"] == str(_T0 // _MS + 249)
    assert len(older) == 249
    ids = [int(trade["tradeId"]) for trade in (newest, *older)]
    assert ids == list(range(ids[0], ids[0] - 250, -1))
    assert len(_data(okx, "/api/v5/market/trades?instId=BTC-USDT")) == 100


def test_okx_history_pages_backwards_to_its_very_beginning_without_a_hole(okx: OkxRest) -> None:
    every = _data(okx, "/api/v5/market/trades?instId=BTC-USDT&limit=500")
    pages, after = [], ""
    while page := _data(okx, _HISTORY + after):
        pages += page
        after = f"&type=1&after={page[-1]['tradeId']}"
    assert pages == every


def test_okx_history_before_an_id_is_what_is_newer(okx: OkxRest) -> None:
    every = _data(okx, "/api/v5/market/trades?instId=BTC-USDT&limit=500")
    assert _data(okx, f"{_HISTORY}&before={every[7]['tradeId']}") == every[:7]
    both = f"&after={every[2]['tradeId']}&before={every[6]['tradeId']}&limit=100"
    assert _data(okx, _HISTORY + both) == every[3:6]
    assert _data(okx, f"{_HISTORY}&after={every[2]['tradeId']}&limit=2") == every[3:5]


def test_okx_history_by_time_is_what_is_older(okx: OkxRest) -> None:
    every = _data(okx, "/api/v5/market/trades?instId=BTC-USDT&limit=500")
    assert _data(okx, f"{_HISTORY}&type=2&after={every[4]['ts']}&limit=3") == every[5:8]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("trades", "50014"),
        ("trades?instId=NO-PE", "51001"),
        ("history-trades?instId=BTC-USDT&type=3", "51000"),
        ("history-trades?instId=BTC-USDT&after=x", "51000"),
        ("history-trades?instId=BTC-USDT&limit=0", "51000"),
    ],
)
def test_okx_refuses_a_wrong_request_for_trades(okx: OkxRest, query: str, code: str) -> None:
    assert json.loads(okx.answer(f"/api/v5/market/{query}", _T0).body)["code"] == code


def test_okx_history_is_limited_to_twenty_requests_in_two_seconds(okx: OkxRest) -> None:
    statuses = [okx.answer(_HISTORY, _T0).status for _ in range(21)]
    assert statuses == [200] * 20 + [429]
