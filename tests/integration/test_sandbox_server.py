"""The sandbox over real sockets on loopback: handshakes, keepalives, closing, playback, its own process."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from mmdata.datasets.errors import VenueError
from mmdata.sandbox import Sandbox, SandboxOptions, read_truth

_PATIENCE_S = 30
_Result = TypeVar("_Result")


def _run(test: Callable[[Sandbox], Coroutine[Any, Any, _Result]], **options: Any) -> _Result:
    """Run a test's coroutine against a sandbox; it fails rather than hangs."""

    async def inside() -> _Result:
        async with Sandbox(SandboxOptions(**options)) as sandbox, asyncio.timeout(_PATIENCE_S):
            return await test(sandbox)

    return asyncio.run(inside())


def _url(sandbox: Sandbox, venue: str, path: str) -> str:
    return sandbox.addresses[venue]["ws_url"] + path


async def _get(
    sandbox: Sandbox, venue: str, path: str, headers: dict[str, str] | None = None
) -> requests.Response:
    url = sandbox.addresses[venue]["rest_url"] + path
    return await asyncio.to_thread(requests.get, url, headers=headers, timeout=_PATIENCE_S)


async def _next(ws: ClientConnection, wanted: Callable[[Any], bool]) -> Any:
    """Return the first frame that is wanted."""
    while True:
        frame = json.loads(await ws.recv())
        if wanted(frame):
            return frame


async def _until_closed(ws: ClientConnection) -> AsyncIterator[str]:
    """Yield the frames up to a close of whatever code."""
    try:
        while True:
            yield str(await ws.recv())
    except ConnectionClosed:
        return


def _subscribe(*channels: str, inst_id: str = "BTC-USDT") -> str:
    return json.dumps({"op": "subscribe", "args": [{"channel": c, "instId": inst_id} for c in channels]})


def test_both_venues_answer_on_one_port() -> None:
    async def test(sandbox: Sandbox) -> None:
        assert sandbox.addresses["binance"] == sandbox.addresses["okx"]
        server_time = (await _get(sandbox, "binance", "/api/v3/time")).json()["serverTime"]
        okx_time = int((await _get(sandbox, "okx", "/api/v5/public/time")).json()["data"][0]["ts"])
        assert abs(server_time - time.time() * 1000) < 5000
        assert 0 <= okx_time - server_time < 5000

    _run(test)


def test_rest_errors_and_headers_arrive_as_http() -> None:
    async def test(sandbox: Sandbox) -> None:
        wrong = await _get(sandbox, "binance", "/api/v3/depth?symbol=NOPE")
        assert (wrong.status_code, wrong.text) == (400, '{"code":-1121,"msg":"Invalid symbol."}')
        right = await _get(sandbox, "binance", "/api/v3/depth?symbol=BTCUSDT&limit=5000")
        assert right.headers["X-MBX-USED-WEIGHT-1M"] == "255"
        assert right.headers["Content-Type"] == "application/json;charset=UTF-8"
        micro = await _get(sandbox, "binance", "/api/v3/time", {"x-mbx-time-unit": "MICROSECOND"})
        assert micro.json()["serverTime"] > 10**15
        okx = await _get(sandbox, "okx", "/api/v5/market/books?instId=NO-PE")
        assert (okx.status_code, okx.json()["code"]) == (200, "51001")

    _run(test)


@pytest.mark.parametrize("path", ["/", "/ws/v5/nowhere", "/stream/x"])
def test_socket_on_a_path_of_neither_venue_is_refused(path: str) -> None:
    async def test(sandbox: Sandbox) -> None:
        with pytest.raises(InvalidStatus) as caught:
            await connect(_url(sandbox, "binance", path))
        assert caught.value.response.status_code == 404

    _run(test)


def test_combined_socket_carries_what_its_address_names_and_nothing_else() -> None:
    async def test(sandbox: Sandbox) -> None:
        names = ["btcusdt@depth@100ms", "ethusdt@trade", "btcusdt@bookTicker", "ethusdt@aggTrade"]
        async with connect(_url(sandbox, "binance", "/stream?streams=" + "/".join(names))) as ws:
            seen: set[str] = set()
            while seen != set(names):
                frame = json.loads(await ws.recv())
                assert list(frame) == ["stream", "data"]
                assert frame["stream"] in names
                seen.add(frame["stream"])

    _run(test)


