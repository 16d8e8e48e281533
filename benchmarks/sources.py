"""Where the frames of a benchmark come from: the real captures, or a stretch of the sandbox exchange."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import requests
from websockets.asyncio.client import connect

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MMDATA_SHARED") or REPOSITORY.parent / "shared")
REAL = [SHARED / f"data/binance/btcusdt_{day}.gz" for day in ("20240808", "20240809")]
_WINGS = ("recorder", "datasets", "replay", "sandbox", "cli")
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY, *(REPOSITORY / wing for wing in _WINGS))))
}

_STREAMS = "/".join(f"btcusdt@{channel}" for channel in ("depth@100ms", "trade", "bookTicker"))
_SANDBOX_S = 20.0
_SANDBOX_SPEED = 100.0  # of the reference world, for a book about as busy as the real one


def captures(folder: Path) -> tuple[str, list[Path]]:
    """Return what the frames are, and their files; those of the sandbox are made in ``folder``."""
    if all(path.exists() for path in REAL):
        return "real Binance frames of 2024-08-08/09", REAL
    made = folder / "sandbox.gz"
    _record_sandbox(made)
    return f"frames of the sandbox exchange ({REAL[0]} is missing)", [made]


def _record_sandbox(path: Path) -> None:
    options = json.dumps({"port": 0, "until_eof": True, "speed": _SANDBOX_SPEED})
    command = [sys.executable, "-m", "mmdata.sandbox", options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        urls = json.loads(child.stdout.readline())["binance"]
        lines = asyncio.run(_listen(urls["ws_url"], urls["rest_url"]))
        child.stdin.close()
    with gzip.open(path, "wb") as file:
        file.writelines(b"%d %s\n" % (time.time_ns(), line) for line in lines)


async def _listen(ws_url: str, rest_url: str) -> list[bytes]:
    """Return frames, and the snapshot where it came."""
    lines: list[bytes] = []
    snapshot = f"{rest_url}/api/v3/depth?symbol=BTCUSDT&limit=1000"
    async with connect(f"{ws_url}/stream?streams={_STREAMS}", compression=None) as socket:
        lines.append(await socket.recv(decode=False))
        asking = asyncio.create_task(asyncio.to_thread(requests.get, snapshot, timeout=10))
        asking.add_done_callback(lambda task: lines.append(task.result().content))
        try:
            async with asyncio.timeout(_SANDBOX_S):
                while True:
                    lines.append(await socket.recv(decode=False))
        except TimeoutError:
            return lines
