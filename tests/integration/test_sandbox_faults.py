"""Every kind of fault over real sockets, seen by a plain client, and explained by the truth."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from mmdata.datasets.errors import ConfigError, UsageError
from mmdata.sandbox import Sandbox, SandboxOptions, Truth, read_truth
from mmdata.sandbox.faults import KINDS, FaultRecord
from tests.integration.conftest import mmdata

pytestmark = pytest.mark.long

_PATIENCE_S = 60
_Result = TypeVar("_Result")
_REPOSITORY = Path(__file__).parents[2]
_DEPTH = "/stream?streams=btcusdt@depth@100ms"


@pytest.fixture
def truth_folder(tmp_path: Path) -> Path:
    return tmp_path / "truth"


def _run(
    test: Callable[[Sandbox], Coroutine[Any, Any, _Result]],
    truth: Path,
    *faults: dict[str, Any],
    **options: Any,
) -> tuple[_Result, Truth]:
    """Run a client against a sandbox with faults; return what it saw, and the truth."""

    async def inside() -> _Result:
        scripted = SandboxOptions(faults=list(faults), truth=truth, **options)
        async with Sandbox(scripted) as sandbox, asyncio.timeout(_PATIENCE_S):
            return await test(sandbox)

    return asyncio.run(inside()), read_truth(truth)


def _url(sandbox: Sandbox, path: str) -> str:
    return sandbox.addresses["binance"]["ws_url"] + path


async def _get(sandbox: Sandbox, path: str) -> requests.Response:
    url = sandbox.addresses["binance"]["rest_url"] + path
    return await asyncio.to_thread(requests.get, url, timeout=_PATIENCE_S)


async def _listen(ws: ClientConnection, count: int) -> list[str]:
    """Return so many frames, or fewer when the connection ends before."""
    frames: list[str] = []
    try:
        while len(frames) < count:
            frames.append(str(await ws.recv()))
    except ConnectionClosed:
        pass
    return frames


async def _okx(ws: ClientConnection, *channels: str) -> None:
    args = [{"channel": channel, "instId": "BTC-USDT"} for channel in channels]
    await ws.send(json.dumps({"op": "subscribe", "args": args}))


def _sent(truth: Truth, conn: int = 1) -> list[str]:
    return [frame.frame for frame in truth.frames if frame.conn == conn]


def _of(truth: Truth, kind: str) -> list[FaultRecord]:
    return [record for record in truth.faults if record.kind == kind]


def _listener(path: str, count: int) -> Callable[[Sandbox], Coroutine[Any, Any, list[str]]]:
    async def test(sandbox: Sandbox) -> list[str]:
        async with connect(_url(sandbox, path), max_size=None) as ws:
            return await _listen(ws, count)

    return test


def _ids(frames: list[str]) -> list[tuple[int, int]]:
    return [(diff["U"], diff["u"]) for diff in (json.loads(frame)["data"] for frame in frames)]


# ------------------------------------------------------------------------------------------- frames


def test_dropped_frame_is_a_gap_that_the_truth_explains(truth_folder: Path) -> None:
    frames, truth = _run(_listener(_DEPTH, 6), truth_folder, {"kind": "drop", "at_message": 3})
    assert _sent(truth)[:6] == frames
    [record] = _of(truth, "drop")
    [(before, after)] = [(a, b) for a, b in pairwise(_ids(frames)) if b[0] != a[1] + 1]
    assert record.ids == (before[1] + 1, after[0] - 1)
    assert record.ts <= truth.frames[2].ts


def test_dropped_for_all_is_dropped_on_two_sockets_and_else_on_one(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[list[str], list[str]]:
        async with connect(_url(sandbox, _DEPTH)) as one, connect(_url(sandbox, _DEPTH)) as two:
            return await _listen(one, 12), await _listen(two, 12)

    _, truth = _run(
        test,
        truth_folder,
        {"kind": "drop", "at_message": 4, "all": True},
        {"kind": "drop", "at_message": 8},
    )
    of_all, own = [r for r in truth.faults if r.fault == 0], [r for r in truth.faults if r.fault == 1]
    assert {record.ids for record in of_all} == {of_all[0].ids}
    assert len(own) == 1


@pytest.mark.parametrize(
    ("fault", "is_so"),
    [
        ({"kind": "truncate"}, lambda frame, as_it_was: as_it_was.startswith(frame) and frame != as_it_was),
        ({"kind": "invalid_json"}, lambda frame, as_it_was: len(frame) == len(as_it_was) - 1),
        ({"kind": "unknown_field"}, lambda frame, as_it_was: json.loads(frame)["data"]["xf"] == "new"),
        (
            {"kind": "wrong_type", "field": "u"},
            lambda frame, as_it_was: (
                json.loads(frame)["data"]["u"] == str(json.loads(as_it_was)["data"]["u"])
            ),
        ),
        ({"kind": "oversize", "size": "17MiB"}, lambda frame, as_it_was: len(frame) == 17 << 20),
    ],
)
def test_altered_frame_is_sent_as_the_truth_says(
    truth_folder: Path, fault: dict[str, Any], is_so: Callable[[str, str], bool]
) -> None:
    frames, truth = _run(_listener(_DEPTH, 4), truth_folder, {**fault, "at_message": 2})
    assert _sent(truth)[:4] == frames
    [record] = _of(truth, fault["kind"])
    assert is_so(frames[1], record.frame)
    whole = [frames[0], record.frame, *frames[2:]]
    assert all(b[0] == a[1] + 1 for a, b in pairwise(_ids(whole)))


def test_oversized_frame_ends_a_client_with_the_usual_limit(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[int, int | None]:
        async with connect(_url(sandbox, _DEPTH), max_size=16 << 20) as ws:
            count = len(await _listen(ws, 9))
            return count, ws.protocol.close_sent.code if ws.protocol.close_sent else None

    (count, code), _ = _run(test, truth_folder, {"kind": "oversize", "at_message": 2})
    assert (count, code) == (1, 1009)


def test_duplicate_and_reorder_change_the_order_and_lose_nothing(truth_folder: Path) -> None:
    frames, truth = _run(
        _listener(_DEPTH, 8),
        truth_folder,
        {"kind": "duplicate", "at_message": 2},
        {"kind": "reorder", "at_message": 5},
    )
    assert _sent(truth)[:8] == frames
    assert frames[1] == frames[2]
    ids = _ids(frames)
    assert ids[5] > ids[6] > ids[4]
    whole = sorted(set(ids))
    assert all(b[0] == a[1] + 1 for a, b in pairwise(whole))


def test_delayed_frame_holds_the_next_ones_or_is_overtaken(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> list[str]:
        async with connect(_url(sandbox, _DEPTH)) as ws:
            return await _listen(ws, 20)

    frames, truth = _run(
        test,
        truth_folder,
        {"kind": "delay", "at_message": 2, "by": "400ms"},
        {"kind": "delay", "at_message": 9, "by": "400ms", "keep_order": False},
    )
    ids = _ids(frames)
    held = _of(truth, "delay")[1].ids
    assert held is not None
    overtaken = ids.index(held)
    assert ids[:overtaken] == sorted(ids[:overtaken])
    assert ids[overtaken - 1] > ids[overtaken]
    assert truth.frames[1].ts - _of(truth, "delay")[0].ts >= 400_000_000


# --------------------------------------------------------------------------------------- connections


@pytest.mark.parametrize("lose", [False, True])
def test_stalled_socket_stays_open_and_silent(truth_folder: Path, lose: bool) -> None:
    fault = {"kind": "stall", "at_message": 2, "for": "600ms", "lose": lose}
    frames, truth = _run(_listener(_DEPTH, 6), truth_folder, fault)
    assert _sent(truth)[:6] == frames
    struck = _of(truth, "stall")[0]
    assert all(not struck.ts < frame.ts < struck.ts + 600_000_000 for frame in truth.frames)
    chained = all(b[0] == a[1] + 1 for a, b in pairwise(_ids(frames)))
    assert chained is not lose
    lost = [record.frame for record in _of(truth, "stall") if record.frame]
    whole = sorted(_ids(frames + lost))
    assert all(b[0] == a[1] + 1 for a, b in pairwise(whole))
    assert bool(lost) is lose


def test_socket_is_closed_with_a_close_frame(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[list[str], int | None, str | None]:
        async with connect(_url(sandbox, _DEPTH)) as ws:
            return await _listen(ws, 99), ws.close_code, ws.close_reason

    fault = {"kind": "close", "at_message": 3, "code": 1012, "reason": "restart"}
    (frames, *closed), truth = _run(test, truth_folder, fault)
    assert (len(frames), closed) == (3, [1012, "restart"])
    assert _sent(truth) == frames


def test_socket_is_cut_without_a_close_frame(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[list[str], int | None]:
        async with connect(_url(sandbox, _DEPTH)) as ws:
            return await _listen(ws, 99), ws.close_code

    (frames, code), truth = _run(test, truth_folder, {"kind": "abort", "at_message": 3})
    assert code == 1006
    assert _sent(truth)[: len(frames)] == frames
    assert [record.note for record in truth.faults] == ["cut off"]


@pytest.mark.parametrize(
    ("path", "shape", "notice"),
    [
        ("/ws/btcusdt@depth@100ms", "auto", {"e": "serverShutdown", "E": 0}),
        (
            _DEPTH,
            "auto",
            {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 0}},
        ),
        (_DEPTH, "raw", {"e": "serverShutdown", "E": 0}),
        (_DEPTH, "event", {"event": {"e": "serverShutdown", "E": 0}}),
    ],
)
def test_binance_announces_its_shutdown_in_each_shape_and_closes(
    truth_folder: Path, path: str, shape: str, notice: dict[str, Any]
) -> None:
    fault = {"kind": "server_shutdown", "at_message": 2, "shape": shape, "close_after": "300ms"}
    frames, truth = _run(_listener(path, 99), truth_folder, fault)
    assert _sent(truth) == frames
    announced = json.loads(frames[2])
    bare = announced.get("data", announced.get("event", announced))
    assert abs(bare["E"] - time.time() * 1000) < 60_000
    bare["E"] = 0
    assert announced == notice
    assert 3 <= len(frames) < 20  # the close came


def test_okx_announces_its_upgrade_and_closes(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> list[Any]:
        async with connect(_url(sandbox, "/ws/v5/public")) as ws:
            await _okx(ws, "books")
            return [json.loads(frame) for frame in await _listen(ws, 99)]

    frames, _ = _run(test, truth_folder, {"kind": "notice", "at_message": 2, "close_after": "300ms"})
    [at] = [n for n, frame in enumerate(frames) if frame.get("event") == "notice"]
    assert list(frames[at]) == ["event", "code", "msg", "connId"]
    assert (frames[at]["code"], frames[at]["connId"]) == ("64008", frames[0]["connId"])
    assert at == 3  # ack, snapshot, update


def test_okx_ignores_a_ping(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> list[str]:
        async with connect(_url(sandbox, "/ws/v5/public")) as ws:
            await ws.send("ping")
            first = str(await ws.recv())
            await _okx(ws, "bbo-tbt")
            await _listen(ws, 2)
            await ws.send("ping")
            await ws.send('{"op":"unsubscribe","args":[{"channel":"bbo-tbt","instId":"BTC-USDT"}]}')
            return [first, *await _listen(ws, 1)]

    fault = {"kind": "ignore_ping", "at_message": 1}
    (pong, answer), truth = _run(test, truth_folder, fault, speed=0)
    assert pong == "pong"
    assert json.loads(answer)["event"] == "unsubscribe"
    assert [record.note for record in truth.faults][1:] == ["a ping was not answered"]


def test_binance_stops_its_pings(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> float:
        host, port = sandbox.addresses["binance"]["ws_url"].removeprefix("ws://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        began = time.monotonic()
        writer.write(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        assert (await reader.readexactly(6)).startswith(b"\x89")  # a ping frame, at last
        writer.close()
        return time.monotonic() - began

    fault = {"kind": "stop_pings", "at": "0s", "for": "1s"}
    waited, truth = _run(test, truth_folder, fault, speed=0, ping_interval_s=0.1)
    assert waited >= 1
    assert [record.kind for record in truth.faults] == ["stop_pings"]


# ------------------------------------------------------------------------------- venue and handshake


def test_clock_step_is_in_every_stamp_and_in_the_time_endpoint(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[list[str], int, int]:
        before = (await _get(sandbox, "/api/v3/time")).json()["serverTime"]
        async with connect(_url(sandbox, _DEPTH)) as ws:
            frames = await _listen(ws, 6)
        after = (await _get(sandbox, "/api/v3/time")).json()["serverTime"]
        return frames, before, after

    (frames, before, after), truth = _run(
        test, truth_folder, {"kind": "clock_step", "at_message": 3, "by": "-100s", "venue": "binance"}
    )
    times = [json.loads(frame)["data"]["E"] for frame in frames]
    [back] = [n for n, (a, b) in enumerate(pairwise(times)) if b < a]
    assert back == 2
    assert -100_000 < after - before < -40_000
    assert all(b[0] == a[1] + 1 for a, b in pairwise(_ids(frames)))
    assert truth.frames[3].ts > truth.frames[2].ts


def test_okx_ids_go_down_and_the_chain_still_links(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[list[Any], int]:
        async with connect(_url(sandbox, "/ws/v5/public")) as ws:
            await _okx(ws, "books")
            frames = [json.loads(frame) for frame in await _listen(ws, 9)][1:]
        books = await _get(sandbox, "/api/v5/market/books?instId=BTC-USDT&sz=400")
        return [frame["data"][0] for frame in frames], books.json()["data"][0]["seqId"]

    fault = {"kind": "id_reset", "at_message": 3, "venue": "okx"}
    (books, seq_id), truth = _run(test, truth_folder, fault)
    assert all(b["prevSeqId"] == a["seqId"] for a, b in pairwise(books))
    downs = [b for b in books[1:] if b["seqId"] < b["prevSeqId"]]
    assert len(downs) == 1
    assert seq_id < books[0]["seqId"]
    for book in books[1:]:
        assert truth.book("okx", "BTC-USDT", book["seqId"]).bids


def test_binance_ids_start_anew_and_history_is_forgotten(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> tuple[list[str], Any, Any]:
        async with connect(_url(sandbox, _DEPTH)) as ws:
            frames = await _listen(ws, 7)
        depth = (await _get(sandbox, "/api/v3/depth?symbol=BTCUSDT")).json()
        trades = (await _get(sandbox, "/api/v3/trades?symbol=BTCUSDT")).json()
        return frames, depth, trades

    (frames, depth, trades), _ = _run(
        test, truth_folder, {"kind": "id_reset", "at_message": 3, "symbol": "BTCUSDT"}
    )
    ids = _ids(frames)
    assert [b[0] - a[1] for a, b in pairwise(ids)] == [1, 1, 1 - 1_000_000, 1, 1, 1]
    assert depth["lastUpdateId"] >= ids[-1][1]
    assert depth["lastUpdateId"] < ids[0][0]
    assert all(trade["id"] < 3_735_683_000 for trade in trades)


@pytest.mark.parametrize(("how", "error"), [("http", InvalidStatus), ("reset", InvalidMessage)])
def test_handshake_is_refused(truth_folder: Path, how: str, error: type[Exception]) -> None:
    async def test(sandbox: Sandbox) -> None:
        with pytest.raises((error, ConnectionError)) as caught:
            await connect(_url(sandbox, _DEPTH))
        if isinstance(caught.value, InvalidStatus):
            assert caught.value.response.status_code == 503
        async with connect(_url(sandbox, _DEPTH)) as ws:
            assert await _listen(ws, 1)

    _, truth = _run(test, truth_folder, {"kind": "refuse", "at_message": 1, "how": how, "venue": "binance"})
    assert [record.kind for record in truth.faults] == ["refuse"]


# --------------------------------------------------------------------------------------------- REST


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/v3/depth?symbol=BTCUSDT", 429, -1003),
        ("/api/v3/depth?symbol=BTCUSDT", 418, -1003),
        ("/api/v3/time", 503, -1001),
        ("/api/v3/time", 504, -1007),
        ("/api/v5/market/books?instId=BTC-USDT", 429, "50011"),
        ("/api/v5/public/time", 503, "50001"),
    ],
)
def test_rest_error_comes_with_the_venues_words_and_retry_after(
    truth_folder: Path, path: str, status: int, code: object
) -> None:
    async def test(sandbox: Sandbox) -> None:
        refused = await _get(sandbox, path)
        assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert refused.headers["Retry-After"] == "2"
        assert (await _get(sandbox, path)).status_code == 200

    fault = {"kind": "rest_error", "at_message": 1, "status": status, "retry_after": "1.5s"}
    _, truth = _run(test, truth_folder, fault, speed=0)
    assert [answer.status for answer in truth.rest] == [status, 200]


def test_slow_answer_is_made_at_once_and_arrives_later(truth_folder: Path) -> None:
    async def test(sandbox: Sandbox) -> float:
        began = time.monotonic()
        assert (await _get(sandbox, "/api/v3/time")).status_code == 200
        return time.monotonic() - began

    took, truth = _run(test, truth_folder, {"kind": "rest_slow", "at": "0s", "by": "700ms"}, speed=0)
    assert took >= 0.7
    assert [record.kind for record in truth.faults] == ["rest_slow"]


@pytest.mark.parametrize(
    ("path", "book_id"),
    [
        ("/api/v3/depth?symbol=BTCUSDT&limit=5", lambda answer: answer["lastUpdateId"]),
        ("/api/v5/market/books?instId=BTC-USDT&sz=5", lambda answer: answer["data"][0]["seqId"]),
    ],
)
def test_stale_book_is_older_than_the_one_before(
    truth_folder: Path, path: str, book_id: Callable[[Any], int]
) -> None:
    async def test(sandbox: Sandbox) -> tuple[int, int, int]:
        async with connect(_url(sandbox, _DEPTH)) as ws:
            await _listen(ws, 12)
        fresh, stale, again = [(await _get(sandbox, path)).json() for _ in range(3)]
        levels = stale.get("bids") or stale["data"][0]["bids"]
        assert len(levels) == 5
        return book_id(fresh), book_id(stale), book_id(again)

    (fresh, stale, again), _ = _run(
        test, truth_folder, {"kind": "rest_stale", "at_message": 2, "by": "500ms"}
    )
    assert stale < fresh <= again


@pytest.mark.parametrize("venue", ["binance", "okx"])
def test_book_ahead_of_its_stream_is_reached_later_without_a_gap(truth_folder: Path, venue: str) -> None:
    async def binance(sandbox: Sandbox) -> tuple[int, list[tuple[int, int]]]:
        async with connect(_url(sandbox, _DEPTH)) as ws:
            frames = await _listen(ws, 2)
            body = (await _get(sandbox, "/api/v3/depth?symbol=BTCUSDT")).json()
            frames += await _listen(ws, 20)
            return body["lastUpdateId"], [(first - 1, last) for first, last in _ids(frames)]

    async def okx(sandbox: Sandbox) -> tuple[int, list[tuple[int, int]]]:
        async with connect(_url(sandbox, "/ws/v5/public")) as ws:
            await _okx(ws, "books")
            frames = await _listen(ws, 4)
            body = (await _get(sandbox, "/api/v5/market/books?instId=BTC-USDT")).json()
            frames += await _listen(ws, 20)
            books = [json.loads(frame)["data"][0] for frame in frames[1:]]
            return body["data"][0]["seqId"], [(book["prevSeqId"], book["seqId"]) for book in books]

    fault = {"kind": "rest_ahead", "at_message": 1, "by": "1s"}
    (snapshot_id, chain), truth = _run(binance if venue == "binance" else okx, truth_folder, fault)
    assert all(after[0] == before[1] for before, after in pairwise(chain))
    [record] = _of(truth, "rest_ahead")
    early = sum(1 for frame in truth.frames if frame.ts <= record.ts) - (venue == "okx")
    assert all(not record.ts < frame.ts < record.ts + 1_000_000_000 for frame in truth.frames)
    assert chain[early - 1][1] < snapshot_id <= chain[-1][1]


# --------------------------------------------------------------------------------- scripts and truth


def test_script_that_cannot_be_used_ends_the_command_with_status_2(tmp_path: Path) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("faults:\n- {kind: stal, at: 5s}\n", encoding="utf-8")
    run = mmdata("sandbox", "--port", "0", "--faults", path)
    assert run.returncode == 2
    assert "faults[0]: kind: found 'stal' (did you mean stall?)" in run.stderr
    with pytest.raises(ConfigError, match="stall"):
        Sandbox(SandboxOptions(faults=path))


def test_what_a_recording_cannot_do_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="clock_step or an id_reset, which need live markets"):
        Sandbox(
            SandboxOptions(
                captures=(tmp_path,), faults=[{"kind": "clock_step", "at": "1s", "by": "1s", "venue": "okx"}]
            )
        )


def _hurried(speed: int) -> dict[str, Any]:
    """Return the example with its ten minutes made so much shorter."""
    import yaml

    script: dict[str, Any] = yaml.safe_load(
        (_REPOSITORY / "examples" / "faults.yaml").read_text(encoding="utf-8")
    )

    def shorter(text: str) -> str:
        unit = "ms" if text.endswith("ms") else text[-1]
        ms = float(text.removesuffix(unit)) * {"ms": 1, "s": 1000, "m": 60_000}[unit]
        return f"{ms / speed:.3f}ms"

    for fault in script["faults"]:
        for key in ("at", "every", "jitter", "for", "close_after"):
            if key in fault:
                fault[key] = shorter(fault[key])
        if fault["kind"] in ("delay", "rest_slow", "rest_stale", "rest_ahead"):
            fault["by"] = shorter(fault["by"])
    return script


async def _keep_listening(sandbox: Sandbox, path: str, received: list[list[str]]) -> None:
    """Listen, and come back whenever thrown out; each connection adds a list of its frames."""
    while True:
        frames: list[str] = []
        try:
            async with connect(_url(sandbox, path), max_size=None) as ws:
                received.append(frames)
                if "v5" in path:
                    await _okx(ws, "books", "trades", "bbo-tbt")
                async for frame in ws:
                    frames.append(str(frame))
                    if "v5" in path and len(frames) % 40 == 0:
                        await ws.send("ping")
        except (ConnectionClosed, InvalidStatus, InvalidMessage, OSError):
            await asyncio.sleep(0.02)


async def _keep_asking(sandbox: Sandbox) -> None:
    while True:
        await _get(sandbox, "/api/v3/depth?symbol=BTCUSDT&limit=10")
        await asyncio.sleep(0.1)
        await _get(sandbox, "/api/v5/market/books?instId=BTC-USDT&sz=10")


def test_example_in_a_hurry_strikes_with_every_kind_and_all_that_arrives_is_what_was_sent(
    truth_folder: Path,
) -> None:
    """The example's ten minutes in twelve seconds, and four clients that always come back."""
    received: dict[str, list[list[str]]] = {"/ws/v5/public": [], _DEPTH + "/btcusdt@trade": []}

    async def test() -> None:
        options = SandboxOptions(faults=_hurried(50), truth=truth_folder, speed=10, ping_interval_s=0.2)
        async with Sandbox(options) as sandbox:
            work = [_keep_listening(sandbox, path, received[path]) for path in [*received, *received]]
            tasks = [asyncio.create_task(each) for each in (*work, _keep_asking(sandbox))]
            done, _ = await asyncio.wait(tasks, timeout=13, return_when=asyncio.FIRST_COMPLETED)
            assert not done, [task.exception() for task in done]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(test())
    truth = read_truth(truth_folder)
    assert {record.kind for record in truth.faults} >= set(KINDS)
    for path, streams in received.items():
        sent = [_sent(truth, conn) for conn in {frame.conn for frame in truth.frames if frame.path == path}]
        for frames in streams:
            assert not frames or any(each[: len(frames)] == frames for each in sent)


def test_command_serves_with_faults_until_it_is_told_to_stop(tmp_path: Path, sandbox: Any) -> None:
    path = tmp_path / "faults.yaml"
    path.write_text("- {kind: rest_error, at_message: 1, status: 429, retry_after: 3s}\n", encoding="utf-8")
    running = sandbox(faults=str(path), speed=0)
    answer = requests.get(running.addresses["binance"]["rest_url"] + "/api/v3/ping", timeout=10)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
