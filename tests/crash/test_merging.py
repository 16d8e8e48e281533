"""A kill while two datasets are united, or one is compacted: all is as it was before, or as it is after."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets import compact, merge
from mmdata.recorder.importing import import_sources
from tests.builders import rows, spot_lines
from tests.crash.steps import step_through
from tests.integration.conftest import ENVIRONMENT, mmdata_command

TABLES = ("depth", "trades", "snapshots", "events", "instruments")
KILLS = 100


def recording(root: Path, skip: tuple[int, ...], count: int) -> None:
    source = root.with_suffix(".log")
    source.parent.mkdir(parents=True, exist_ok=True)
    source.write_bytes(b"".join(spot_lines(skip=skip, count=count)))
    import_sources([source], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")


def told(root: Path) -> dict[str, list[dict[str, Any]]]:
    return {table: rows(root, table) for table in TABLES}


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the files of the two sources."""
    return {
        path.relative_to(folder): path.read_bytes()
        for name in ("one", "other")
        for path in (folder / name).rglob("*.parquet")
    }


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """Return a folder of two datasets, each with a hole that the other fills."""
    recording(tmp_path / "pair/one", (4,), 12)
    recording(tmp_path / "pair/other", (8,), 12)
    return tmp_path / "pair"


@pytest.mark.parametrize("stride", [41, pytest.param(1, marks=pytest.mark.long)])
def test_kill_at_any_step_leaves_no_dataset_or_the_whole_one_and_the_next_run_makes_it(
    pair: Path, stride: int
) -> None:
    before = contents(pair)
    steps = step_through("merge", pair, stride)
    assert steps > 50
    # The session is named after the bytes of both, and what it says of them after where they lay.
    whole = {table: len(content) for table, content in told(pair.with_name(f"pair-{steps}") / "out").items()}
    assert whole["depth"] == 12
    seen = Counter[bool]()
    for number in range(0, steps, stride):
        harmed = pair.with_name(f"pair-{number}")
        made = (harmed / "out").exists()
        seen[made] += 1
        found = contents(harmed)
        assert {path: found[path] for path in before} == before, f"killed at step {number}"
        if made:
            assert {table: len(content) for table, content in told(harmed / "out").items()} == whole
        elif number // stride % 25 == 0:
            merge(harmed / "one", harmed / "other", harmed / "out")
            assert {table: len(content) for table, content in told(harmed / "out").items()} == whole
            assert sorted(path.name for path in harmed.iterdir() if path.is_dir()) == ["one", "other", "out"]
    assert seen[False] > 50 // stride
    if stride == 1:
        assert seen[True] > 0  # the last steps come after the name


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["compact", "merge"])
def test_kills_at_random_moments_leave_all_as_before_or_as_after(tmp_path: Path, what: str) -> None:
    """Real processes, killed at moments drawn over the time that a whole run takes; the seed is printed."""
    recording(tmp_path / "one", (40,), 1_500)
    recording(tmp_path / "other", (80,), 1_500)
    import_sources(
        [tmp_path / "other.log"],
        tmp_path / "one",
        source_format="hftbacktest",
        exchange="binance",
        symbol="BTCUSDT",
    )
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    draw = random.Random(seed)
    outcomes = Counter[str]()
    before = told(tmp_path / "one")
    took = 0.0
    after_rows = None
    for number in range(KILLS + 1):
        root = tmp_path / "work"
        shutil.copytree(tmp_path / "one", root / "one")
        shutil.copytree(tmp_path / "other", root / "other")
        asked = (
            ("compact", root / "one")
            if what == "compact"
            else ("merge", root / "one", root / "other", "--out", root / "out")
        )
        began = time.monotonic()
        with subprocess.Popen(mmdata_command(*asked, "--quiet"), env=ENVIRONMENT) as child:
            if number:
                try:
                    # The first half of a run loads the program; most kills fall into its work.
                    child.wait(timeout=took * draw.uniform(0.4, 1.05))
                except subprocess.TimeoutExpired:
                    child.send_signal(signal.SIGKILL)
            child.wait()
        assert child.returncode in ((0,) if number == 0 else (0, -signal.SIGKILL))
        took = took or time.monotonic() - began
        assert told(root / "one") == before
        if what == "compact":
            files = len([*(root / "one").glob("depth/**/*.parquet")])
            outcomes["after" if files == 1 else "before"] += 1
            compact(root / "one")
            assert told(root / "one") == before
        else:
            made = (root / "out").exists()
            outcomes["after" if made else "before"] += 1
            assert made or number
            if made:
                found = {table: len(content) for table, content in told(root / "out").items()}
                after_rows = after_rows or found
                assert found == after_rows
            else:
                merge(root / "one", root / "other", root / "out")
        shutil.rmtree(root)
    print(f"{what}: {dict(outcomes)} of {KILLS} kills and one whole run")
    assert outcomes.total() == KILLS + 1
    assert outcomes["after"] >= 1  # the whole run
    assert outcomes["before"] > KILLS // 10
