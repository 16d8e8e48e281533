"""Records both venues by the real command while everything goes wrong that the sandbox can do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.explain.script import scaled
from tests.integration.conftest import mmdata, running_sandbox, write_job

SYMBOLS = {"binance": ["BTCUSDT", "ETHUSDT"], "okx": ["BTC-USDT", "ETH-USDT"]}
QUIET_S = 20.0
"""After the last fault: time to be whole again."""
_SPEED = 10.0


@dataclass(frozen=True)
class Run:
    """What a run left, and the answer of the command."""

    root: Path
    truth: Path
    script: dict[str, Any]
    told: dict[str, Any]
    said: str


def record(folder: Path, *, seconds: float, seed: int, connections: int) -> Run:
    """Record for ``seconds`` in an empty folder. AssertionError: the recorder did not end well."""
    script = scaled(seed, seconds - QUIET_S)
    with running_sandbox(folder / "truth", seed=seed, speed=_SPEED, faults=script) as sandbox:
        venues = [sandbox.venue(exchange, symbols) for exchange, symbols in SYMBOLS.items()]
        job = write_job(
            folder / "job.yaml",
            root=str(folder / "data"),
            venues=venues,
            connections=connections,
            duration=f"{round(seconds)}s",
            segment={"seconds": "5s", "bytes": "64MiB"},
            audit_interval="20s",
        )
        done = mmdata("record", job, "--json")
    (folder / "recorder.log").write_text(done.stderr, encoding="utf-8")
    assert done.returncode == 0, f"the recorder ended with {done.returncode}: {done.stderr}"
    return Run(folder / "data", folder / "truth", script, json.loads(done.stdout), done.stderr)
