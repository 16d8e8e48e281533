"""A kill at each step of a compaction, one after the other; and readers while days are swapped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from mmdata.datasets import compact
from mmdata.datasets.layout import list_parts
from mmdata.recorder.ingest import Ingest
from tests.builders import LEVELS, NOON, SESSION, depth, frame, rows
from tests.crash.steps import step_through
from tests.integration.conftest import ENVIRONMENT

LATER = "20261121T130000Z-bbbbbb"
TABLES = ("depth", "events")
WITNESS_S = 120


def take(root: Path, number: int, message: object, session: str = SESSION) -> None:
    """Publish what one frame holds."""
    ingest = Ingest(root, "binance", session, {"version": "0.1.0"})
    ingest.take(frame(number, message, ts=NOON + (10**9 if session == LATER else 0)))
    ingest.flush()


def dataset(root: Path, *, wide: bool) -> Path:
    """Publish a day of two sessions; with ``wide`` its symbol becomes wide in between."""
    fine = [["0.000000000123", "1"]] if wide else LEVELS[0]
    take(root, 0, depth(100, *LEVELS))
    take(root, 1, depth(105, fine, []))
    take(root, 0, depth(110, *LEVELS), LATER)
    return root


def files(root: Path, table: str) -> list[Path]:
    """Return a table's files, as a reader without mmdata finds them."""
    return sorted(path.relative_to(root) for path in root.glob(f"{table}/**/*.parquet"))


@pytest.mark.parametrize(
    "wide", [pytest.param(False, id="narrow", marks=pytest.mark.long), pytest.param(True, id="widened")]
)
def test_kill_at_any_step_leaves_each_row_once_and_the_next_run_completes_it(
    tmp_path: Path, wide: bool
) -> None:
    root = dataset(tmp_path / "data", wide=wide)
    before = {table: rows(root, table) for table in TABLES}
    steps = step_through("compact", root)
    assert steps > 50
    old, new = files(root, "depth*"), files(tmp_path / f"data-{steps}", "depth*")
    assert (len(old), len(new)) == (3, 1)
    seen = set()
    for number in range(steps + 1):
        harmed = tmp_path / f"data-{number}"
        assert {table: rows(harmed, table) for table in TABLES} == before, f"killed at step {number}"
        found = files(harmed, "depth*")
        seen.add(tuple(found))
        for table in ("depth", "depth-wide"):  # each glob by itself never meets a row twice
            there = files(harmed, table)
            read = pl.concat([pl.read_parquet(harmed / path) for path in there]) if there else None
            assert read is None or not read.is_duplicated().any()
        compact(harmed)
        assert {table: rows(harmed, table) for table in TABLES} == before
        assert files(harmed, "depth*") == new
        assert [*(harmed / ".staging").iterdir()] == []
    narrow = [path for path in old if path.parts[0] == "depth"]
    assert seen == {tuple(old), tuple(new)} | ({(*sorted([*narrow, *new]),)} if wide else set())


READER = """
import json, sys
from pathlib import Path
import polars as pl
from mmdata.datasets import scan
root = Path(sys.argv[1])
seen, again = set(), 0
print("begun", flush=True)
while not (root / "stop").exists():
    for how, read in (
        ("glob", lambda: pl.scan_parquet(str(root / "depth/**/*.parquet"), hive_partitioning=True)),
        ("folder", lambda: pl.scan_parquet(root / "depth", hive_partitioning=True)),
        ("scan", lambda: scan(root, "depth")),
    ):
        try:
            found = read().select("session", "frame").collect().rows()
        except (FileNotFoundError, OSError):
            again += 1  # a file was replaced between listing and opening: read again
            continue
        seen.add((how, len(found), len(set(found)), *found[-1]))
print(json.dumps({"seen": [*seen], "again": again}))
"""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a reader in a process of its own, in a loop, on ``tmp_path/data``."""
    root = dataset(tmp_path / "data", wide=False)
    command = [sys.executable, "-c", READER, str(root)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        yield child
        child.kill()


@pytest.mark.long
def test_readers_never_see_a_row_twice_or_a_hole_while_days_are_swapped(
    tmp_path: Path, reader: subprocess.Popen[str]
) -> None:
    """Each swap holds one frame more; whatever a reader sees is one of these days, whole."""
    root = tmp_path / "data"
    swaps = 60
    for number in range(1, swaps + 1):
        assert len(compact(root).done) == 1
        take(root, number, depth(110 + 5 * number, *LEVELS), LATER)
    (root / "stop").touch()
    out, err = reader.communicate(timeout=WITNESS_S)
    assert reader.returncode == 0, err
    told = json.loads(out)
    assert {how for how, *_ in told["seen"]} == {"glob", "folder", "scan"}
    assert told["again"] <= 3 * swaps
    for how, count, frames, session, last in told["seen"]:
        assert session == LATER, how
        assert (count, frames) == (5 + 3 * (last + 1), 2 + last + 1), how
    assert len(list_parts(root, "depth")) == 3
