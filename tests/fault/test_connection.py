"""Connections that break while recording: what is lost is on record, and the book is whole again."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets.validation import validate
from mmdata.recorder import leg as leg_module
from mmdata.recorder.capture import FRAME, SENT, read_segment
from mmdata.recorder.config import parse_job
from mmdata.recorder.job import RecordReport, record
from tests.builders import rows
from tests.integration.conftest import ENVIRONMENT, RunningSandbox, mmdata, running_sandbox, write_job


class CuttingProxy:
    """Passes bytes on to a sandbox, and cuts every connection when told to.

    Its time begins with the first connection: how long a recorder takes to start is no matter.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._writers: list[asyncio.StreamWriter] = []
        self._cuts: list[float] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(5)

    def cut_at(self, *seconds: float) -> None:
        """Cut all connections so many seconds each after the first one came; say so before it does."""
        self._cuts += seconds

    def close(self) -> None:
        """Cut what is left, and end."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._cuts:
            self._loop.call_later(self._cuts.pop(), self._cut)
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, back]
        await asyncio.gather(self._copy(reader, back), self._copy(there, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()


@contextmanager
def proxy_to(sandbox: RunningSandbox) -> Iterator[CuttingProxy]:
    proxy = CuttingProxy(int(sandbox.addresses["okx"]["ws_url"].rpartition(":")[2]))
    try:
        yield proxy
    finally:
        proxy.close()


def venues(port: int) -> list[dict[str, Any]]:
    urls = {"rest_url": f"http://127.0.0.1:{port}", "ws_url": f"ws://127.0.0.1:{port}"}
    return [
        {"exchange": "binance", "symbols": ["BTCUSDT"], **urls},
        {"exchange": "okx", "symbols": ["BTC-USDT"], **urls},
    ]


def test_cut_connections_come_back_with_every_hole_on_record(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "truth") as sandbox, proxy_to(sandbox) as proxy:
        job = write_job(
            tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=venues(proxy.port), duration="12s"
        )
        proxy.cut_at(5.0, 8.0)
        run = mmdata("record", job, "--json")
    assert run.returncode == 0, run.stderr
    for venue in json.loads(run.stdout)["venues"]:
        assert venue["connections"] == 3
    events = rows(tmp_path / "data", "events")
    gaps = [
        json.loads(row["detail"])["cause"]
        for row in events
        if row["kind"] == "gap" and row["channel"] == "depth"
    ]
    assert gaps == ["disconnect"] * 4
    trade_gaps = [row for row in events if row["kind"] == "gap" and row["channel"] == "trades"]
    assert all(json.loads(row["detail"])["cause"] == "disconnect" for row in trade_gaps)
    assert [row["kind"] for row in events].count("disconnected") == 2 * 2 + 2
    report = validate(tmp_path / "data")
    assert report.count("error") == 0
    assert all(own.unrecorded_breaks == 0 for own in report.symbols)
    assert all(own.bbo_compared == own.bbo_equal > 0 for own in report.symbols)
    assert all(0.5 < own.valid_share < 1 for own in report.symbols)


def test_reconnect_does_not_ask_again_for_what_was_recorded_before_the_cut(tmp_path: Path) -> None:
    with running_sandbox(tmp_path / "truth") as sandbox, proxy_to(sandbox) as proxy:
        job = write_job(
            tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=venues(proxy.port), duration="8s"
        )
        proxy.cut_at(4.0)
        assert mmdata("record", job).returncode == 0
    snapshots = {
        (row["frame"], row["reason"])
        for row in rows(tmp_path / "data", "snapshots")
        if row["ts_event"] is None
    }
    assert sorted(reason for _, reason in snapshots) == ["gap", "start"]


@pytest.fixture
def quiet_sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningSandbox]:
    """Return a sandbox whose markets stand still; what this process starts finds the wings."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    with running_sandbox(tmp_path / "truth", speed=0.0, idle_s=3.0) as running:
        yield running


def recorded(tmp_path: Path, running: RunningSandbox, duration: str) -> RecordReport:
    job = parse_job(
        {
            "root": str(tmp_path / "data"),
            "window": "none",
            "duration": duration,
            "venues": [running.venue("okx", ["BTC-USDT"])],
        },
        "test",
    )
    report = record(job)
    assert isinstance(report, RecordReport)
    return report


def test_ping_keeps_a_silent_okx_connection_alive(
    tmp_path: Path, quiet_sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg_module, "_KEEPALIVE_AFTER_S", 1.0)
    report = recorded(tmp_path, quiet_sandbox, "8s")
    assert report.venues[0].counts.connections == 1
    [path] = (tmp_path / "data/.captures/okx").glob("*/*.zst")
    lines = [*read_segment(path).lines]
    pings = [line for line in lines if line.kind == SENT and line.payload == b"ping"]
    pongs = [line for line in lines if line.kind == FRAME and line.payload == b"pong"]
    assert len(pings) == len(pongs) >= 3


@pytest.mark.long
def test_without_pings_the_venue_would_have_closed_it(tmp_path: Path, quiet_sandbox: RunningSandbox) -> None:
    """The counterpart: the sandbox really closes an idle socket, as the venue does."""
    report = recorded(tmp_path, quiet_sandbox, "10s")
    assert report.venues[0].counts.connections >= 2


@pytest.mark.parametrize(
    ("exchange", "symbol", "patience", "says"),
    [
        ("okx", "BTC-USDT", "_KEEPALIVE_AFTER_S", [b"ping"]),
        ("binance", "BTCUSDT", "_SILENT_AFTER_S", []),
    ],
)
@pytest.mark.long
def test_socket_that_stays_open_and_says_nothing_is_left_for_another(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    exchange: str,
    symbol: str,
    patience: str,
    says: list[bytes],
) -> None:
    """The venue's end holds the connection, and answers nothing: no data, no pong, no close."""
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    monkeypatch.setattr(leg_module, patience, 1.0)
    faults = [
        {"kind": "stall", "at": "2s", "for": "1h", "lose": True, "venue": exchange},
        {"kind": "ignore_ping", "at": "2s", "venue": "okx"},
    ]
    with running_sandbox(tmp_path / "truth", faults=faults) as running:
        job = {
            "root": str(tmp_path / "data"),
            "window": "none",
            "duration": "10s",
            "venues": [running.venue(exchange, [symbol])],
        }
        report = record(parse_job(job, "test"))
    assert isinstance(report, RecordReport)
    assert report.venues[0].counts.connections == 2
    [path] = (tmp_path / f"data/.captures/{exchange}").glob("*/*.zst")
    lines = [*read_segment(path).lines]
    # What was said to the silent one: its subscription, and one ping where the venue wants to be pinged.
    first = [line for line in lines if line.conn == 0]
    last_frame = max(line.number for line in first if line.kind == FRAME)
    assert [line.payload for line in first if line.kind == SENT and line.number > last_frame] == says
    assert {line.conn for line in lines if line.kind == FRAME} == {0, 1}
    events = rows(tmp_path / "data", "events")
    ended = [json.loads(event["detail"])["reason"] for event in events if event["kind"] == "disconnected"]
    assert ended[0].startswith("nothing came for "), ended
    gaps = [event for event in events if event["kind"] == "gap" and event["channel"] == "depth"]
    assert [json.loads(gap["detail"])["cause"] for gap in gaps] == ["disconnect"]
    found = validate(tmp_path / "data")
    assert found.count("error") == 0
    assert all(own.unrecorded_breaks == 0 for own in found.symbols)
