"""What simulating costs from one day to thirty, and from one parameter set to 64.

    python -m benchmarks.days [--days 30] [--rows 10000000] [--rounds 3] [--folder DIR]

A day is so many level rows of the real capture of USDⓈ-M with its trades and quotes, tiled, a session of its
own. Each figure is of a new process: `mmdata.replay.sweep`, Avellaneda-Stoikov, the l2-queue, no curve. A and
k are set (where a tile meets the next the book is crossed for a while, which no estimate survives), and but
for one row sigma and the order size as well. "rows" are level rows, "peak" is the most memory it held, mapped
files counted; it starts no other processes. The first look decodes Parquet and fills the column cache; needs
some 10 GB of disk. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from benchmarks.datasets import import_into
from benchmarks.tiles import EXCHANGE, USDM, write_tiled
from benchmarks.validating import moved
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets.column_cache import COLUMN_CACHE
from mmdata.datasets.layout import date_name, list_parts, time_name
from mmdata.datasets.market import read_part
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import TABLES
from mmdata.datasets.times import DAY_NS

FIRST_NS = 1_722_470_400_000_000_000
"""Midnight of 2024-08-01."""
_RATES: dict[str, object] = {"A": 1, "k": 0.05}
_ALL = _RATES | {"sigma": 5, "order_size": "0.01"}
_SETS = (1, 2, 4, 8, 16, 32, 64)

# Runs in a process of its own, so that its peak memory is its own.
_SIMULATE = r"""
import json, re, sys, time
from pathlib import Path
from mmdata.replay import sweep, warm_up
root, end, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
warm_up()
begun = time.perf_counter()
results = sweep(
    root, exchange="binance-usdm", symbol="BTCUSDT", end=end, fills="l2-queue", curve=False,
    sets=[
        {"gamma": 0.0001 * (1 + i), "order_latency": "1ms", **json.loads(sys.argv[4])} for i in range(count)
    ],
)
taken = time.perf_counter() - begun
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([taken, peak / 1024, sum(result.models[0].fills for result in results)]))
"""


def main() -> None:
    """Make the days, measure, print two tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--rows", type=int, default=10_000_000, help="level rows a day, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work")
    options = parser.parse_args()
    if not USDM.exists():
        sys.exit(f"{USDM} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name) / "days"
        each = write_days(root, Path(name), options.days, options.rows)
        title = f"{each:,} level rows a day of USDⓈ-M, medians of {options.rounds} rounds"
        rows = measure_days(root, each, options.days, options.rounds)
        names = [
            *words("what"),
            *figures("days", "s", "M rows/s", "s a day", "peak MiB", "cache GB", "fills"),
        ]
        say_table(title, names, rows, out=console())
        sets = measure_sets(root, each, options.rounds)
        names = figures("parameter sets", "s", "M strategy rows/s", "s a set more", "peak MiB")
        say_table("One day, many sets in one pass", names, sets, out=console())


def write_days(root: Path, folder: Path, days: int, rows: int) -> int:
    """Publish a tiled capture once a day; return its level rows."""
    _, plain, each = write_tiled(folder, rows)
    one = folder / "one"
    import_into(one, plain)
    plain.unlink()
    parts = [
        (part, read_part(part)) for table in TABLES for part in list_parts(one, table, exchange=EXCHANGE)
    ]
    first = min(int(rows["ts_recv"][0].value) for _, rows in parts)
    for day in range(days):
        shift = FIRST_NS + day * DAY_NS - first
        session = f"{time_name(first + shift)[:15]}Z-day{day:03d}"
        for part, table in parts:
            partition = replace(part.partition, date=date_name(first + shift))
            publish(root, partition, session, part.n, moved(table, shift, session), {"version": "benchmark"})
    return each


def measure_days(root: Path, each: int, days: int, rounds: int) -> list[tuple[str, ...]]:
    """Simulate the first days, more and more of them; a row for each."""
    first = run(root, days, 1)
    shown = [told("first look, Parquet", root, each, days, [first])]
    counts = [count for count in (1, 2, 4, 8, 16, 30) if count < days] + [days]
    shown += [
        told("column cache", root, each, count, [run(root, count, 1) for _ in range(rounds)])
        for count in counts
    ]
    shown.append(told("estimating sigma and size", root, each, days, [run(root, days, 1, _RATES)]))
    shown.append(told("no cache", root, each, days, [run(root, days, 1, MMDATA_COLUMN_CACHE="0")]))
    shutil.rmtree(root / COLUMN_CACHE)
    shown.append(told("cache of 1 GiB", root, each, days, [run(root, days, 1, MMDATA_COLUMN_CACHE="1GiB")]))
    return shown


def measure_sets(root: Path, each: int, rounds: int) -> list[tuple[str, ...]]:
    """Simulate a day with more and more parameter sets; a row for each."""
    run(root, 1, 1)
    shown: list[tuple[str, ...]] = []
    before = 0.0, 0
    for count in _SETS:
        runs = [run(root, 1, count) for _ in range(rounds)]
        seconds = median(taken for taken, *_ in runs)
        more = (seconds - before[0]) / (count - before[1]) if before[1] else float("nan")
        before = seconds, count
        shown.append(
            (
                str(count),
                f"{seconds:.2f}",
                f"{count * each / seconds / 1e6:.0f}",
                f"{more:.3f}" if more == more else "",
                f"{max(peak for _, peak, _ in runs):.0f}",
            )
        )
    return shown


def told(
    name: str, root: Path, each: int, days: int, runs: Sequence[tuple[float, float, int]]
) -> tuple[str, ...]:
    """Return a row of the table of days."""
    seconds = median(taken for taken, *_ in runs)
    kept = sum(path.stat().st_size for path in (root / COLUMN_CACHE).rglob("*") if path.is_file())
    return (
        name,
        str(days),
        f"{seconds:.2f}",
        f"{days * each / seconds / 1e6:.1f}",
        f"{seconds / days:.3f}",
        f"{max(peak for _, peak, _ in runs):.0f}",
        f"{kept / 1e9:.2f}",
        str(runs[0][2]),
    )


def run(
    root: Path, days: int, sets: int, settings: Mapping[str, object] = _ALL, **environment: str
) -> tuple[float, float, int]:
    """Simulate in a new process; return seconds, peak MiB and fills."""
    end = FIRST_NS + days * DAY_NS
    command = [sys.executable, "-c", _SIMULATE, str(root), str(end), str(sets), json.dumps(settings)]
    found = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, check=True)
    taken, peak, fills = json.loads(found.stdout)
    return taken, peak, fills


if __name__ == "__main__":
    main()
