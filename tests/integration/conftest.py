"""A sandbox exchange in a process of its own, and the command line in another."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join(
        str(REPOSITORY / wing) for wing in ("recorder", "datasets", "replay", "sandbox", "cli")
    )
}


@dataclass
class RunningSandbox:
    """A sandbox's addresses, and where it keeps the truth."""

    addresses: dict[str, dict[str, str]]
    truth: Path
    pid: int

    def venue(self, exchange: str, symbols: list[str]) -> dict[str, Any]:
        """Return what a recording job says of this venue."""
        urls = self.addresses[exchange]
        return {
            "exchange": exchange,
            "symbols": symbols,
            "rest_url": urls["rest_url"],
            "ws_url": urls["ws_url"],
        }


@contextmanager
def running_sandbox(truth: Path, **options: Any) -> Iterator[RunningSandbox]:
    """Run a sandbox until the block ends."""
    told = json.dumps({"port": 0, "until_eof": True, "truth": str(truth), **options})
    command = [sys.executable, "-m", "mmdata.sandbox", told]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            yield RunningSandbox(json.loads(child.stdout.readline()), truth, child.pid)
        finally:
            child.stdin.close()
            assert child.wait(timeout=10) == 0


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Callable[..., RunningSandbox]]:
    """Return a function that starts a sandbox; it ends with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(running_sandbox(tmp_path / "truth", **options))


def mmdata(*args: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        mmdata_command(*args), capture_output=True, text=True, check=False, **({"env": ENVIRONMENT} | options)
    )


def answered(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end in this process: it says the same, and starts a second sooner."""
    from mmdata.cli.main import main
    from mmdata.cli.shell import console

    out, err = io.StringIO(), io.StringIO()
    log = logging.getLogger()
    handlers, level = [*log.handlers], log.level
    log.handlers.clear()
    console.cache_clear()
    try:
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as done:
            main([*map(str, args)])
    finally:
        log.handlers[:] = handlers
        log.setLevel(level)
        console.cache_clear()
    return subprocess.CompletedProcess(args, int(done.value.code or 0), out.getvalue(), err.getvalue())


def mmdata_command(*args: str | Path) -> list[str]:
    """Return the command line as the arguments of a process."""
    return [sys.executable, "-m", "mmdata.cli.main", *map(str, args)]


def write_job(path: Path, **job: Any) -> Path:
    """Write a recording job; without a window unless it has one."""
    path.write_text(yaml.safe_dump({"window": "none", **job}), encoding="utf-8")
    return path
