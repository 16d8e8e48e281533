"""Binance spot as the sandbox speaks it: frames, conflation, control messages, REST. No sockets, no clock."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from mmdata.sandbox.binance.feed import BinanceFeed
from mmdata.sandbox.binance.rest import BinanceRest
from mmdata.sandbox.binance.session import BinanceSession
from mmdata.sandbox.engine import Action, Limit, Market
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.live import LiveBinance
from mmdata.sandbox.market import Event, LiveMarket
from mmdata.sandbox.wire import Close, Join, Leave, Message, Send, Style

_T0 = 1_795_600_000_000_000_000
_MS = 1_000_000
_BTC = MARKETS[0]


@pytest.fixture
def market() -> LiveMarket:
    """Return a market that stands still: only what a test does happens in it."""
    return LiveMarket(_BTC, np.random.SeedSequence(1), 0, _T0)


@pytest.fixture
def feed(market: LiveMarket) -> BinanceFeed:
    return BinanceFeed(market, _T0)


def _do(feed: BinanceFeed, action: Action, now_ns: int = _T0) -> list[Message]:
    outcome = feed.market.engine.apply(action)
    return feed.observe(Event(now_ns, outcome), now_ns)


def _data(message: Message, style: Style | None = None) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(message.render(style or Style()))
    return frame


def _best_ask(market: LiveMarket) -> int:
    ask = market.engine.best_ask()
    assert ask is not None
    return ask


def test_diff_is_written_as_on_the_wire(feed: BinanceFeed) -> None:
    engine = feed.market.engine
    first = engine.update_id + 1
    _do(feed, Limit("bid", 5_000_000, 1_000))
    (message,) = feed.flush(_T0 + 100 * _MS)
    assert message.render(Style()) == (
        '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":1795600000100,"s":"BTCUSDT",'
        f'"U":{first},"u":{first},"b":[["50000.00000000","0.01000000"]],"a":[]}}}}'
    )


def test_bare_and_microsecond_styles_change_wrapper_and_times_only(feed: BinanceFeed) -> None:
    _do(feed, Limit("bid", 5_000_000, 1_000))
    (message,) = feed.flush(_T0 + 100 * _MS + 1_234)
    bare = _data(message, Style(combined=False))
    assert bare == _data(message)["data"]
    micro = _data(message, Style(micro=True))["data"]
    assert micro == {**bare, "E": 1_795_600_000_100_001}


def test_diff_tells_each_touched_level_once_with_its_last_size_bids_down_asks_up(feed: BinanceFeed) -> None:
    ask = _best_ask(feed.market)
    for px, lots in ((4_000_000, 5), (4_000_010, 5), (4_000_000, 2)):
        _do(feed, Limit("bid", px, lots))
    for px in (9_000_010, 9_000_000):
        _do(feed, Limit("ask", px, 5))
    _do(feed, Market("bid", feed.market.engine.at("ask", ask).qty_lots))
    (message,) = feed.flush(_T0 + 100 * _MS)
    data = _data(message)["data"]
    assert data["b"] == [["40000.10000000", "0.00005000"], ["40000.00000000", "0.00007000"]]
    assert data["a"][0] == [_BTC.price(ask), "0.00000000"]
    assert [level[0] for level in data["a"][1:]] == ["90000.00000000", "90000.10000000"]
    assert data["u"] - data["U"] + 1 == 6


def test_each_interval_is_a_chain_of_its_own_and_silent_when_nothing_changed(feed: BinanceFeed) -> None:
    start = feed.last_id
    spoken: dict[str, list[tuple[int, int]]] = {"btcusdt@depth@100ms": [], "btcusdt@depth": []}
    for tick in range(1, 31):
        if tick % 3 == 0:
            _do(feed, Limit("bid", 4_000_000 + tick, 1))
        for message in feed.flush(_T0 + tick * 100 * _MS):
            assert message.book_ids is not None
            spoken[message.key].append(message.book_ids)
    assert len(spoken["btcusdt@depth@100ms"]) == 10
    assert len(spoken["btcusdt@depth"]) == 3
    for ids in spoken.values():
        assert ids[0][0] == start + 1
        assert all(first == before + 1 for (_, before), (first, _) in pairwise(ids))
        assert ids[-1][1] == feed.last_id


def test_late_pass_sends_one_diff_for_all_the_intervals_that_it_missed(feed: BinanceFeed) -> None:
    _do(feed, Limit("bid", 4_000_000, 1))
    assert [m.key for m in feed.flush(_T0 + 990 * _MS)] == ["btcusdt@depth@100ms"]
    _do(feed, Limit("bid", 4_000_000, 1))
    assert [m.key for m in feed.flush(_T0 + 999 * _MS)] == []
    assert [m.key for m in feed.flush(_T0 + 1000 * _MS)] == ["btcusdt@depth@100ms", "btcusdt@depth"]


def test_ticker_speaks_only_when_the_touch_changed_and_carries_the_books_id(feed: BinanceFeed) -> None:
    engine = feed.market.engine
    ask = _best_ask(feed.market)
    bid = engine.top("bid")
    assert bid is not None
    assert _do(feed, Limit("bid", 4_000_000, 1)) == []
    (message,) = _do(feed, Limit("ask", ask, 7))
    assert message.render(Style()) == (
        f'{{"stream":"btcusdt@bookTicker","data":{{"u":{engine.update_id},"s":"BTCUSDT",'
        f'"b":"{_BTC.price(bid.px_ticks)}","B":"{_BTC.size(bid.qty_lots)}",'
        f'"a":"{_BTC.price(ask)}","A":"{_BTC.size(engine.at("ask", ask).qty_lots)}"}}}}'
    )


def test_trade_is_written_as_on_the_wire_and_says_who_was_the_maker(feed: BinanceFeed) -> None:
    ask = _best_ask(feed.market)
    trade, agg, ticker = _do(feed, Market("bid", 3), _T0 + 7 * _MS)
    trade_id = feed.market.engine.last_trade_id
    assert trade.render(Style()) == (
        '{"stream":"btcusdt@trade","data":{"e":"trade","E":1795600000007,"s":"BTCUSDT",'
        f'"t":{trade_id},"p":"{_BTC.price(ask)}","q":"0.00003000","T":1795600000007,'
        '"m":false,"M":true}}'
    )
    assert list(_data(agg)["data"]) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
    assert [m.key for m in (agg, ticker)] == ["btcusdt@aggTrade", "btcusdt@bookTicker"]
    sold = _do(feed, Market("ask", 3))
    assert _data(sold[0])["data"]["m"] is True


def test_aggregated_trade_groups_the_fills_of_one_taker_at_one_price(feed: BinanceFeed) -> None:
    engine = feed.market.engine
    ask = _best_ask(feed.market)
    at_best = len(engine.queue("ask", ask))
    _do(feed, Limit("ask", ask, 4))
    second = list(engine.asks())[1]
    messages = _do(feed, Market("bid", engine.at("ask", ask).qty_lots + second.qty_lots))
    trades = [_data(m)["data"] for m in messages if m.key == "btcusdt@trade"]
    aggs = [_data(m)["data"] for m in messages if m.key == "btcusdt@aggTrade"]
    assert [trade["t"] for trade in trades] == list(range(trades[0]["t"], trades[0]["t"] + len(trades)))
    assert len(aggs) == 2
    assert (aggs[0]["f"], aggs[0]["l"]) == (trades[0]["t"], trades[at_best]["t"])
    assert aggs[0]["q"] == _BTC.size(sum(round(float(t["q"]) * 1e5) for t in trades[: at_best + 1]))
    assert aggs[1]["f"] == aggs[0]["l"] + 1
    assert aggs[1]["a"] == aggs[0]["a"] + 1


# ----------------------------------------------------------------------------------------- session


def _session(target: str) -> BinanceSession:
    session = BinanceSession.at(target)
    assert session is not None
    return session


def _reply(session: BinanceSession, request: object, now_ns: int = _T0) -> Any:
    text = request if isinstance(request, str) else json.dumps(request)
    send = session.receive(text, now_ns)[0]
    assert isinstance(send, Send)
    return json.loads(send.text)


@pytest.mark.parametrize(
    ("target", "streams", "style"),
    [
        ("/ws", [], Style(False, False)),
        ("/ws/btcusdt@trade", ["btcusdt@trade"], Style(False, False)),
        ("/ws/a@trade/b@depth?timeUnit=microsecond", ["a@trade", "b@depth"], Style(False, True)),
        ("/stream", [], Style(True, False)),
        ("/stream?streams=a@trade/b@depth@100ms", ["a@trade", "b@depth@100ms"], Style(True, False)),
        ("/stream?streams=a@trade&timeUnit=MICROSECOND", ["a@trade"], Style(True, True)),
        ("/stream?streams=%E5%B8%81usdt@trade", ["币usdt@trade"], Style(True, False)),
    ],
)
def test_address_names_streams_wrapper_and_unit_of_time(
    target: str, streams: list[str], style: Style
) -> None:
    session = _session(target)
    assert session.opened() == [Join(stream) for stream in streams]
    assert session.style == style


@pytest.mark.parametrize("target", ["/", "/wsx", "/ws-api/v3", "/stream?timeUnit=SECOND"])
def test_address_that_binance_does_not_have_is_refused(target: str) -> None:
    assert BinanceSession.at(target) is None


def test_subscribe_list_and_unsubscribe_answer_and_join_and_leave() -> None:
    session = _session("/stream?streams=a@trade")
    reactions = session.receive('{"method":"SUBSCRIBE","params":["a@trade","b@depth"],"id":1}', _T0)
    assert reactions == [Send('{"result":null,"id":1}'), Join("b@depth")]
    assert _reply(session, {"method": "LIST_SUBSCRIPTIONS", "id": "x1"}) == {
        "result": ["a@trade", "b@depth"],
        "id": "x1",
    }
    reactions = session.receive('{"method":"UNSUBSCRIBE","params":["a@trade","c"],"id":null}', _T0)
    assert reactions == [Send('{"result":null,"id":null}'), Leave("a@trade")]


def test_property_combined_can_be_read_and_set() -> None:
    session = _session("/ws/a@trade")
    assert _reply(session, {"method": "GET_PROPERTY", "params": ["combined"], "id": 2})["result"] is False
    assert _reply(session, {"method": "SET_PROPERTY", "params": ["combined", True], "id": 5}) == {
        "result": None,
        "id": 5,
    }
    assert session.style.combined


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ("{", {"code": 3}),
        ("[1]", {"code": 2}),
        ({"method": "SUBSCRIBE", "params": ["a"]}, {"code": 2}),
        ({"method": "SUBSCRIBE", "params": ["a"], "id": 1.5}, {"code": 2}),
        ({"method": "SUBSCRIBE", "params": ["a"], "id": "x" * 37}, {"code": 2}),
        ({"params": ["a"], "id": 9}, {"code": 2, "id": 9}),
        ({"method": "subscribe", "params": ["a"], "id": 9}, {"code": 2, "id": 9}),
        ({"method": "SUBSCRIBE", "id": 9}, {"code": 2, "id": 9}),
        ({"method": "SUBSCRIBE", "params": [1], "id": 9}, {"code": 2, "id": 9}),
        ({"method": "SET_PROPERTY", "params": ["combined", 1], "id": 9}, {"code": 1, "id": 9}),
        ({"method": "SET_PROPERTY", "params": ["colour", True], "id": 9}, {"code": 0, "id": 9}),
        ({"method": "GET_PROPERTY", "params": [7], "id": 9}, {"code": 2, "id": 9}),
        ({"method": "GET_PROPERTY", "params": ["combined", True], "id": 9}, {"code": 2, "id": 9}),
    ],
)
def test_wrong_request_gets_the_documented_code_and_its_id_if_it_had_one(
    request_: object, error: dict[str, int]
) -> None:
    session = _session("/ws/a@trade")
    reply = _reply(session, request_)
    assert isinstance(reply.pop("msg"), str)
    assert reply == error
    assert list(session.streams) == ["a@trade"]


def test_sixth_message_within_a_second_closes_with_1008() -> None:
    session = _session("/ws")
    for n in range(5):
        assert _reply(session, {"method": "LIST_SUBSCRIPTIONS", "id": n}, _T0 + n)["result"] == []
    late = session.receive('{"method":"LIST_SUBSCRIPTIONS","id":6}', _T0 + 999 * _MS)
    assert late == [Close(1008, "Too many requests")]


def test_five_messages_in_every_second_are_allowed() -> None:
    session = _session("/ws")
    for n in range(20):
        _reply(session, {"method": "LIST_SUBSCRIPTIONS", "id": n}, _T0 + n * 200 * _MS)


def test_more_than_1024_streams_are_refused() -> None:
    session = _session("/ws")
    names = [f"s{n}@trade" for n in range(1025)]
    assert _reply(session, {"method": "SUBSCRIBE", "params": names, "id": 1})["code"] == 2
    assert session.streams == {}
    assert BinanceSession.at("/stream?streams=" + "/".join(names)) is None


# -------------------------------------------------------------------------------------------- REST


@pytest.fixture
def rest(market: LiveMarket) -> BinanceRest:
    return BinanceRest(LiveBinance([market], None, _T0))


def _get(rest: BinanceRest, target: str, now_ns: int = _T0, **headers: str) -> tuple[int, Any]:
    answer = rest.answer(target, headers, now_ns)
    return answer.status, json.loads(answer.body)


def test_depth_answers_the_best_levels_and_the_books_id(rest: BinanceRest, market: LiveMarket) -> None:
    status, body = _get(rest, "/api/v3/depth?symbol=BTCUSDT&limit=3")
    engine = market.engine
    assert status == 200
    assert list(body) == ["lastUpdateId", "bids", "asks"]
    assert body["lastUpdateId"] == engine.update_id
    assert body["bids"] == [[_BTC.price(v.px_ticks), _BTC.size(v.qty_lots)] for v in list(engine.bids())[:3]]
    assert len(body["asks"]) == 3


def test_depth_limit_is_100_by_default_and_5000_at_most(rest: BinanceRest, market: LiveMarket) -> None:
    for n in range(5100):
        market.engine.apply(Limit("bid", 1_000_000 + n, 1))
    assert len(_get(rest, "/api/v3/depth?symbol=BTCUSDT")[1]["bids"]) == 100
    assert len(_get(rest, "/api/v3/depth?symbol=BTCUSDT&limit=9999")[1]["bids"]) == 5000


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/api/v3/depth?symbol=NOPE", -1121),
        ("/api/v3/depth", -1102),
        ("/api/v3/depth?symbol=", -1102),
        ("/api/v3/depth?symbol=btcusdt", -1100),
        ("/api/v3/depth?symbol=BTCUSDT&limit=x", -1100),
        ("/api/v3/depth?symbol=BTCUSDT&limit=0", -1130),
        ("/api/v3/exchangeInfo?symbol=NOPE", -1121),
        ("/api/v3/exchangeInfo?symbols=BTCUSDT", -1100),
        ('/api/v3/exchangeInfo?symbols=["BTCUSDT","NOPE"]', -1121),
        ('/api/v3/exchangeInfo?symbol=BTCUSDT&symbols=["BTCUSDT"]', -1128),
    ],
)
def test_wrong_rest_request_is_400_with_the_documented_code(
    rest: BinanceRest, target: str, code: int
) -> None:
    status, body = _get(rest, target)
    assert (status, body["code"]) == (400, code)
    assert list(body) == ["code", "msg"]


def test_invalid_symbol_is_said_in_the_venues_words(rest: BinanceRest) -> None:
    body = rest.answer("/api/v3/depth?symbol=NOPE", {}, _T0).body
    assert body == '{"code":-1121,"msg":"Invalid symbol."}'


def test_unknown_path_is_404(rest: BinanceRest) -> None:
    assert _get(rest, "/api/v3/klines?symbol=BTCUSDT")[0] == 404


def test_exchange_info_tells_the_steps_by_which_prices_and_sizes_go(rest: BinanceRest) -> None:
    _, body = _get(rest, "/api/v3/exchangeInfo")
    (symbol,) = body["symbols"]
    filters = {entry["filterType"]: entry for entry in symbol["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
    assert filters["LOT_SIZE"]["stepSize"] == "0.00001000"
    assert filters["NOTIONAL"]["minNotional"] == "5.00000000"
    assert (symbol["status"], symbol["baseAsset"], symbol["quoteAsset"]) == ("TRADING", "BTC", "USDT")
    weights = [limit for limit in body["rateLimits"] if limit["rateLimitType"] == "REQUEST_WEIGHT"]
    assert weights[0]["limit"] == 6000


def test_time_is_told_in_the_unit_that_the_header_asks_for(rest: BinanceRest) -> None:
    now = _T0 + 1_234_567
    assert _get(rest, "/api/v3/time", now) == (200, {"serverTime": 1_795_600_000_001})
    micro = _get(rest, "/api/v3/time", now, **{"X-MBX-TIME-UNIT": "MICROSECOND"})
    assert micro == (200, {"serverTime": 1_795_600_000_001_234})


def test_weight_is_counted_per_minute_and_beyond_6000_answered_with_429(rest: BinanceRest) -> None:
    minute = _T0 // 60_000_000_000 * 60_000_000_000 + 60_000_000_000
    target = "/api/v3/depth?symbol=BTCUSDT&limit=5000"
    for n in range(1, 25):
        answer = rest.answer(target, {}, minute + 45_000_000_000)
        assert (answer.status, answer.headers["X-MBX-USED-WEIGHT-1M"]) == (200, str(250 * n))
    refused = rest.answer(target, {}, minute + 45_000_000_000)
    assert (refused.status, json.loads(refused.body)["code"]) == (429, -1003)
    assert refused.headers["Retry-After"] == "15"
    assert rest.answer("/api/v3/ping", {}, minute + 60_000_000_000).headers["X-MBX-USED-WEIGHT-1M"] == "1"
