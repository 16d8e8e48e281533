"""The crash matrix: `kill -9` at seeded random moments of recording both venues, then recovery.

``python -m tests.crash.matrix --runs 500`` is what `make crash-test` runs. A seed says everything about a
run: ``--seed N --runs 1`` does it again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmdata.recorder.segments import recover_all
from tests.crash.board import INGESTING, PUBLISHING, ROTATING, ROTATIONS
from tests.crash.market import make_market
from tests.crash.recording import Found, Recording, check_recording, has_ended, recording

TARGETS = ("recorder", "ingest", "both")
PHASES = ("record", "rotation", "ingest", "publish")
TAIL_NS = 100_000_000
"""What was sent up to so long before the kill may not have been handed over: it was in the sockets. So was
what came while the recorder waited for a processor: a crowded machine is no fault of it."""
_ORPHAN_S = 2.0
_WITHIN_S = {"record": 3.0, "rotation": 0.006, "ingest": 0.25, "publish": 0.02}
"""How long after its phase began the kill falls: about as long as the phase takes."""
_FLAGS = {"ingest": INGESTING, "publish": PUBLISHING}


@dataclass(frozen=True)
class Plan:
    """Whom a run kills, in which phase, and when."""

    seed: int
    target: str
    phase: str
    rotations: int
    """The kill is not before so many rotations have begun."""
    delay_s: float
    """After the phase began."""


def plan(seed: int) -> Plan:
    """Return a seed's run: targets and phases in turn, the moment drawn.

    >>> plan(7).target, plan(7).phase
    ('ingest', 'ingest')
    """
    draw = random.Random(seed)
    phase = PHASES[seed // len(TARGETS) % len(PHASES)]
    delay_s = draw.uniform(0.0, _WITHIN_S[phase])
    return Plan(seed, TARGETS[seed % len(TARGETS)], phase, draw.randint(1, 2), delay_s)


@dataclass
class Result:
    """What a run met and what was found after it."""

    plan: Plan
    hit: str
    """What was really under way when the kill fell."""
    rate: float
    """Messages a second that the recorder was handed."""
    orphan_s: float
    tail_ms: float
    """Age at the kill of the oldest frame that is missing."""
    starved_ms: float
    """How long the recorder waited for a processor in the second before."""
    found: Found

    def __str__(self) -> str:
        return (
            f"{self.plan.target} killed in {self.hit}; {self.found.recorded:,} frames, "
            f"{self.found.behind_counter} behind the counter; missing from {self.tail_ms:.1f} ms before "
            f"(starved for {self.starved_ms:.0f} ms)"
        )


def run(seed: int, folder: Path, market: list[Path]) -> Result:
    """Do a run in an empty folder. AssertionError: the promise does not hold."""
    todo = plan(seed)
    with recording(folder, market) as running:
        running.wait_for_frames()
        begun = time.monotonic()
        ingest_pid = running.ingest_pid
        wait_for_phase(running, todo)
        running.sleep(todo.delay_s)
        victims = {"recorder": (running.pid,), "ingest": (ingest_pid,), "both": (running.pid, ingest_pid)}
        hit, killed_ns = kill(running, victims[todo.target])
        starved_ns = running.starved_ns()
        handed_over = sum(sum(running.board.handed_over(venue)) for venue in ("binance", "okx"))
        rate = handed_over / (time.monotonic() - begun)
        orphan_s = 0.0
        if todo.target == "ingest":
            end_cleanly(running)
        else:
            running.process.wait()
            orphan_s = wait_for_end(ingest_pid)
            report, _ = recover_all(running.root)
            assert not report.failures, report.failures
        found = check_recording(running.root, running.sandbox.truth, running.board, folder / "again")
        tail_ms = 0.0
        if todo.target == "ingest":
            assert found.behind_counter == 0, found
        else:
            assert found.behind_counter <= 1, found
            if found.oldest_missing_ns is not None:
                tail_ms = (killed_ns - found.oldest_missing_ns) / 1e6
                assert found.oldest_missing_ns >= killed_ns - TAIL_NS - starved_ns, (
                    tail_ms,
                    starved_ns,
                    found,
                )
    return Result(todo, hit, rate, orphan_s, tail_ms, starved_ns / 1e6, found)


def wait_for_phase(running: Recording, todo: Plan) -> None:
    """Wait until the phase of a plan has begun, and so many rotations before it."""
    cells = running.board.cells
    if todo.phase == "record":
        return
    if todo.phase == "rotation":  # the count goes up as one begins; it is over too soon to be met otherwise
        running.wait_until(lambda: cells[ROTATIONS] >= todo.rotations, todo.phase)
        return
    flag = _FLAGS[todo.phase]
    running.wait_until(lambda: cells[ROTATIONS] >= 2 * todo.rotations and cells[flag], todo.phase)


def kill(running: Recording, pids: tuple[int, ...]) -> tuple[str, int]:
    """Kill processes; return what was under way at that moment, and the moment."""
    killed_ns = time.time_ns()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    cells = running.board.cells
    if cells[ROTATING]:
        return "rotation", killed_ns
    if cells[PUBLISHING]:
        return "publish", killed_ns
    return ("ingest" if cells[INGESTING] else "record"), killed_ns


def end_cleanly(running: Recording) -> None:
    """Let the recorder go on for a rotation, and end it by a signal."""
    cells = running.board.cells
    more = cells[ROTATIONS] + 2
    running.wait_until(lambda: cells[ROTATIONS] >= more, "another rotation of each venue")
    running.process.terminate()
    _, err = running.process.communicate(timeout=20)
    assert running.process.returncode == 0, err
    recover_all(running.root)  # a signal leaves what it has no time for to the next start


def wait_for_end(pid: int) -> float:
    """Wait until an orphan has ended, and return how long that took. AssertionError: too long."""
    begun = time.monotonic()
    while not has_ended(pid):
        assert time.monotonic() < begun + _ORPHAN_S, f"the ingest process {pid} outlived its parent"
        time.sleep(0.005)
    return time.monotonic() - begun


def summary(results: list[Result]) -> str:
    """Return what many runs met and found, as a table for a person."""
    hits = Counter(result.hit for result in results)
    pairs = Counter((result.plan.target, result.hit) for result in results)
    lines = [f"{'killed':<10}" + "".join(f"{phase:>10}" for phase in PHASES)]
    lines += [
        f"{target:<10}" + "".join(f"{pairs[target, phase]:>10}" for phase in PHASES) for target in TARGETS
    ]
    lines.append(f"{'all':<10}" + "".join(f"{hits[phase]:>10}" for phase in PHASES))
    rates = sorted(result.rate for result in results)
    tails = sorted(result.tail_ms for result in results)
    late = sum(tail > TAIL_NS / 1e6 for tail in tails)
    lines += [
        f"messages a second: median {rates[len(rates) // 2]:,.0f}, least {rates[0]:,.0f}",
        f"frames recorded: {sum(result.found.recorded for result in results):,}; handed over and missing: "
        f"{sum(max(0, result.found.behind_counter) for result in results)}",
        f"oldest missing frame: sent {tails[-1]:.1f} ms before the kill at most, "
        f"{tails[len(tails) // 2]:.1f} ms in the median",
        f"runs with more than 100 ms, all with a recorder that waited for a processor: {late}",
        f"an orphaned ingest process ended within {max(result.orphan_s for result in results):.2f} s",
    ]
    return "\n".join(lines)


def attempt(seed: int, base: Path, market: list[Path]) -> Result | str:
    """Do a run in a folder of its own; return what it came to, or what does not hold and where it lies."""
    folder = base / str(seed)
    try:
        return run(seed, folder, market)
    except AssertionError as error:
        kept = Path(tempfile.gettempdir()) / f"mmdata-crash-failed-{seed}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        return f"{error}; {plan(seed)}; all of it is in {kept}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_many(seeds: Sequence[int], base: Path, workers: int) -> tuple[list[Result], list[str]]:
    """Do many runs in folders below ``base``, print each; return the results and what failed."""
    market = make_market(base, seconds=30, speed=20)
    results: list[Result] = []
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for seed, outcome in zip(
            seeds, pool.map(partial(attempt, base=base, market=market), seeds), strict=True
        ):
            if isinstance(outcome, str):
                failures.append(f"seed {seed} FAILED: {outcome}")
                print(failures[-1], flush=True)
            else:
                results.append(outcome)
                print(f"seed {seed}: {outcome}", flush=True)
    return results, failures


def main(arguments: list[str]) -> int:
    """Do many runs and print what they come to. Returns 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others follow")
    parser.add_argument("--workers", type=int, default=3, help="runs at a time")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    seeds = range(options.seed, options.seed + options.runs)
    with tempfile.TemporaryDirectory(prefix="mmdata-crash-") as name:
        results, failures = run_many(seeds, Path(name), options.workers)
    if results:
        print(summary(results))
    print(f"{len(results)} of {options.runs} runs held, in {(time.monotonic() - begun) / 60:.1f} min")
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