def test_subscribing_and_unsubscribing_on_an_open_socket_takes_effect() -> None:
    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "binance", "/ws")) as ws:
            await ws.send('{"method":"SUBSCRIBE","params":["btcusdt@bookTicker"],"id":1}')
            assert json.loads(await ws.recv()) == {"result": None, "id": 1}
            assert list(json.loads(await ws.recv())) == ["u", "s", "b", "B", "a", "A"]
            await ws.send('{"method":"UNSUBSCRIBE","params":["btcusdt@bookTicker"],"id":2}')
            await _next(ws, lambda frame: frame.get("id") == 2)
            await ws.send('{"method":"SUBSCRIBE","params":["ethusdt@trade"],"id":3}')
            await _next(ws, lambda frame: frame.get("id") == 3)
            assert (await _next(ws, lambda frame: True))["e"] == "trade"

    _run(test)


def test_microsecond_socket_has_microseconds_in_every_time_and_no_time_lies_ahead() -> None:
    async def test(sandbox: Sandbox) -> None:
        address = "/stream?streams=btcusdt@trade/btcusdt@depth@100ms&timeUnit=MICROSECOND"
        async with connect(_url(sandbox, "binance", address)) as ws:
            trade = (await _next(ws, lambda f: f["stream"].endswith("trade")))["data"]
            diff = (await _next(ws, lambda f: f["stream"].endswith("ms")))["data"]
            now = time.time_ns() // 1000
            assert now - 60_000_000 < trade["T"] <= trade["E"] <= now
            assert now - 60_000_000 < diff["E"] <= now

    _run(test)


def test_too_many_messages_close_the_socket_with_1008() -> None:
    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "binance", "/ws")) as ws:
            for n in range(6):
                await ws.send(f'{{"method":"LIST_SUBSCRIPTIONS","id":{n}}}')
            answers = [json.loads(text)["id"] async for text in _until_closed(ws)]
            assert answers == [0, 1, 2, 3, 4]
            assert (ws.close_code, ws.close_reason) == (1008, "Too many requests")

    _run(test, speed=0)


def test_binance_pings_and_a_client_that_answers_stays() -> None:
    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "binance", "/ws/btcusdt@trade"), ping_interval=None) as ws:
            await asyncio.sleep(0.8)  # longer than the timeout: what must not happen has no event
            await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            assert json.loads(await ws.recv())["id"] == 1

    _run(test, speed=0, ping_interval_s=0.05, ping_timeout_s=0.4)


def test_binance_closes_on_a_client_that_never_answers_a_ping() -> None:
    async def test(sandbox: Sandbox) -> None:
        host, port = sandbox.addresses["binance"]["ws_url"].removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"GET /ws/btcusdt@trade HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        received = await reader.read()  # until the server hangs up
        assert received.startswith(b"\x89")  # a ping frame
        assert b"Pong timeout" in received
        writer.close()

    _run(test, speed=0, ping_interval_s=0.05, ping_timeout_s=0.1)


def test_okx_answers_a_text_ping_and_closes_a_socket_to_which_nothing_is_sent() -> None:
    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "okx", "/ws/v5/public"), ping_interval=0.05) as ws:
            for _ in range(4):  # longer than the timeout in all: text pings keep it, WebSocket pings do not
                await ws.send("ping")
                assert await ws.recv() == "pong"
                await asyncio.sleep(0.2)
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 4004

    _run(test, speed=0, idle_s=0.5)


def test_okx_snapshot_follows_its_ack_and_resubscribing_gives_a_fresh_one() -> None:
    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "okx", "/ws/v5/public")) as ws:
            await ws.send(_subscribe("books"))
            ack, snapshot = json.loads(await ws.recv()), json.loads(await ws.recv())
            assert (ack["event"], snapshot["action"]) == ("subscribe", "snapshot")
            update = json.loads(await ws.recv())
            assert update["data"][0]["prevSeqId"] == snapshot["data"][0]["seqId"]
            await ws.send(_subscribe("books").replace("subscribe", "unsubscribe"))
            await _next(ws, lambda frame: frame.get("event") == "unsubscribe")
            await ws.send(_subscribe("books"))
            assert json.loads(await ws.recv())["event"] == "subscribe"
            again = json.loads(await ws.recv())
            assert (again["action"], again["data"][0]["prevSeqId"]) == ("snapshot", -1)
            assert again["data"][0]["seqId"] > snapshot["data"][0]["seqId"]

    _run(test)


def test_okx_book_that_stands_still_sends_heartbeats() -> None:
    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "okx", "/ws/v5/public")) as ws:
            await ws.send(_subscribe("books"))
            await ws.recv()
            last = json.loads(await ws.recv())["data"][0]["seqId"]
            for _ in range(2):
                data = json.loads(await ws.recv())["data"][0]
                assert (data["asks"], data["bids"], data["seqId"], data["prevSeqId"]) == ([], [], last, last)

    _run(test, speed=0, heartbeat_s=0.2)


