"""OKX as the sandbox speaks it: frames, conflation, subscriptions, REST. No sockets, no clock."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from mmdata.sandbox.engine import Action, Cancel, Limit, Market, MatchingEngine
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.live import LiveOkx
from mmdata.sandbox.market import Event, LiveMarket
from mmdata.sandbox.okx.feed import OkxFeed
from mmdata.sandbox.okx.rest import OkxRest
from mmdata.sandbox.okx.session import OkxSession
from mmdata.sandbox.wire import Join, Leave, Message, Send, Style

_T0 = 1_795_600_000_000_000_000
_MS = 1_000_000
_BTC = MARKETS[2]
_LEVELS = dict[str, tuple[str, str]]


@pytest.fixture
def market() -> LiveMarket:
    """Return a market that stands still: only what a test does happens in it."""
    return LiveMarket(_BTC, np.random.SeedSequence(1), 0, _T0)


@pytest.fixture
def feed(market: LiveMarket) -> OkxFeed:
    return OkxFeed(market, _T0, heartbeat_s=60)


def _do(feed: OkxFeed, action: Action, now_ns: int = _T0) -> list[Message]:
    outcome = feed.market.engine.apply(action)
    return feed.observe(Event(now_ns, outcome), now_ns)


def _frame(message: Message) -> dict[str, Any]:
    frame: dict[str, Any] = json.loads(message.render(Style()))
    return frame


def _books(feed: OkxFeed, now_ns: int) -> list[dict[str, Any]]:
    """Return the frames of the channel ``books`` that leave in a pass."""
    frames = [_frame(message) for message in feed.flush(now_ns)]
    return [frame for frame in frames if frame["arg"]["channel"] == "books"]


def test_update_is_written_as_on_the_wire(feed: OkxFeed) -> None:
    last = feed.last_id
    _do(feed, Limit("ask", 700_005, 1_020))
    _do(feed, Limit("ask", 700_000, 10**8))
    *_, message = feed.flush(_T0 + 100 * _MS)
    assert message.render(Style()) == (
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"update","data":[{"asks":'
        '[["70000","1","0","1"],["70000.5","0.0000102","0","1"]],"bids":[],"ts":"1795600000100",'
        f'"checksum":0,"seqId":{last + 2},"prevSeqId":{last}}}]}}'
    )


def test_removed_level_has_size_and_orders_0(feed: OkxFeed) -> None:
    order = feed.market.engine.apply(Limit("bid", 500_000, 5)).order_id
    list(feed.flush(_T0 + 100 * _MS))
    _do(feed, Cancel(order))
    (frame,) = _books(feed, _T0 + 200 * _MS)
    assert frame["data"][0]["bids"] == [["50000", "0", "0", "0"]]


def test_level_that_came_and_went_within_the_interval_is_deleted_all_the_same(feed: OkxFeed) -> None:
    _do(feed, Limit("bid", 500_000, 5))
    _do(feed, Cancel(feed.market.engine.last_order_id))
    (frame,) = _books(feed, _T0 + 100 * _MS)
    assert frame["data"][0]["bids"] == [["50000", "0", "0", "0"]]


def test_snapshot_is_the_book_of_the_last_push_so_that_the_next_diff_continues_it(feed: OkxFeed) -> None:
    before = feed.last_id
    _do(feed, Limit("bid", 500_000, 5))
    (message,) = feed.greet("books", _T0 + 50 * _MS)
    snapshot = _frame(message)
    assert (snapshot["action"], snapshot["data"][0]["prevSeqId"]) == ("snapshot", -1)
    assert list(snapshot["data"][0]) == ["asks", "bids", "ts", "checksum", "seqId", "prevSeqId"]
    assert snapshot["data"][0]["seqId"] == before
    assert "50000" not in [level[0] for level in snapshot["data"][0]["bids"]]
    (update,) = _books(feed, _T0 + 100 * _MS)
    assert update["data"][0]["prevSeqId"] == before


def test_unchanged_book_says_so_after_the_heartbeats_time_and_not_before(feed: OkxFeed) -> None:
    last = feed.last_id
    assert _books(feed, _T0 + 59_900 * _MS) == []
    (frame,) = _books(feed, _T0 + 60_000 * _MS)
    data = frame["data"][0]
    assert (data["asks"], data["bids"]) == ([], [])
    assert data["seqId"] == data["prevSeqId"] == last
    assert _books(feed, _T0 + 119_900 * _MS) == []
    assert len(_books(feed, _T0 + 120_000 * _MS)) == 1


def test_only_the_best_400_levels_are_told_and_what_leaves_them_is_deleted(market: LiveMarket) -> None:
    engine = market.engine
    for order_id in list(engine.orders):
        engine.apply(Cancel(order_id))
    for n in range(450):
        engine.apply(Limit("bid", 500_000 - n, 1))
    feed = OkxFeed(market, _T0, 60)
    (snapshot,) = feed.greet("books", _T0)
    held = _apply({}, _frame(snapshot)["data"][0]["bids"])
    assert len(held) == 400
    # two better ones push the two worst out of the window, a change below it is nobody's business
    for px in (500_001, 500_002, 500_000 - 440):
        _do(feed, Limit("bid", px, 3))
    (update,) = _books(feed, _T0 + 100 * _MS)
    told = update["data"][0]["bids"]
    assert [level[:2] for level in told] == [
        ["50000.2", "0.00000003"],
        ["50000.1", "0.00000003"],
        ["49960.2", "0"],
        ["49960.1", "0"],
    ]
    # and when they go, the two that were hidden come back whole
    _do(feed, Market("ask", 6))
    (update,) = _books(feed, _T0 + 200 * _MS)
    held = _apply(_apply(held, told), update["data"][0]["bids"])
    assert held == _window(engine)


def _apply(book: _LEVELS, levels: list[list[str]]) -> _LEVELS:
    book = dict(book)
    for price, size, zero, orders in levels:
        assert zero == "0"
        if size == "0":
            book.pop(price, None)
        else:
            book[price] = (size, orders)
    return book


def _window(engine: MatchingEngine) -> _LEVELS:
    best = list(engine.bids())[:400]
    return {_BTC.price(v.px_ticks): (_BTC.size(v.qty_lots), str(v.orders)) for v in best}


def test_best_bid_offer_comes_before_the_book_and_only_when_it_changed(feed: OkxFeed) -> None:
    bid = feed.market.engine.best_bid()
    assert bid is not None
    _do(feed, Limit("bid", bid, 5))
    channels = [_frame(message)["arg"]["channel"] for message in feed.flush(_T0 + 100 * _MS)]
    assert channels == ["bbo-tbt", "books"]
    _do(feed, Limit("bid", 500_000, 5))
    channels = [_frame(message)["arg"]["channel"] for message in feed.flush(_T0 + 200 * _MS)]
    assert channels == ["books"]


def test_best_bid_offer_has_no_action_no_checksum_and_the_books_id(feed: OkxFeed) -> None:
    (message,) = feed.greet("bbo-tbt", _T0)
    frame = _frame(message)
    assert list(frame) == ["arg", "data"]
    assert list(frame["data"][0]) == ["asks", "bids", "ts", "seqId"]
    assert frame["data"][0]["seqId"] == feed.last_id
    assert [len(frame["data"][0][side]) for side in ("asks", "bids")] == [1, 1]


def test_trades_of_one_taker_at_one_price_are_one_message_with_the_last_id_and_the_count(
    feed: OkxFeed,
) -> None:
    engine = feed.market.engine
    ask = engine.best_ask()
    assert ask is not None
    orders = len(engine.queue("ask", ask))
    _do(feed, Limit("ask", ask, 7))
    first_id = engine.last_trade_id + 1
    (message,) = _do(feed, Market("bid", engine.at("ask", ask).qty_lots), _T0 + 3 * _MS)
    frame = _frame(message)
    assert list(frame["data"][0]) == [
        "instId",
        "tradeId",
        "px",
        "sz",
        "side",
        "ts",
        "count",
        "source",
        "seqId",
    ]
    trade = frame["data"][0]
    assert trade["count"] == str(orders + 1)
    assert int(trade["tradeId"]) == first_id + orders
    assert (trade["side"], trade["source"], trade["ts"]) == ("buy", "0", "1795600000003")
    assert trade["seqId"] == engine.update_id


# ----------------------------------------------------------------------------------------- session

_OFFERED = {"books:BTC-USDT", "trades:BTC-USDT"}


def _session(target: str = "/ws/v5/public") -> OkxSession:
    session = OkxSession.at(target, _OFFERED, 1)
    assert session is not None
    return session


def _texts(session: OkxSession, request: object, now_ns: int = _T0) -> list[Any]:
    text = request if isinstance(request, str) else json.dumps(request)
    return [json.loads(r.text) for r in session.receive(text, now_ns) if isinstance(r, Send)]


def _arg(channel: str, inst_id: str = "BTC-USDT") -> dict[str, str]:
    return {"channel": channel, "instId": inst_id}


def test_text_ping_is_answered_by_text_pong() -> None:
    assert _session().receive("ping", _T0) == [Send("pong")]


def test_each_argument_gets_its_own_answer_and_what_exists_is_joined() -> None:
    session = _session()
    request = {"id": "1512", "op": "subscribe", "args": [_arg("books"), _arg("nope"), _arg("trades")]}
    first, join, error, second, join_2 = session.receive(json.dumps(request), _T0)
    assert isinstance(first, Send)
    conn_id = json.loads(first.text)["connId"]
    assert first.text == (
        '{"id":"1512","event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},'
        f'"connId":"{conn_id}"}}'
    )
    assert (join, join_2) == (Join("books:BTC-USDT"), Join("trades:BTC-USDT"))
    assert isinstance(error, Send)
    assert list(json.loads(error.text)) == ["id", "event", "code", "msg", "connId"]
    assert json.loads(error.text)["code"] == "60018"
    assert isinstance(second, Send)


def test_id_is_left_out_when_the_request_had_none() -> None:
    (ack,) = _texts(_session(), {"op": "subscribe", "args": [_arg("books")]})
    assert list(ack) == ["event", "arg", "connId"]


def test_subscribing_again_joins_again_so_that_a_gap_can_be_mended() -> None:
    session = _session()
    request = json.dumps({"op": "subscribe", "args": [_arg("books")]})
    assert Join("books:BTC-USDT") in session.receive(request, _T0)
    assert Join("books:BTC-USDT") in session.receive(request, _T0)


def test_unsubscribe_leaves_and_is_acknowledged() -> None:
    leave, ack = _session().receive(json.dumps({"op": "unsubscribe", "args": [_arg("books")]}), _T0)
    assert leave == Leave("books:BTC-USDT")
    assert isinstance(ack, Send)
    assert json.loads(ack.text)["event"] == "unsubscribe"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ("nonsense", "60012"),
        ("[]", "60012"),
        ({"id": "not-alnum", "op": "subscribe", "args": [{"channel": "books"}]}, "60012"),
        ({"op": "login", "args": [{}]}, "60019"),
        ({"op": "subscribe"}, "60013"),
        ({"op": "subscribe", "args": []}, "60013"),
        ({"op": "subscribe", "args": [{"instId": "BTC-USDT"}]}, "60013"),
        ({"op": "subscribe", "args": [_arg("books", "btc-usdt")]}, "60018"),
    ],
)
def test_wrong_request_gets_an_error_frame_with_the_documented_code(request_: object, code: str) -> None:
    (error,) = _texts(_session(), request_)
    assert (error["event"], error["code"]) == ("error", code)


@pytest.mark.parametrize("path", ["/ws/v5/business", "/ws/v5/private"])
def test_public_channel_on_another_path_is_refused_with_60018(path: str) -> None:
    (error,) = _texts(_session(path), {"op": "subscribe", "args": [_arg("books")]})
    assert error["code"] == "60018"


def test_more_than_480_requests_an_hour_are_refused_with_60014() -> None:
    session = _session()
    request = {"op": "unsubscribe", "args": [_arg("books")]}
    for n in range(480):
        assert _texts(session, request, _T0 + n)[0]["event"] == "unsubscribe"
    assert _texts(session, request, _T0 + 480)[0]["code"] == "60014"


# -------------------------------------------------------------------------------------------- REST


@pytest.fixture
def rest(market: LiveMarket) -> OkxRest:
    return OkxRest(LiveOkx([market], None, _T0, 60))


def _get(rest: OkxRest, target: str) -> tuple[int, Any]:
    answer = rest.answer(target, _T0)
    return answer.status, json.loads(answer.body)


def test_books_answer_is_the_book_of_the_last_push_best_level_by_default(
    rest: OkxRest, market: LiveMarket
) -> None:
    status, body = _get(rest, "/api/v5/market/books?instId=BTC-USDT")
    assert (status, body["code"], body["msg"]) == (200, "0", "")
    (data,) = body["data"]
    assert list(data) == ["asks", "bids", "ts", "seqId"]
    assert data["seqId"] == market.engine.update_id
    best = market.engine.top("ask")
    assert best is not None
    assert data["asks"] == [[_BTC.price(best.px_ticks), _BTC.size(best.qty_lots), "0", str(best.orders)]]
    assert len(_get(rest, "/api/v5/market/books?instId=BTC-USDT&sz=5")[1]["data"][0]["bids"]) == 5


def test_instruments_tell_the_steps_by_which_prices_and_sizes_go(rest: OkxRest) -> None:
    _, body = _get(rest, "/api/v5/public/instruments?instType=SPOT&instId=BTC-USDT")
    (row,) = body["data"]
    assert (row["instId"], row["tickSz"], row["lotSz"], row["state"]) == (
        "BTC-USDT",
        "0.1",
        "0.00000001",
        "live",
    )
    assert _get(rest, "/api/v5/public/instruments?instType=SWAP")[1]["data"] == []


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/api/v5/market/books?instId=NO-PE", 200, "51001"),
        ("/api/v5/market/books", 400, "50014"),
        ("/api/v5/market/books?instId=BTC-USDT&sz=x", 400, "51000"),
        ("/api/v5/public/instruments", 400, "50014"),
        ("/api/v5/public/instruments?instType=CASH", 400, "51000"),
        ("/api/v5/public/instruments?instType=SPOT&instId=NO-PE", 200, "51001"),
        ("/api/v5/market/candles", 404, "404"),
    ],
)
def test_wrong_rest_request_gets_the_documented_code(
    rest: OkxRest, target: str, status: int, code: str
) -> None:
    got, body = _get(rest, target)
    assert (got, body["code"], body["data"]) == (status, code, [])


def test_time_is_a_string_of_milliseconds(rest: OkxRest) -> None:
    assert _get(rest, "/api/v5/public/time")[1]["data"] == [{"ts": "1795600000000"}]


def test_eleventh_time_request_within_two_seconds_is_refused_with_50011(rest: OkxRest) -> None:
    for _ in range(10):
        assert _get(rest, "/api/v5/public/time")[0] == 200
    status, body = _get(rest, "/api/v5/public/time")
    assert (status, body["code"]) == (429, "50011")
