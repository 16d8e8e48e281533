"""Connections that die, lag, and are replaced: what one of them brought is in the tables, once."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from websockets.asyncio.server import Server, ServerConnection, broadcast, serve
from websockets.http11 import Request, Response

from mmdata.recorder import session as session_module
from mmdata.recorder.capture import EVENT, CaptureWriter, Event, read_segment
from mmdata.recorder.pacing import TokenBucket
from mmdata.recorder.rest import RestClient
from mmdata.recorder.segments import ingest_segment
from mmdata.recorder.session import Intervals, VenueSession
from mmdata.recorder.venues import open_stream
from tests.builders import HEADER, rows

NOW_US = 1_795_262_400_000_000
FILTERS = [
    {"filterType": "PRICE_FILTER", "tickSize": "0.01"},
    {"filterType": "LOT_SIZE", "stepSize": "0.001", "minQty": "0.001"},
]
INSTRUMENT = {"symbol": "BTCUSDT", "status": "TRADING", "filters": FILTERS}


def wrapped(stream: str, data: dict[str, Any]) -> str:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": data}, separators=(",", ":"))


class Venue:
    """Binance spot with one symbol: diffs and trades that count on, to whoever is connected."""

    def __init__(self) -> None:
        self.sockets: list[ServerConnection] = []
        self.seen = 0
        self.last_id = 100
        self.last_trade = 1000
        self.deaf: set[ServerConnection] = set()
        """Connections to which nothing is sent, though they are open."""
        self.status = "TRADING"

    async def start(self) -> Server:
        """Listen on a free port."""
        return await serve(self._talk, "127.0.0.1", 0, process_request=self._rest)

    def tick(self) -> None:
        """Send one diff and one trade to everybody."""
        first, self.last_id = self.last_id + 1, self.last_id + 3
        self.last_trade += 1
        levels = {"b": [["1.00", "2"]], "a": [["2.00", str(self.last_id)]]}
        diff = {"e": "depthUpdate", "E": NOW_US, "s": "BTCUSDT", "U": first, "u": self.last_id, **levels}
        trade = {"e": "trade", "E": NOW_US, "s": "BTCUSDT", "t": self.last_trade, "p": "1.50", "q": "1"}
        for text in (
            wrapped("depth@100ms", diff),
            wrapped("trade", {**trade, "T": NOW_US, "m": True, "M": True}),
        ):
            broadcast([socket for socket in self.sockets if socket not in self.deaf], text)

    def say(self, text: str) -> None:
        """Send something to everybody."""
        broadcast(self.sockets, text)

    async def _talk(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        self.seen += 1
        try:
            await socket.wait_closed()
        finally:
            self.sockets.remove(socket)
            self.deaf.discard(socket)

    def _rest(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/stream"):
            return None
        if "exchangeInfo" in request.path:
            body: Any = {"symbols": [{**INSTRUMENT, "status": self.status}]}
        elif "time" in request.path:
            body = {"serverTime": NOW_US}
        elif "historicalTrades" in request.path:
            query = dict(part.split("=") for part in request.path.partition("?")[2].split("&"))
            ids = range(int(query["fromId"]), min(int(query["fromId"]) + 2, self.last_trade + 1))
            trade = {"price": "1.50", "qty": "1", "quoteQty": "1.5", "time": NOW_US, "isBuyerMaker": True}
            body = [{"id": number, **trade} for number in ids]
        else:
            body = {"lastUpdateId": self.last_id, "bids": [["1.00", "1"]], "asks": [["2.00", "1"]]}
        return socket.respond(http.HTTPStatus.OK, json.dumps(body))


@asynccontextmanager
async def recording(folder: Path, venue: Venue, **options: Any) -> AsyncIterator[VenueSession]:
    """Record ``venue`` into a segment while the block runs; the venue ticks 50 times a second."""
    server = await venue.start()
    port = next(iter(server.sockets)).getsockname()[1]
    stream = open_stream("binance", ["BTCUSDT"], ["depth@100ms", "trade"], f"ws://127.0.0.1:{port}")
    writer = CaptureWriter(folder / "capture", HEADER, seconds=600, size=1 << 30)
    rest = RestClient(f"http://127.0.0.1:{port}")
    session = VenueSession([stream], rest, writer, on_segment=lambda path: None, **options)
    stop = asyncio.Event()
    running = asyncio.create_task(session.run(stop))

    async def tick() -> None:
        while True:
            venue.tick()
            await asyncio.sleep(0.02)

    ticking = asyncio.create_task(tick())
    try:
        yield session
    finally:
        stop.set()
        await running
        ticking.cancel()
        rest.close()
        writer.close()
        server.close()
        await server.wait_closed()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def more_frames(session: VenueSession, count: int) -> None:
    seen = session.counts.frames
    await until(lambda: session.counts.frames > seen + count)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connections be tried again at once, as often as a test wants to."""
    monkeypatch.setattr("mmdata.recorder.leg.backoff", lambda draw: iter([0.05] * 1000))
    monkeypatch.setattr(session_module, "TokenBucket", lambda rate, burst: TokenBucket(1000.0, 1000.0))


def events_of(folder: Path) -> list[Event]:
    [path] = (folder / "capture").iterdir()
    return [
        msgspec.json.decode(line.payload, type=Event)
        for line in read_segment(path).lines
        if line.kind == EVENT
    ]


def tables_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    [path] = (folder / "capture").iterdir()
    ingest_segment(folder / "data", path)
    return {table: rows(folder / "data", table) for table in ("depth", "trades", "events")}


