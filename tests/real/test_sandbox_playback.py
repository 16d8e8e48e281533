"""Real captures played back over real sockets: what was recorded is what a client receives, byte for byte."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import pytest
import requests
from websockets.asyncio.client import connect

from mmdata.sandbox import Sandbox, SandboxOptions

pytestmark = pytest.mark.real

_PATIENCE_S = 60


def test_binance_capture_reaches_a_client_byte_for_byte_with_its_snapshot(shared_data: Path) -> None:
    path = shared_data / "binance/btcusdt_20240808.gz"
    with gzip.open(path, "rt") as file:
        texts = [line.split(" ", 1)[1].rstrip("\n") for line in file]
    wanted = ('{"stream":"btcusdt@depth@100ms"', '{"stream":"btcusdt@trade"')
    recorded = [text for text in texts if text.startswith(wanted)]
    (snapshot,) = [text for text in texts if text.startswith('{"lastUpdateId"')]

    async def play() -> tuple[list[str], str]:
        async with Sandbox(SandboxOptions(captures=(path,), pace=2000)) as sandbox:
            urls = sandbox.addresses["binance"]
            address = "/stream?streams=btcusdt@depth@100ms/btcusdt@trade"
            async with asyncio.timeout(_PATIENCE_S), connect(urls["ws_url"] + address) as ws:
                received = [str(await ws.recv()) for _ in recorded]
            url = urls["rest_url"] + "/api/v3/depth?symbol=BTCUSDT&limit=1000"
            return received, (await asyncio.to_thread(requests.get, url, timeout=10)).text

    received, depth = asyncio.run(play())
    assert len(received) > 13_000
    assert received == recorded
    assert depth == snapshot


def test_okx_frames_of_2022_reach_a_client_byte_for_byte_from_a_capture_of_ours(
    shared_data: Path, tmp_path: Path
) -> None:
    with gzip.open(shared_data / "okx/books_20220513.log.gz", "rt") as file:
        pairs = [line.rstrip("\n").split(": ", 1) for line in file if " <" not in line]
    capture = tmp_path / "000001.cap"
    lines = [f"{stamp.replace('.', '').ljust(19, '0')} 1 {text}\n" for stamp, text in pairs]
    capture.write_text('# mmdata-capture 1 {"exchange":"okx"}\n' + "".join(lines))
    arg = '{"arg":{"channel":"%s","instId":"BTC-USDT"}'
    wanted = tuple(arg % channel for channel in ("books", "trades"))
    recorded = [text for _, text in pairs if text.startswith(wanted)]
    args = [{"channel": channel, "instId": "BTC-USDT"} for channel in ("books", "trades")]

    async def play() -> list[str]:
        async with Sandbox(SandboxOptions(captures=(capture,), pace=100)) as sandbox:
            url = sandbox.addresses["okx"]["ws_url"] + "/ws/v5/public"
            async with asyncio.timeout(_PATIENCE_S), connect(url) as ws:
                await ws.send(json.dumps({"op": "subscribe", "args": args}))
                received: list[str] = []
                while len(received) < len(recorded):
                    text = str(await ws.recv())
                    if '"event"' not in text:
                        received.append(text)
                return received

    assert len(recorded) > 100
    assert '"action":"snapshot"' in recorded[0] or '"channel":"trades"' in recorded[0]
    assert asyncio.run(play()) == recorded