def test_withheld_diff_leaves_a_gap_on_every_connection_of_that_stream(tmp_path: Path) -> None:
    async def gap(sandbox: Sandbox) -> tuple[int, int]:
        async with connect(_url(sandbox, "binance", "/ws/btcusdt@depth@100ms")) as ws:
            last = json.loads(await ws.recv())["u"]
            while True:
                diff = json.loads(await ws.recv())
                if diff["U"] != last + 1:
                    return last + 1, diff["U"] - 1
                last = diff["u"]

    async def test(sandbox: Sandbox) -> list[tuple[int, int]]:
        return list(await asyncio.gather(gap(sandbox), gap(sandbox)))

    gaps = _run(test, drop=(0.5,), truth=tmp_path)
    (dropped,) = [frame for frame in read_truth(tmp_path).dropped if frame.venue == "binance"]
    assert gaps == [(dropped.first_id, dropped.last_id)] * 2


def test_truth_is_what_clients_received_and_sent_frame_by_frame(tmp_path: Path) -> None:
    received: dict[int, list[str]] = {1: [], 2: []}

    async def test(sandbox: Sandbox) -> None:
        async with connect(
            _url(sandbox, "binance", "/stream?streams=btcusdt@trade/btcusdt@depth@100ms")
        ) as ws:
            received[1] = [str(await ws.recv()) for _ in range(30)]
        async with connect(_url(sandbox, "okx", "/ws/v5/public")) as ws:
            await ws.send(_subscribe("books", "trades", "bbo-tbt"))
            received[2] = [str(await ws.recv()) for _ in range(60)]
        await _get(sandbox, "binance", "/api/v3/ping")

    _run(test, truth=tmp_path)
    truth = read_truth(tmp_path)
    for number, frames in received.items():
        assert [frame.frame for frame in truth.frames if frame.conn == number][: len(frames)] == frames
    assert [(text.venue, text.conn) for text in truth.received] == [("okx", 2)]
    assert [(answer.venue, answer.target, answer.body) for answer in truth.rest] == [
        ("binance", "/api/v3/ping", "{}")
    ]


def test_two_sandboxes_of_one_seed_have_the_same_market() -> None:
    async def test(sandbox: Sandbox) -> str:
        return (await _get(sandbox, "binance", "/api/v3/depth?symbol=ETHUSDT")).text

    assert _run(test, speed=0, seed=5) == _run(test, speed=0, seed=5) != _run(test, speed=0, seed=6)


def test_port_that_is_taken_is_a_sentence() -> None:
    async def never(sandbox: Sandbox) -> None:
        raise AssertionError("the sandbox listens on a taken port")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(VenueError, match="cannot listen"):
            _run(never, port=port, speed=0)


def test_error_of_the_body_comes_out_as_it_is() -> None:
    async def test(sandbox: Sandbox) -> None:
        raise KeyError("a test's own")

    with pytest.raises(KeyError, match="a test's own"):
        _run(test, speed=0)


def test_failure_of_the_market_ends_the_sandbox_instead_of_leaving_it_silent() -> None:
    async def test(sandbox: Sandbox) -> None:
        def broken(now_ns: int) -> int:
            raise RuntimeError("the market broke")

        sandbox._desks[0].publish_due = broken  # type: ignore[method-assign]
        await asyncio.sleep(_PATIENCE_S)

    with pytest.raises(RuntimeError, match="the market broke"):
        _run(test, speed=0)


# ---------------------------------------------------------------------------------------- playback


def _trade(n: int, padding: int) -> str:
    data = f'{{"e":"trade","t":{n},"p":"1.50000000","q":"0.02000000","pad":"{"x" * padding}"}}'
    return f'{{"stream":"btcusdt@trade","data":{data}}}'


def _capture(path: Path, step_ns: int, count: int, padding: int = 0) -> list[str]:
    frames = [_trade(n, padding) for n in range(count)]
    lines = [f"{1_723_161_253_000_000_000 + n * step_ns} {frame}" for n, frame in enumerate(frames)]
    snapshot = '{"lastUpdateId":77,"bids":[["1.50000000","0.02000000"]],"asks":[]}'
    lines.insert(1, f"1723161253000000001 {snapshot}")
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    return frames


