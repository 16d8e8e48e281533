"""What `mmdata validate` costs on a day of many rows: seconds and peak memory, medians of a run.

Rates are those of the level rows alone, and of the rows of all tables; all of them are checked.

    python -m benchmarks.validating [--rounds 5] [--rows 20000000]

Reads the real capture of USDⓈ-M (MMDATA_SHARED, default ../shared) and tiles it: the same minutes again and
again, each time a session of its own, one after the other within one UTC day. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.sources import SHARED
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets import compact
from mmdata.datasets.layout import list_parts, time_name
from mmdata.datasets.market import read_part
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import TABLES
from mmdata.recorder import import_sources

SOURCE = SHARED / "data/binance-usdm/btcusdt_20240808.gz"
EXCHANGE, SYMBOL, DATE = "binance-usdm", "BTCUSDT", "2024-08-08"
_ROWS = 443_521
"""Level rows of one tile."""
_DAY_NS = 86_400_000_000_000

# Runs in a process of its own, so that its peak memory is its own.
_VALIDATE = r"""
import json, re, sys, time
from pathlib import Path
from mmdata.datasets import validate
begun = time.perf_counter()
report = validate(Path(sys.argv[1]))
taken = time.perf_counter() - begun
# Not ru_maxrss, which begins with the peak of the process that this one was started by.
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
[found] = report.symbols
rows = sum(found.rows.values())
print(json.dumps([taken, rows, peak / 1024, report.count("error"), found.bbo_equal, found.bbo_compared]))
"""


def tile(root: Path, times: int) -> int:
    """Publish the capture ``times`` times in a row, each a session; return the number of depth rows."""
    with tempfile.TemporaryDirectory() as folder:
        one = Path(folder)
        import_sources([SOURCE], one, source_format="hftbacktest", exchange=EXCHANGE, symbol=SYMBOL)
        parts = [
            (part, read_part(part)) for table in TABLES for part in list_parts(one, table, exchange=EXCHANGE)
        ]
    spans = [pc.min_max(rows["ts_recv"].cast(pa.int64())).as_py() for _, rows in parts]
    first, last = min(span["min"] for span in spans), max(span["max"] for span in spans)
    midnight = first // _DAY_NS * _DAY_NS
    depth_rows = 0
    for number in range(times):
        shift = midnight - first + number * (last - first + 1_000_000_000)
        session = f"{time_name(first + shift)[:15]}Z-tile{number:02d}"
        for part, rows in parts:
            partition = replace(part.partition, date=DATE)
            publish(root, partition, session, part.n, moved(rows, shift, session), {"version": "benchmark"})
            depth_rows += rows.num_rows if part.partition.table == "depth" else 0
    return depth_rows


def tile_rows(root: Path, rows: int) -> int:
    """Publish the capture as often as gives ``rows`` level rows; return how many those are."""
    return tile(root, -(-rows // _ROWS))


def moved(rows: pa.Table, shift: int, session: str) -> pa.Table:
    """Return rows of another session, ``shift`` ns later."""
    for at, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type):
            later = pc.add(rows[field.name].cast(pa.int64()), shift).cast(field.type)
            rows = rows.set_column(at, field, later)
        elif field.name == "session":
            rows = rows.set_column(at, field, pa.array([session] * rows.num_rows, pa.string()))
    return rows


def measured(root: Path) -> list[float]:
    """Return seconds, rows, peak MiB, errors, quotes that equal the book and those compared, of one run."""
    run = subprocess.run([sys.executable, "-c", _VALIDATE, str(root)], capture_output=True, check=True)
    return [float(value) for value in json.loads(run.stdout)]


def measure(root: Path, rounds: int) -> list[tuple[str, ...]]:
    """Validate the dataset at ``root`` as it was published, then compacted; a row for each."""
    shown: list[tuple[str, ...]] = []
    ways: tuple[tuple[str, Callable[[], object]], ...] = (
        ("as published", lambda: None),
        ("compacted", lambda: compact(root)),
    )
    levels = sum(read_rows(root))
    for name, prepare in ways:
        prepare()
        runs = [measured(root) for _ in range(rounds + 1)][1:]  # the first fills the page cache
        seconds = statistics.median(run[0] for run in runs)
        peak = max(run[2] for run in runs)
        _, rows, _, errors, equal, compared = runs[0]
        shown.append(
            (
                name,
                f"{seconds:.2f}",
                f"{levels / seconds / 1e6:.1f}",
                f"{rows / seconds / 1e6:.1f}",
                f"{peak:.0f}",
                f"{errors:.0f}",
                f"{equal:,.0f} of {compared:,.0f}",
            )
        )
    return shown


def read_rows(root: Path) -> list[int]:
    """Return the number of depth rows of each part."""
    from mmdata.datasets.stretches import stretches_of

    return [stretch.rows for part in list_parts(root, "depth") for stretch in stretches_of(part)]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20_000_000, help="level rows, at least")
    options = parser.parse_args()
    if not SOURCE.exists():
        sys.exit(f"{SOURCE} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = tile_rows(root, options.rows)
        columns = figures("median s", "M level rows/s", "M rows/s", "peak MiB", "errors", "bbo equal")
        title = f"validate, {rows:,} level rows of one day and all other tables, {os.cpu_count()} cores"
        say_table(title, [*words("dataset"), *columns], measure(root, options.rounds), out=console())


if __name__ == "__main__":
    main()
