"""What a power cut would leave: told by the system calls made, and by cutting off what was not synced."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmdata.datasets.validation import validate
from mmdata.recorder.segments import recover_all
from tests.crash.board import ROTATIONS
from tests.crash.recording import check_recording, recording

pytestmark = pytest.mark.long

_SYNCED_EVERY_S = 1.2
_TRACED = "openat,mkdir,mkdirat,fdatasync,fsync,rename,renameat,renameat2,close,dup,write"
_PATH = re.compile(r"<(/[^>]*)>")


@dataclass
class Call:
    """A system call that succeeded: when it began, its name, the paths in its arguments, its answer."""

    at: float
    name: str
    paths: list[str]
    answer: str


def traced(trace: Path) -> list[Call]:
    """Read what `strace -f -ttt -y` wrote; a call that another thread's interrupts is put together."""
    calls: list[Call] = []
    unfinished: dict[str, tuple[float, str, str]] = {}
    for line in trace.read_text(encoding="utf-8", errors="replace").splitlines():
        pid, _, told = line.partition(" ")
        stamp, _, call = told.strip().partition(" ")
        if call.endswith("<unfinished ...>"):
            unfinished[pid] = (float(stamp), call.partition("(")[0], call.removesuffix("<unfinished ...>"))
            continue
        at, name, text = float(stamp), call.partition("(")[0], call
        if call.startswith("<... "):
            if pid not in unfinished:
                continue
            at, name, begun = unfinished.pop(pid)
            text = begun + call.partition("resumed>")[2]
        arguments, equals, answer = text.rpartition(" = ")
        if equals and not answer.startswith("-1"):
            quoted = re.findall(r'"(/[^"]*)"', arguments)
            calls.append(Call(at, name, quoted or _PATH.findall(arguments), answer))
    return calls


@pytest.fixture
def strace() -> str:
    """Return where strace is."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is missing")
    return found


def test_captures_are_synced_each_second_and_every_rename_is_between_two_syncs(
    tmp_path: Path, market: list[Path], strace: str
) -> None:
    trace = tmp_path / "trace"
    wrap = (strace, "-f", "-ttt", "-y", "-qq", "--seccomp-bpf", "-o", str(trace), "-e", f"trace={_TRACED}")
    segment = {"seconds": "3s", "bytes": "64MiB"}
    with recording(tmp_path / "run", market, wrap=wrap, segment=segment, duration="7s") as running:
        _, said = running.process.communicate(timeout=60)
        assert running.process.returncode == 0, said
    calls = traced(trace)
    check_syncs(calls)
    assert check_renames(calls) > 20  # captures closed and compressed, and files of every table


def check_syncs(calls: list[Call]) -> None:
    """Raise AssertionError when an open capture is written to for longer than it may be without a sync."""
    since: dict[str, float] = {}  # the first write that no sync has covered yet
    captures = set()
    for call in calls:
        path = call.paths[0] if call.paths else ""
        if not path.endswith(".open"):
            continue
        captures.add(path)
        if call.name == "write":
            waited = call.at - since.setdefault(path, call.at)
            assert waited <= _SYNCED_EVERY_S, f"{path}: what was written is not synced for {waited:.2f} s"
        elif call.name in ("fdatasync", "fsync"):
            since.pop(path, None)
    assert len(captures) >= 4


def check_renames(calls: list[Call]) -> int:
    """Raise AssertionError unless files are synced before their rename, and folders after; count them."""
    renames = 0
    for at, call in enumerate(calls):
        if not call.name.startswith("rename") or not call.paths[-1].endswith((".cap", ".zst", ".parquet")):
            continue
        renames += 1
        source, target = call.paths[0], call.paths[-1]
        before = [other for other in calls[:at] if other.paths and other.paths[0] == source]
        written = [n for n, other in enumerate(before) if other.name == "write"]
        syncs = [n for n, other in enumerate(before) if other.name in ("fsync", "fdatasync")]
        assert syncs, f"{source} was renamed without a sync"
        assert not written or syncs[-1] > written[-1], f"{source} was renamed with writes not synced"
        folder = str(Path(target).parent)
        after = [other for other in calls[at + 1 :] if other.name == "fsync" and other.paths[:1] == [folder]]
        assert after, f"{folder} was not synced after the rename of {target}"
    return renames


def test_what_a_power_cut_takes_is_the_last_second(tmp_path: Path, market: list[Path]) -> None:
    """The test build remembers how long each capture was when its sync began: so long it is for certain."""
    with recording(tmp_path / "run", market, segment={"seconds": "3s", "bytes": "64MiB"}) as running:
        cells = running.board.cells
        running.wait_until(lambda: cells[ROTATIONS] >= 2, "a rotation of each venue")
        synced = tmp_path / "run" / "board.synced"
        running.sleep(1.6)  # some way into the second that is not synced yet
        cut_ns = time.time_ns()
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        lengths: dict[str, int] = {}
        for line in synced.read_text(encoding="utf-8").splitlines():
            told, _, path = line.partition(" ")
            lengths[path] = int(told)
        cut = 0
        for capture in sorted(running.root.glob(".captures/*/*/*.open")):
            length = lengths.get(str(capture), 0)
            cut += capture.stat().st_size - length
            os.truncate(capture, length)
        assert cut > 0
        report, _ = recover_all(running.root)
        assert report.failures == []
        found = check_recording(running.root, running.sandbox.truth, running.board, tmp_path / "again")
        assert found.oldest_missing_ns is not None
        lost_ns = cut_ns - found.oldest_missing_ns
        assert lost_ns <= _SYNCED_EVERY_S * 1e9 + running.starved_ns(), lost_ns
    assert validate(running.root).count("error") == 0
