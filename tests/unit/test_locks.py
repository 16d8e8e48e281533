"""Locks between processes that write one dataset."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmdata.datasets.errors import DiskError, UsageError
from mmdata.datasets.locks import LOCKS, session_lock, symbol_lock
from mmdata.recorder.importing import import_sources
from tests.builders import rows, spot_lines

HOLDER = """
import sys, pathlib
from mmdata.datasets.locks import session_lock, symbol_lock
root, kind, name = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
lock = session_lock(root, name, wait=True) if kind == "session" else symbol_lock(root, "binance", name)
with lock:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(root: Path, kind: str, name: str) -> Iterator[subprocess.Popen[str]]:
    """Have another process hold a lock until its stdin closes."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), kind, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_session_that_another_process_writes_is_refused_by_name(tmp_path: Path) -> None:
    with (
        held_elsewhere(tmp_path, "session", "s/1") as holder,
        pytest.raises(UsageError, match=f'session s/1 is being written already, by {{"pid": {holder.pid}'),
        session_lock(tmp_path, "s/1", wait=False),
    ):
        pass


def test_other_sessions_and_symbols_are_free(tmp_path: Path) -> None:
    with (
        held_elsewhere(tmp_path, "session", "s1"),
        held_elsewhere(tmp_path, "symbol", "BTCUSDT"),
        session_lock(tmp_path, "s2", wait=False),
        symbol_lock(tmp_path, "binance", "ETHUSDT"),
        symbol_lock(tmp_path, "okx", "BTCUSDT"),
    ):
        assert len([*(tmp_path / LOCKS).iterdir()]) == 5
    assert len([*(tmp_path / LOCKS).iterdir()]) == 2  # of those that were killed


def test_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "session", "s1") as holder:
        holder.kill()
        holder.wait()
        with session_lock(tmp_path, "s1", wait=False):
            pass
    assert [*(tmp_path / LOCKS).iterdir()] == []


def test_symbol_that_another_process_writes_is_waited_for(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, "symbol", "BTCUSDT") as holder:
        waiting = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), "symbol", "BTCUSDT"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=1)
        assert holder.stdin is not None
        holder.stdin.close()  # it lets go, and takes the file away that the other waits at
        assert waiting.communicate(timeout=10)[0] == "held\n"


def test_lock_that_cannot_be_made_is_the_disks_fault(tmp_path: Path) -> None:
    (tmp_path / LOCKS).write_text("", encoding="utf-8")
    with pytest.raises(DiskError, match="cannot be made"), session_lock(tmp_path, "s1", wait=False):
        pass


def test_import_of_what_is_being_imported_is_refused_and_other_imports_are_not(tmp_path: Path) -> None:
    here, there = tmp_path / "a.gz", tmp_path / "b.gz"
    here.write_bytes(b"".join(spot_lines()))
    there.write_bytes(b"".join(spot_lines(count=4)))
    out = tmp_path / "data"

    def take(path: Path) -> str:
        report = import_sources(
            [path], out, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT"
        )
        return report.session

    session = take(here)
    before = rows(out, "depth")
    with held_elsewhere(out, "session", session):
        with pytest.raises(UsageError, match="is being written already"):
            take(here)
        take(there)
    assert len(rows(out, "depth")) > len(before)
