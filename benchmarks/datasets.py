"""What making and checking a dataset costs, on the real capture of USDⓈ-M, tiled; medians of one run.

    python -m benchmarks.datasets [import ...] [--rows 20000000] [--rounds 3] [--folder DIR]

``import``: from ``.gz`` beside hftbacktest's own converter; from uncompressed bytes in the page cache beside
one pyarrow thread that writes the depth table alone; bytes a row of each form. ``validate``: a day of as many
rows, streamed through all checks.

Needs the real captures (MMDATA_SHARED, default ../shared), some 6 GB of memory and 4 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pyarrow.parquet as pq

from benchmarks import validating
from benchmarks.clients import RIVALS_PYTHON
from benchmarks.tiles import EXCHANGE, SYMBOL, USDM, write_tiled
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from mmdata.datasets.publish import ROW_GROUP, encoding
from mmdata.recorder import import_sources

_CONVERTER = Path(__file__).parent / "rivals/run_hftbacktest.py"
Row = tuple[str, str, str]
"""What was measured, the figure, and how it compares."""


class Taken(NamedTuple):
    """Seconds."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Material:
    """The tiled capture on disk, and the folder for what is made of it."""

    folder: Path
    packed: Path
    plain: Path
    levels: int
    """Level rows of its diffs."""


def main() -> None:
    """Make the material, measure, print a table an entry."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", nargs="*", help=f"of {', '.join(ENTRIES)}; all of them when none is named")
    parser.add_argument("--rows", type=int, default=20_000_000, help="level rows, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work, on a disk as a dataset's")
    options = parser.parse_args()
    if not USDM.exists():
        sys.exit(f"{USDM} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        material = Material(folder, *write_tiled(folder, options.rows))
        for entry in options.entries or ENTRIES:
            title, rows = ENTRIES[entry](material, options.rounds)
            say_table(title, [*words("what"), *figures("median"), *words("compared")], rows, out=console())


def measure_import(material: Material, rounds: int) -> tuple[str, Sequence[Row]]:
    """Import both forms, convert with hftbacktest, and write the depth table alone; interleaved."""
    import_into(material.folder / "warm", USDM)
    taken: dict[str, list[Taken]] = {"gz": [], "plain": [], "parquet": [], "rival": []}
    npz = material.folder / "rival.npz"
    out = material.folder / "data"
    for _ in range(rounds):
        for form, source in (("gz", material.packed), ("plain", material.plain)):
            shutil.rmtree(out, ignore_errors=True)
            read_through(material.plain if form == "plain" else material.packed)
            taken[form].append(measured(partial(import_into, out, source)))
        taken["parquet"].append(write_depth_alone(out, material.folder / "alone.parquet"))
        taken["rival"].append(convert_by_rival(material.packed, npz))
    rate = {what: material.levels / median(own.wall for own in found) for what, found in taken.items()}
    cpu = {what: 1e9 * median(own.cpu for own in found) / material.levels for what, found in taken.items()}
    depth = sum(part.path.stat().st_size for part in list_parts(out, "depth"))
    stored = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    size = {path: path.stat().st_size / material.levels for path in (npz, material.packed)}
    title = f"import of {material.levels:,} level rows of USDⓈ-M, {rounds} rounds"
    told = [
        ("from .gz, all tables", "gz", f"{rate['gz'] / rate['rival']:.1f} times hftbacktest"),
        ("hftbacktest's converter, from .gz, no file written", "rival", ""),
        ("from bytes, all tables", "plain", f"{rate['plain'] / rate['parquet']:.0%} of pyarrow's"),
        ("one pyarrow thread writes the depth table alone", "parquet", ""),
    ]
    return title, [
        *((f"level rows a second: {what}", f"{rate[own]:,.0f}", than) for what, own, than in told),
        *((f"CPU ns a level row: {what}", f"{cpu[own]:,.0f}", "") for what, own, _ in told),
        ("bytes a level row: the depth table", f"{depth / material.levels:.2f}", ""),
        ("bytes a level row: all tables", f"{stored / material.levels:.2f}", "bbo and trades too"),
        ("bytes a level row: hftbacktest's .npz", f"{size[npz]:.2f}", "no ids, no bbo, floats"),
        ("bytes a level row: .gz", f"{size[material.packed]:.2f}", ""),
    ]


def import_into(out: Path, source: Path) -> None:
    """Import a capture of hftbacktest's collector."""
    import_sources([source], out, source_format="hftbacktest", exchange=EXCHANGE, symbol=SYMBOL)


def write_depth_alone(root: Path, target: Path) -> Taken:
    """Return what one pyarrow thread needs to write the depth table, a part at a time, read beforehand."""
    wall = cpu = 0.0
    for part in list_parts(root, "depth"):
        rows = read_part(part).combine_chunks()
        write = partial(pq.write_table, rows, target, row_group_size=ROW_GROUP, **encoding(rows.column_names))
        taken = measured(write)
        wall, cpu = wall + taken.wall, cpu + taken.cpu
    target.unlink()
    return Taken(wall, cpu)


def convert_by_rival(source: Path, target: Path) -> Taken:
    """Return what hftbacktest's converter needs, in its own environment; ``target`` is not counted."""
    command = [RIVALS_PYTHON, _CONVERTER, source, target]
    run = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return Taken(**json.loads(run.stdout))


def read_through(path: Path) -> None:
    """Have the page cache hold a file."""
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass


def measured(work: Callable[[], object]) -> Taken:
    """Return how long a call takes, in all its threads."""
    begun, cpu_begun = time.perf_counter(), time.process_time()
    work()
    return Taken(time.perf_counter() - begun, time.process_time() - cpu_begun)


def measure_validation(material: Material, rounds: int) -> tuple[str, Sequence[Row]]:
    """Validate a day of as many rows, as it was published and compacted."""
    root = material.folder / "day"
    levels = validating.tile_rows(root, material.levels)
    told: list[Row] = []
    for name, _, rate, of_all, peak, errors, equal in validating.measure(root, rounds):
        what = f"{of_all} M rows/s of all tables; {peak} MiB at most; {errors} errors, bbo equal {equal}"
        told.append((f"validate, {name}", f"{rate} M", what))
    return f"validation of {levels:,} level rows and all other tables, {rounds} rounds", told


ENTRIES: dict[str, Callable[[Material, int], tuple[str, Sequence[Row]]]] = {
    "import": measure_import,
    "validate": measure_validation,
}
"""By name: an entry measures, and returns the title of its table and its rows."""


if __name__ == "__main__":
    main()