def test_playback_sends_the_recorded_bytes_at_its_pace_and_then_keeps_the_socket_open(tmp_path: Path) -> None:
    frames = _capture(tmp_path / "a.gz", 100_000_000, 11)

    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "binance", "/stream?streams=btcusdt@trade")) as ws:
            began = time.monotonic()
            assert [await ws.recv() for _ in frames] == frames
            assert 0.45 < time.monotonic() - began < 5
            await ws.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            assert json.loads(await ws.recv())["result"] == ["btcusdt@trade"]
        depth = await _get(sandbox, "binance", "/api/v3/depth?symbol=BTCUSDT&limit=5000")
        assert depth.json()["lastUpdateId"] == 77
        info = await _get(sandbox, "binance", "/api/v3/exchangeInfo?symbol=BTCUSDT")
        filters = {entry["filterType"]: entry for entry in info.json()["symbols"][0]["filters"]}
        assert filters["LOT_SIZE"]["stepSize"] == "0.02000000"

    _run(test, captures=(tmp_path / "a.gz",), pace=2.0)


def test_playback_faster_than_the_reader_waits_and_loses_nothing(tmp_path: Path) -> None:
    frames = _capture(tmp_path / "a.gz", 1_000, 3_000, padding=8_000)  # 24 MB within 3 ms

    async def test(sandbox: Sandbox) -> None:
        url = _url(sandbox, "binance", "/ws/btcusdt@trade")
        async with connect(url, max_queue=4) as ws:
            await ws.recv()
            while sandbox._backlog() < 1 << 20:  # read nothing: buffers of both sides fill
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert sandbox._backlog() < 6 << 20  # a megabyte and the pass that went over it
            for n in range(1, len(frames)):
                assert json.loads(await ws.recv())["t"] == n

    _run(test, captures=(tmp_path / "a.gz",), pace=1000.0)


def test_playback_withholds_a_recorded_diff_as_live_markets_do(tmp_path: Path) -> None:
    diff = '{"stream":"btcusdt@depth","data":{"e":"depthUpdate","U":%d,"u":%d,"b":[["1","2"]],"a":[]}}'
    frames = [diff % (n, n) for n in range(5)]
    lines = "".join(f"{n} 1 {frame}\n" for n, frame in enumerate(frames))
    (tmp_path / "a.cap").write_text("# mmdata-capture 1 {}\n" + lines)

    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "binance", "/stream?streams=btcusdt@depth")) as ws:
            assert [await ws.recv() for _ in frames[1:]] == frames[1:]

    _run(test, captures=(tmp_path / "a.cap",), drop=(0,), truth=tmp_path / "truth")
    assert [frame.frame for frame in read_truth(tmp_path / "truth").dropped] == frames[:1]


def test_playback_of_a_venue_that_the_capture_does_not_hold_refuses_its_channels(tmp_path: Path) -> None:
    _capture(tmp_path / "a.gz", 1, 2)

    async def test(sandbox: Sandbox) -> None:
        async with connect(_url(sandbox, "okx", "/ws/v5/public")) as ws:
            await ws.send(_subscribe("books"))
            assert json.loads(await ws.recv())["code"] == "60018"

    _run(test, captures=(tmp_path / "a.gz",))


# ------------------------------------------------------------------------------- its own process


@contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "mmdata.sandbox", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _addresses(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    addresses: dict[str, Any] = json.loads(process.stdout.readline())
    return addresses


def test_process_prints_one_line_of_addresses_and_dies_with_its_parents_pipe() -> None:
    with _process('{"until_eof": true, "speed": 0}') as process:
        addresses = _addresses(process)
        assert set(addresses) == {"binance", "okx", "pid"}
        assert addresses["pid"] == process.pid
        assert requests.get(addresses["okx"]["rest_url"] + "/api/v3/ping", timeout=5).text == "{}"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(_PATIENCE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_the_process_with_sockets_closed_and_the_truth_whole(
    tmp_path: Path, number: signal.Signals
) -> None:
    async def listen(url: str, process: subprocess.Popen[str]) -> list[str]:
        frames = []
        async with connect(url) as ws:
            async for frame in _until_closed(ws):
                frames.append(frame)
                if len(frames) == 100:
                    process.send_signal(number)
            assert ws.close_code == 1001
        return frames

    with _process(json.dumps({"truth": str(tmp_path)})) as process:
        url = _addresses(process)["binance"]["ws_url"] + "/stream?streams=btcusdt@bookTicker"
        frames = asyncio.run(listen(url, process))
        assert process.wait(_PATIENCE_S) == 0
    assert [frame.frame for frame in read_truth(tmp_path).frames] == frames


def test_wrong_options_end_the_process_with_status_2_and_a_sentence() -> None:
    with _process('{"sped": 3}') as process:
        assert process.wait(_PATIENCE_S) == 2
        assert process.stderr is not None
        assert "'sped' is unknown" in process.stderr.read()
