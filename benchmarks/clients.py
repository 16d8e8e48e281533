"""The recorders that are compared, each in a process of its own, and the feed that all of them are given."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from benchmarks.sources import ENVIRONMENT, REPOSITORY

MMDATA, CRYPTOFEED, LOB_STREAM = "mmdata", "cryptofeed", "crypto-lob-stream"
RIVALS_PYTHON = REPOSITORY / ".venv-rivals/bin/python"
_DRIVERS = Path(__file__).parent / "rivals"


@dataclass
class FeedProcess:
    """A running feed: commands go in, answers come out."""

    child: subprocess.Popen[bytes]
    port: int

    def send(self, count: int, rate: float | None) -> dict[str, Any]:
        """Send so many frames, ``rate`` a second; return how many were sent before the client hung up.

        TimeoutError: no client has come.
        """
        answer = self._ask({"send": count, "rate": rate})
        if "error" in answer:
            raise TimeoutError(answer["error"])
        return answer

    def book(self) -> dict[str, Any]:
        """Return the best bid and ask after the last frame, and how many frames of each stream were sent."""
        return self._ask({"book": True})

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(command).encode() + b"\n")
        self.child.stdin.flush()
        answer: dict[str, Any] = json.loads(self.child.stdout.readline())
        return answer


@contextlib.contextmanager
def running_feed(captures: Sequence[Path], streams: Sequence[str], core: int | None) -> Iterator[FeedProcess]:
    """Run a feed of some streams until the block ends."""
    options = [part for path in captures for part in ("--capture", str(path))]
    command = [sys.executable, "-m", "benchmarks.feed", "--streams", ",".join(streams), *options]
    with subprocess.Popen(
        pinned(command, core), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        yield FeedProcess(child, json.loads(child.stdout.readline())["port"])
        child.stdin.close()


@dataclass
class Client:
    """A recorder that is running, and what it said when it ended."""

    name: str
    folder: Path
    child: subprocess.Popen[bytes]
    ending: signal.Signals
    log: IO[bytes]
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def pid(self) -> int:
        """Process id of the recorder itself."""
        return self.child.pid

    def stop(self, within_s: float = 120.0) -> None:
        """End it as its users do, and read its report. RuntimeError: it ended badly."""
        self.child.send_signal(self.ending)
        said, _ = self.child.communicate(timeout=within_s)
        if self.child.returncode != 0:
            raise RuntimeError(f"{self.name} ended with {self.child.returncode}; its log is {self.log.name}")
        self.report = json.loads(said.splitlines()[-1])


@contextlib.contextmanager
def running_client(
    name: str,
    port: int,
    streams: Sequence[str],
    folder: Path,
    *,
    core: int | None,
    settings: Mapping[str, Any],
    book: bool = False,
) -> Iterator[Client]:
    """Run a recorder against a feed until the block ends.

    ``settings`` are of our job; ``book``: crypto-lob-stream is to rebuild its book at the end, too.
    """
    folder.mkdir(parents=True)
    host = f"127.0.0.1:{port}"
    ending = signal.SIGTERM
    if name == MMDATA:
        job = {
            "root": str(folder / "data"),
            "venues": [
                {
                    "exchange": "binance",
                    "symbols": ["BTCUSDT"],
                    "channels": [*streams],
                    "rest_url": f"http://{host}",
                    "ws_url": f"ws://{host}",
                }
            ],
            "window": "none",
            **settings,
        }
        config = folder / "job.yaml"
        config.write_text(json.dumps(job))  # JSON is YAML
        command = [sys.executable, "-m", "mmdata.cli.main", "record", str(config), "--json"]
    elif name == CRYPTOFEED:
        command = [str(RIVALS_PYTHON), str(_DRIVERS / "run_cryptofeed.py"), host]
    else:
        script = str(_DRIVERS / "run_crypto_lob_stream.py")
        command = [str(RIVALS_PYTHON), script, host, str(folder / "data"), *(["book"] if book else [])]
        ending = signal.SIGINT
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            pinned(command, core), stdout=subprocess.PIPE, stderr=log, env=ENVIRONMENT, cwd=folder
        )
        try:
            yield Client(name, folder, child, ending, log)
        finally:
            child.kill()
            child.wait()


def pinned(command: Sequence[str], core: int | None) -> list[str]:
    """Return a command that runs on one core only, if one is named."""
    return [*(() if core is None else ("taskset", "-c", str(core))), *command]