def assert_unbroken(tables: dict[str, list[dict[str, Any]]]) -> None:
    """Fail unless every diff and every trade between the first and the last is there, once."""
    spans = [(row["prev_id"], row["last_id"]) for row in tables["depth"] if row["is_last"]]
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    trades = sorted(row["trade_id"] for row in tables["trades"])
    assert trades == [*range(trades[0], trades[0] + len(trades))]


def test_two_connections_of_which_one_dies_again_and_again_leave_no_hole(tmp_path: Path) -> None:
    venue = Venue()

    async def run() -> VenueSession:
        async with recording(tmp_path, venue, connections=2) as session:
            for turn in range(8):
                await until(lambda: len(venue.sockets) == 2 and session.counts.synced["BTCUSDT"])
                await more_frames(session, 40)
                venue.sockets[turn % 2].transport.abort()
                await until(lambda most=2 + turn: venue.seen > most)  # type: ignore[misc]
            return session

    session = asyncio.run(run())
    assert session.counts.gaps == 0
    assert session.counts.repeats > 100
    tables = tables_of(tmp_path)
    assert_unbroken(tables)
    assert len({row["conn"] for row in tables["trades"]}) > 2
    assert [row["kind"] for row in tables["events"]].count("disconnected") == 10


@pytest.mark.parametrize(
    "notice",
    [
        '{"e":"serverShutdown","E":1770123456789}',
        '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}',
        '{"event":{"e":"serverShutdown","E":1770123456789}}',
    ],
)
def test_successor_is_live_before_a_connection_is_shut_down(tmp_path: Path, notice: str) -> None:
    venue = Venue()

    async def run() -> VenueSession:
        async with recording(tmp_path, venue) as session:
            await until(lambda: session.counts.synced["BTCUSDT"])
            venue.say(notice)
            await until(lambda: venue.seen == 2 and len(venue.sockets) == 1)
            await more_frames(session, 10)
            return session

    session = asyncio.run(run())
    assert session.counts.gaps == 0
    reasons = [event.detail["reason"] for event in events_of(tmp_path) if event.kind == "disconnected"]
    assert reasons == ["replaced by connection 1", "the recording ends"]
    assert_unbroken(tables_of(tmp_path))


def test_connection_is_replaced_before_its_lifetime_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venue = Venue()
    limits = open_stream("binance", ["X"], ["trade"], "ws://x").limits._replace(lifetime_s=1.5)
    monkeypatch.setattr("mmdata.recorder.venues.binance.stream.BinanceStream.limits", limits)

    async def run() -> VenueSession:
        async with recording(tmp_path, venue) as session:
            await until(lambda: venue.seen >= 3)
            return session

    assert asyncio.run(run()).counts.gaps == 0
    assert_unbroken(tables_of(tmp_path))


def test_connection_that_stays_open_and_brings_nothing_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that goes on has a hole; the other owes what would fill it, and never brings it."""
    monkeypatch.setattr(session_module, "_OWED_FOR_NS", 300_000_000)
    venue = Venue()

    async def run() -> VenueSession:
        async with recording(tmp_path, venue, connections=2, intervals=Intervals(sync_s=0.1)) as session:
            await until(lambda: len(venue.sockets) == 2 and session.counts.synced["BTCUSDT"])
            await asyncio.sleep(0.2)
            venue.deaf = {*venue.sockets}
            venue.tick()  # both miss it
            venue.deaf = {venue.sockets[0]}
            await until(lambda: session.counts.gaps > 0 and venue.seen == 3)
            await until(lambda: session.counts.synced["BTCUSDT"])
            return session

    session = asyncio.run(run())
    assert session.counts.gaps == 2  # of the book, and of the trades
    reasons = [event.detail["reason"] for event in events_of(tmp_path) if event.kind == "disconnected"]
    assert any("does not bring" in reason for reason in reasons)


def test_trades_missed_while_disconnected_are_asked_for_and_marked(tmp_path: Path) -> None:
    venue = Venue()

    async def run() -> VenueSession:
        async with recording(tmp_path, venue) as session:
            await until(lambda: session.counts.frames > 20)
            venue.deaf = {*venue.sockets}
            for _ in range(5):
                venue.tick()
            venue.sockets[0].transport.abort()
            await until(lambda: session.counts.backfilled >= 5)
            return session

    session = asyncio.run(run())
    tables = tables_of(tmp_path)
    assert_unbroken({**tables, "depth": []})
    filled = [row for row in tables["trades"] if row["origin"] == "backfill"]
    assert len(filled) == session.counts.backfilled
    assert {row["conn"] for row in filled} == {None}
    [event] = [event for event in events_of(tmp_path) if event.kind == "backfill"]
    assert event.detail["missing"] == event.detail["filled"] == len(filled)


def test_what_the_venue_says_of_an_instrument_is_read_again_and_changes_are_noted(tmp_path: Path) -> None:
    venue = Venue()

    async def run() -> VenueSession:
        intervals = Intervals(instruments_s=0.05, clock_s=0.05, audit_s=0.1)
        async with recording(tmp_path, venue, intervals=intervals) as session:
            await until(lambda: session.counts.synced["BTCUSDT"])
            venue.status = "BREAK"
            await asyncio.sleep(0.5)
            return session

    session = asyncio.run(run())
    events = events_of(tmp_path)
    changed = [event.detail for event in events if event.kind == "instrument"]
    assert changed == [{"changed": {"status": ["TRADING", "BREAK"]}}]
    assert session.counts.clock_offset_ns is not None
    assert len([event for event in events if event.kind == "clock"]) > 2
    reasons = [event.detail["reason"] for event in events if event.kind == "snapshot"]
    assert reasons[0] == "start"
    assert {*reasons[1:]} == {"audit"}
