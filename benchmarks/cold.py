"""How long a new process needs from files that nobody has read to fills, beside hftbacktest.

    python -m benchmarks.cold [--rows 20000000] [--rounds 3] [--folder DIR]

Ours reads Parquet, without its column cache and with it; theirs an uncompressed ``.npz`` of its own. Files
are evicted before each run, compiled code is cached where it can be. Quotes each 100 ms as in
`benchmarks.replay`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.clients import RIVALS_PYTHON
from benchmarks.replay import HALF_SPREAD, LOTS, MOST, SKEW, Simulation, prepare
from benchmarks.tiles import EXCHANGE, SYMBOL, USDM
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import Quotes

_RIVAL = Path(__file__).parent / "rivals/run_hftbacktest_replay.py"


def main() -> None:
    """Make the material, measure, print a table; or, as a child, simulate once."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000_000, help="level rows, at least")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work")
    parser.add_argument("--child", type=Path, help="simulate this dataset once")
    options = parser.parse_args()
    if options.child:
        simulate_once(options.child)
        return
    if not USDM.exists():
        sys.exit(f"{USDM} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        title, rows = measure(Path(name), options.rows, options.rounds)
    say_table(title, [*words("what"), *figures("s", "M rows/s")], rows, out=console())


def simulate_once(root: Path) -> None:
    """Simulate a dataset, and print the fills."""
    market = replace(load_market(root, EXCHANGE, SYMBOL), quotes=Quotes.none())
    print(Simulation.of(market).run([HALF_SPREAD])[1][0])


def measure(folder: Path, rows: int, rounds: int) -> tuple[str, list[tuple[str, ...]]]:
    """Run each by turns in processes of their own; return the title and the rows of a table."""
    market, compressed = prepare(folder, rows)
    levels = len(market.columns.price)
    own = folder / "theirs.npz"
    np.savez(own, data=np.concatenate([np.load(path)["data"] for path in compressed]))
    root = folder / "data"
    quoting = f"{HALF_SPREAD},{SKEW},{LOTS},{MOST}"
    theirs = [str(market.tick_size), str(market.lot_size), "vector", quoting, str(own)]
    child = [sys.executable, "-m", "benchmarks.cold", "--child", str(root)]
    entries: dict[str, tuple[Sequence[str | Path], dict[str, str], Iterable[Path]]] = {
        "ours, Parquet": (child, {"MMDATA_COLUMN_CACHE": "0"}, [root]),
        "ours, column cache": (child, {}, [root]),  # which is in it
        "hftbacktest, ROI vector, its own file": ([RIVALS_PYTHON, _RIVAL, *theirs], {}, [own]),
    }
    taken: dict[str, list[float]] = {name: [] for name in entries}
    for turn in range(rounds + 1):
        for name, (command, extra, files) in entries.items():
            evict(files)
            begun = time.perf_counter()
            subprocess.run(
                command, env=os.environ | extra, input="go\n", text=True, capture_output=True, check=True
            )
            if turn:  # the first compiles, and fills the cache
                taken[name].append(time.perf_counter() - begun)
    middle = {name: median(own_) for name, own_ in taken.items()}
    return f"{levels:,} level rows of USDⓈ-M, new processes, files evicted, {rounds} rounds", [
        (name, f"{seconds:.2f}", f"{levels / seconds / 1e6:.1f}") for name, seconds in middle.items()
    ]


def evict(paths: Iterable[Path]) -> None:
    """Have the system forget what it holds of files, so that the next reader meets the disk."""
    for top in paths:
        for path in [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]:
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


if __name__ == "__main__":
    main()
