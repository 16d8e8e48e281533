"""What replaying costs beside hftbacktest, on the real capture of USDⓈ-M, tiled; medians of one run.

    python -m benchmarks.replay [--rows 20000000] [--rounds 5] [--folder DIR]

The book is rebuilt from columns in memory, its top noted after each message; hftbacktest replays the same
rows (through our export, in memory, no strategy) with each of its depth structures. Interleaved, one core
each. A sum over the same columns is what memory allows.

Needs the real captures (MMDATA_SHARED, default ../shared) and some 8 GB of memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.clients import RIVALS_PYTHON
from benchmarks.datasets import import_into, measured
from benchmarks.tiles import EXCHANGE, SYMBOL, USDM, write_tiled
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets import export
from mmdata.datasets.book import rebuild
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import Market

_REPLAY = Path(__file__).parent / "rivals/run_hftbacktest_replay.py"
_DEPTHS = {"hash": "hash map", "vector": "ROI vector"}


def main() -> None:
    """Make the material, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000_000, help="level rows, at least")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to work")
    options = parser.parse_args()
    if not USDM.exists():
        sys.exit(f"{USDM} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        market, files = prepare(Path(name), options.rows)
        title, rows = measure(market, files, options.rounds)
    say_table(title, [*words("what"), *figures("M rows/s", "times ours")], rows, out=console())


def prepare(folder: Path, rows: int) -> tuple[Market, list[Path]]:
    """Return the columns of a tiled capture, and the same as files of hftbacktest."""
    _, plain, _ = write_tiled(folder, rows)
    root = folder / "data"
    import_into(root, plain)
    report = export(root, "hftbacktest", folder / "npz", exchange=EXCHANGE, symbol=SYMBOL)
    files = [file.path for file in report.files if file.path.suffix == ".npz"]
    return load_market(root, EXCHANGE, SYMBOL), files


def measure(market: Market, files: Sequence[Path], rounds: int) -> tuple[str, list[tuple[str, ...]]]:
    """Rebuild and replay by turns; return the title and the rows of a table."""
    columns = market.columns
    # As words of 64 bits: of single bytes the adding would be measured.
    sides = columns.side[: len(columns.side) // 8 * 8].view(np.int64)
    read = (sides, columns.price, columns.size)
    taken: dict[str, list[float]] = {name: [] for name in ("ours", "memory", *_DEPTHS)}
    rebuild(columns, market.chain)  # compiled before the clock starts
    with rival(market, files, "hash") as by_hash, rival(market, files, "vector") as by_vector:
        for _ in range(rounds):
            taken["ours"].append(measured(lambda: rebuild(columns, market.chain)).wall)
            taken["memory"].append(measured(lambda: [np.sum(column) for column in read]).wall)
            taken["hash"].append(by_hash())
            taken["vector"].append(by_vector())
    middle = {name: median(own) for name, own in taken.items()}
    named = {
        "ours": "rebuild, top after each message",
        "memory": "a sum over the same columns",
        **{depth: f"hftbacktest, {name}" for depth, name in _DEPTHS.items()},
    }
    levels = len(columns.price)
    title = f"{levels:,} level rows in {len(columns.kind):,} messages of USDⓈ-M, {rounds} rounds"
    return title, [
        (what, f"{levels / middle[name] / 1e6:,.1f}", f"{middle[name] / middle['ours']:.1f}")
        for name, what in named.items()
    ]


@contextmanager
def rival(market: Market, files: Sequence[Path], depth: str) -> Iterator[Callable[[], float]]:
    """Have hftbacktest ready in a process of its own; yield what lets it replay once, in seconds."""
    told_of = (str(market.tick_size), str(market.lot_size), depth)
    command: list[str | Path] = [RIVALS_PYTHON, _REPLAY, *told_of, *files]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        told, asked = process.stdout, process.stdin
        assert told is not None
        assert asked is not None
        if told.readline().strip() != "ready":
            sys.exit(f"hftbacktest did not start: {' '.join(map(str, command[:2]))}")

        def replay() -> float:
            asked.write("go\n")
            asked.flush()
            return float(told.readline())

        yield replay
        asked.close()


if __name__ == "__main__":
    main()
