"""The counter: who gets which frame, what is withheld, and that the truth says the same. Time is a number."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.datasets.errors import DiskError, UsageError
from mmdata.sandbox.desk import BinanceDesk, Connection, Desk, DropPlan, OkxDesk
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.live import LiveBinance, LiveOkx
from mmdata.sandbox.market import LiveMarket
from mmdata.sandbox.options import SandboxOptions
from mmdata.sandbox.truth import OrderEvent, Truth, TruthWriter, read_truth
from mmdata.sandbox.wire import Join, Send

_T0 = 1_795_600_000_000_000_000
_PASS = 5_000_000
_S = 1_000_000_000


class _Client:
    """A connection without a socket: it keeps what it was sent."""

    def __init__(self, desk: Desk, number: int, target: str) -> None:
        self.frames: list[str] = []
        self.open = True
        session = desk.session(target, number)
        assert session is not None
        self._desk = desk
        self.connection = Connection(
            desk.venue, number, target, session, self.frames.append, lambda: self.open
        )

    def ask(self, text: str | None, now_ns: int, truth: TruthWriter | None = None) -> None:
        session = self.connection.session
        for reaction in session.opened() if text is None else session.receive(text, now_ns):
            if isinstance(reaction, Send):
                self.connection.send(reaction.text, now_ns, truth)
            elif isinstance(reaction, Join):
                self._desk.join(self.connection, reaction.key, now_ns)

    def data(self, stream: str) -> list[Any]:
        """Return the payloads of a Binance stream."""
        frames = [json.loads(frame) for frame in self.frames]
        return [frame["data"] for frame in frames if frame.get("stream") == stream]

    def pushes(self, channel: str) -> list[Any]:
        """Return the pushes of an OKX channel."""
        frames = [json.loads(frame) for frame in self.frames]
        return [frame for frame in frames if "data" in frame and frame["arg"]["channel"] == channel]


def _markets(venue: str, seed: int, speed: float, sweep: float = 0.0) -> list[LiveMarket]:
    instruments = [instrument for instrument in MARKETS if instrument.venue == venue]
    seeds = np.random.SeedSequence(seed).spawn(len(instruments))
    return [
        LiveMarket(instrument, child, speed, _T0, sweep)
        for instrument, child in zip(instruments, seeds, strict=True)
    ]


def _run(desk: Desk, seconds: float, start_ns: int = _T0) -> int:
    """Let time pass in steps of 5 ms; return the time reached."""
    now_ns = start_ns
    while now_ns < start_ns + seconds * _S:
        now_ns += _PASS
        desk.publish_due(now_ns)
    return now_ns


_STREAMS = (
    "/stream?streams=btcusdt@depth@100ms/btcusdt@depth/btcusdt@bookTicker/btcusdt@trade/btcusdt@aggTrade"
)
_SUBSCRIBE = json.dumps(
    {
        "op": "subscribe",
        "args": [{"channel": c, "instId": "BTC-USDT"} for c in ("books", "trades", "bbo-tbt")],
    }
)


def _binance(
    tmp_path: Path, seconds: float, drop: tuple[float, ...] = (), speed: float = 20, sweep: float = 0.3
) -> tuple[_Client, Truth, str]:
    """Record a Binance client for a while; return it, the truth, and a REST snapshot of 1 s."""
    truth = TruthWriter(tmp_path / "truth", SandboxOptions(), MARKETS)
    content = LiveBinance(_markets("binance", 7, speed, sweep), truth, _T0)
    desk = BinanceDesk(content, truth, DropPlan(drop))
    client = _Client(desk, 1, _STREAMS)
    client.ask(None, _T0, truth)
    now_ns = _run(desk, 1)
    snapshot = desk.answer("/api/v3/depth?symbol=BTCUSDT&limit=5000", {}, now_ns).body
    _run(desk, seconds - 1, now_ns)
    truth.close()
    return client, read_truth(tmp_path / "truth"), snapshot


def _okx(
    tmp_path: Path, seconds: float, drop: tuple[float, ...] = (), heartbeat_s: float = 60, speed: float = 20
) -> tuple[_Client, Truth]:
    truth = TruthWriter(tmp_path / "truth", SandboxOptions(), MARKETS)
    content = LiveOkx(_markets("okx", 7, speed, 0.3), truth, _T0, heartbeat_s)
    desk = OkxDesk(content, truth, DropPlan(drop))
    client = _Client(desk, 1, "/ws/v5/public")
    client.ask(_SUBSCRIBE, _T0, truth)
    _run(desk, seconds)
    truth.close()
    return client, read_truth(tmp_path / "truth")


@pytest.fixture(scope="module")
def binance_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[_Client, Truth, str]:
    """Return a client of eight undisturbed seconds, the truth, and a snapshot of the first second."""
    return _binance(tmp_path_factory.mktemp("binance"), 8)


@pytest.fixture(scope="module")
def okx_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[_Client, Truth]:
    """Return a client of eight undisturbed seconds, and the truth."""
    return _okx(tmp_path_factory.mktemp("okx"), 8)


def _apply(book: dict[str, tuple[str, ...]], levels: list[list[str]]) -> None:
    for price, size, *rest in levels:
        if float(size) == 0:
            book.pop(price, None)
        else:
            book[price] = (size, *rest[1:])


@pytest.mark.parametrize("stream", ["btcusdt@depth@100ms", "btcusdt@depth"])
def test_binance_book_rebuilt_from_snapshot_and_diffs_is_the_engines_own_at_every_id(
    binance_run: tuple[_Client, Truth, str], stream: str
) -> None:
    client, truth, body = binance_run
    snapshot = json.loads(body)
    bids: dict[str, tuple[str, ...]] = {}
    asks: dict[str, tuple[str, ...]] = {}
    _apply(bids, snapshot["bids"])
    _apply(asks, snapshot["asks"])
    last, compared = snapshot["lastUpdateId"], 0
    for diff in client.data(stream):
        if diff["u"] <= last:
            continue
        assert diff["U"] <= last + 1
        _apply(bids, diff["b"])
        _apply(asks, diff["a"])
        last = diff["u"]
        own = truth.book("binance", "BTCUSDT", last)
        assert bids == {price: (size,) for price, size, _ in own.bids}
        assert asks == {price: (size,) for price, size, _ in own.asks}
        compared += 1
    assert compared >= (65 if stream.endswith("ms") else 6)


def test_okx_book_rebuilt_from_snapshot_and_updates_is_the_engines_own_at_every_id(
    okx_run: tuple[_Client, Truth],
) -> None:
    client, truth = okx_run
    bids: dict[str, tuple[str, ...]] = {}
    asks: dict[str, tuple[str, ...]] = {}
    last = -1
    pushes = client.pushes("books")
    assert pushes[0]["action"] == "snapshot"
    assert len(pushes) > 70
    for push in pushes:
        (data,) = push["data"]
        assert data["prevSeqId"] == last
        _apply(bids, data["bids"])
        _apply(asks, data["asks"])
        last = data["seqId"]
        own = truth.book("okx", "BTC-USDT", last)
        assert bids == {price: (size, str(orders)) for price, size, orders in own.bids}
        assert asks == {price: (size, str(orders)) for price, size, orders in own.asks}


def test_books_replayed_from_the_orders_lives_are_the_books_told(okx_run: tuple[_Client, Truth]) -> None:
    _, truth = okx_run
    orders: dict[str, dict[int, OrderEvent]] = defaultdict(dict)
    left: dict[tuple[str, int], int] = {}
    for event in truth.orders:
        if event.event == "add":
            orders[event.symbol][event.order_id] = event
            left[event.symbol, event.order_id] = event.qty_lots
        else:
            left[event.symbol, event.order_id] -= event.qty_lots
            assert orders[event.symbol][event.order_id].px_ticks == event.px_ticks
            if not left[event.symbol, event.order_id]:
                del orders[event.symbol][event.order_id]
        if event.event == "fill":
            at_price = [o for o in orders[event.symbol].values() if o.px_ticks == event.px_ticks]
            assert all(other.order_id >= event.order_id for other in at_price), "not the oldest"
    instrument = MARKETS[2]
    resting = orders["BTC-USDT"].values()
    bids: dict[int, int] = defaultdict(int)
    for order in resting:
        if order.side == "bid":
            bids[order.px_ticks] += left["BTC-USDT", order.order_id]
    final = [book for book in truth.books if book.symbol == "BTC-USDT"][-1]
    assert [(price, size) for price, size, _ in final.bids] == [
        (instrument.price(px), instrument.size(bids[px])) for px in sorted(bids, reverse=True)
    ]


def test_ticker_with_a_diffs_id_comes_before_it_and_is_the_books_top(
    binance_run: tuple[_Client, Truth, str],
) -> None:
    client, truth, _ = binance_run
    frames = [json.loads(frame) for frame in client.frames]
    tickers: dict[int, Any] = {}
    equal = 0
    for frame in frames:
        data = frame["data"]
        if frame["stream"].endswith("bookTicker"):
            tickers[data["u"]] = data
        elif frame["stream"].endswith("100ms") and data["u"] in tickers:
            ticker, own = tickers[data["u"]], truth.book("binance", "BTCUSDT", data["u"])
            assert (ticker["b"], ticker["B"], ticker["a"], ticker["A"]) == own.bids[0][:2] + own.asks[0][:2]
            equal += 1
    last_ids = [f["data"]["u"] for f in frames if f["stream"].endswith("100ms")]
    after = [u for u in last_ids if u in tickers]
    assert equal == len(after) > 5


def test_binance_trades_are_the_truths_fills_and_their_times_never_lie_ahead(
    binance_run: tuple[_Client, Truth, str],
) -> None:
    client, truth, _ = binance_run
    told = [event for event in truth.orders if event.event == "fill" and event.symbol == "BTCUSDT"]
    trades = client.data("btcusdt@trade")
    instrument = MARKETS[0]
    assert [(t["t"], t["p"], t["q"], t["m"]) for t in trades] == [
        (f.trade_id, instrument.price(f.px_ticks), instrument.size(f.qty_lots), f.side == "bid") for f in told
    ]
    assert [t["T"] for t in trades] == [f.ts // 1_000_000 for f in told]
    assert all(0 <= t["E"] - t["T"] <= 5 for t in trades)
    aggs = client.data("btcusdt@aggTrade")
    assert [a["f"] for a in aggs[1:]] == [a["l"] + 1 for a in aggs[:-1]]
    assert any(a["l"] > a["f"] for a in aggs), "no taker met two orders: the grouping was not tested"


def test_okx_trades_count_back_to_the_last_message(okx_run: tuple[_Client, Truth]) -> None:
    client, truth = okx_run
    trades = [push["data"][0] for push in client.pushes("trades")]
    last = int(trades[0]["tradeId"])
    for trade in trades[1:]:
        assert int(trade["tradeId"]) - int(trade["count"]) == last
        last = int(trade["tradeId"])
    assert any(trade["count"] != "1" for trade in trades)
    fills = [e for e in truth.orders if e.event == "fill" and e.symbol == "BTC-USDT"]
    assert fills[-1].trade_id == last


def test_okx_best_bid_offer_never_comes_after_a_book_that_knows_it(okx_run: tuple[_Client, Truth]) -> None:
    client, _ = okx_run
    frames = [json.loads(frame) for frame in client.frames]
    pushes = [(f["arg"]["channel"], f["data"][0]) for f in frames if "data" in f][2:]
    assert sum(channel == "bbo-tbt" for channel, _ in pushes) > 100
    newest = 0
    compared = 0
    for channel, data in pushes:
        if channel == "books":
            newest = data["seqId"]
        elif channel == "bbo-tbt":
            assert data["seqId"] > newest
            compared += newest > 0
    assert compared > 100


def test_dropped_binance_diff_reaches_nobody_and_is_told_with_its_ids(tmp_path: Path) -> None:
    client, truth, _ = _binance(tmp_path, 6, drop=(4.0, 2.0))
    diffs = client.data("btcusdt@depth@100ms")
    gaps = [
        (before["u"] + 1, after["U"] - 1)
        for before, after in pairwise(diffs)
        if after["U"] != before["u"] + 1
    ]
    assert [(d.first_id, d.last_id) for d in truth.dropped] == gaps
    assert [d.key for d in truth.dropped] == ["btcusdt@depth@100ms"] * 2
    assert [round((d.ts - _T0) / _S, 1) for d in truth.dropped] == [2.0, 4.0]
    assert json.loads(truth.dropped[0].frame)["data"]["u"] == truth.dropped[0].last_id
    slow = client.data("btcusdt@depth")
    assert all(b["U"] == a["u"] + 1 for a, b in pairwise(slow))


def test_dropped_okx_update_breaks_the_chain_and_only_that(tmp_path: Path) -> None:
    client, truth = _okx(tmp_path, 4, drop=(1.0,))
    updates = [push["data"][0] for push in client.pushes("books")]
    breaks = [
        (before["seqId"], after["prevSeqId"])
        for before, after in pairwise(updates)
        if after["prevSeqId"] != before["seqId"]
    ]
    (dropped,) = truth.dropped
    assert breaks == [(dropped.first_id, dropped.last_id)]
    assert dropped.venue == "okx"


def test_okx_heartbeats_are_never_what_is_dropped(tmp_path: Path) -> None:
    client, truth = _okx(tmp_path, 5, drop=(0.0,), heartbeat_s=1, speed=0)
    beats = [push["data"][0] for push in client.pushes("books")][1:]
    assert len(beats) == 5
    assert all(beat["seqId"] == beat["prevSeqId"] for beat in beats)
    assert truth.dropped == []


def test_truth_holds_every_frame_of_a_connection_in_order(binance_run: tuple[_Client, Truth, str]) -> None:
    client, truth, body = binance_run
    assert [frame.frame for frame in truth.frames] == client.frames
    assert {(f.venue, f.conn, f.path) for f in truth.frames} == {("binance", 1, _STREAMS)}
    assert [answer.body for answer in truth.rest] == [body]


def test_frames_depend_on_the_seed_only(tmp_path: Path) -> None:
    first, _, _ = _binance(tmp_path / "a", 2)
    second, _, _ = _binance(tmp_path / "b", 2)
    assert first.frames == second.frames


def test_market_that_got_no_time_for_long_goes_on_slower_instead_of_catching_up() -> None:
    desk = BinanceDesk(LiveBinance(_markets("binance", 1, 20), None, _T0), None, DropPlan(()))
    client = _Client(desk, 1, "/ws/btcusdt@trade")
    client.ask(None, _T0)
    now_ns = _run(desk, 1) + 60 * _S
    before = len(client.frames)
    desk.publish_due(now_ns)
    bite = [json.loads(frame) for frame in client.frames[before:]]
    assert len(bite) < 20  # a tenth of a second of some 37 a second, not a minute of them
    now_ns = _run(desk, 1, now_ns)
    trades = [json.loads(frame) for frame in client.frames[before:]]
    assert 40 < len(trades) < 120  # the second that it made up for, and the second that passed
    assert all(now_ns // 1_000_000 - 2_001 <= trade["T"] <= now_ns // 1_000_000 for trade in trades)
    _run(desk, 1, now_ns)
    ids = [json.loads(frame)["t"] for frame in client.frames]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


def test_connection_that_left_gets_nothing_more_and_others_do() -> None:
    desk = BinanceDesk(LiveBinance(_markets("binance", 1, 20), None, _T0), None, DropPlan(()))
    clients = [_Client(desk, n, "/ws/btcusdt@bookTicker") for n in (1, 2, 3)]
    for client in clients:
        client.ask(None, _T0)
    now_ns = _run(desk, 0.5)
    counts = [len(client.frames) for client in clients]
    assert counts[0] == counts[1] == counts[2] > 0
    desk.forget(clients[0].connection)
    clients[1].open = False
    _run(desk, 0.5, now_ns)
    assert [len(c.frames) > n for c, n in zip(clients, counts, strict=True)] == [False, False, True]


def test_misspelt_stream_is_silent() -> None:
    desk = BinanceDesk(LiveBinance(_markets("binance", 1, 20), None, _T0), None, DropPlan(()))
    client = _Client(desk, 1, "/stream?streams=nopeusdt@trade/BTCUSDT@trade/btcusdt@nope")
    client.ask(None, _T0)
    _run(desk, 1)
    assert client.frames == []


def test_truth_is_not_written_over_anothers(tmp_path: Path) -> None:
    TruthWriter(tmp_path, SandboxOptions(), ()).close()
    with pytest.raises(UsageError, match="already holds a sandbox's truth"):
        TruthWriter(tmp_path, SandboxOptions(), ())


def test_truth_that_is_not_there_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="no truth of a sandbox"):
        read_truth(tmp_path / "nowhere")


def test_torn_last_line_of_the_truth_is_left_out(tmp_path: Path) -> None:
    _, truth, _ = _binance(tmp_path, 2)
    path = tmp_path / "truth" / "frames.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert read_truth(tmp_path / "truth").frames == truth.frames[:-1]


@pytest.mark.parametrize(
    "text", ["[" * 30_000, "9" * 5_000, '{"id":"\\ud800","method":"\\ud800","op":"\\ud800"}']
)
@pytest.mark.parametrize("path", ["/ws", "/ws/v5/public"])
def test_message_that_no_parser_takes_is_answered_with_an_error_that_can_be_sent(
    path: str, text: str
) -> None:
    desk: Desk = (
        BinanceDesk(LiveBinance(_markets("binance", 1, 0), None, _T0), None, DropPlan(()))
        if path == "/ws"
        else OkxDesk(LiveOkx(_markets("okx", 1, 0), None, _T0, 60.0), None, DropPlan(()))
    )
    session = desk.session(path, 1)
    assert session is not None
    [reaction] = session.receive(text, _T0)
    assert isinstance(reaction, Send)
    assert json.loads(reaction.text.encode()).keys() & {"code", "event"}


def test_drop_waits_for_a_diff_stream_and_for_somebody_to_withhold_it_from(tmp_path: Path) -> None:
    truth = TruthWriter(tmp_path / "truth", SandboxOptions(), MARKETS)
    content = LiveBinance(_markets("binance", 7, 20), truth, _T0)
    desk = BinanceDesk(content, truth, DropPlan((1.0,)))
    client = _Client(desk, 1, "/stream?streams=btcusdt@depth5@100ms/btcusdt@depth@100ms")
    client.ask(None, _T0, truth)
    desk.forget(client.connection)
    now_ns = _run(desk, 2)  # due while nobody listens
    again = _Client(desk, 2, "/stream?streams=btcusdt@depth@100ms")
    again.ask(None, now_ns, truth)
    _run(desk, 1, now_ns)
    truth.close()
    [dropped] = read_truth(tmp_path / "truth").dropped
    assert dropped.ts > now_ns
