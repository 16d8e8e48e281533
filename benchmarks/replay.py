"""What replaying and simulating cost beside hftbacktest, on the real capture of USDⓈ-M, tiled.

    python -m benchmarks.replay [--rows 20000000] [--rounds 5] [--sets 64] [--folder DIR]

1. The book is rebuilt from columns in memory, its top noted after each message; hftbacktest replays the same
   rows (through our export, in memory, no strategy) with each of its depth structures.
2. Quotes around a reservation price each 100 ms, 1 ms each way, a power queue: ours in the general engine,
   theirs with each depth structure. Both are fed book messages and trades alone.
3. So many parameter sets in one pass of ours, beside that many runs of theirs (one is timed).

Medians of one run, interleaved, one core each. A sum over the same columns is what memory allows. Needs the
real captures (MMDATA_SHARED, default ../shared) and some 8 GB of memory.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
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
from mmdata.datasets.market import Market, Quotes
from mmdata.replay import state as s
from mmdata.replay.clock import map_clock, timeline
from mmdata.replay.engine import Delay, Engine, Lane, Rules, feed_of
from mmdata.replay.quoting import AVELLANEDA_STOIKOV
from mmdata.replay.state import Feed

_REPLAY = Path(__file__).parent / "rivals/run_hftbacktest_replay.py"
_DEPTHS = {"hash": "hash map", "vector": "ROI vector"}
HALF_SPREAD, SKEW, LOTS, MOST = 5.0, 0.5, 10, 100
_LATENCY, _INTERVAL = 1_000_000, 100_000_000


def main() -> None:
    """Make the material, measure, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000_000, help="level rows, at least")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sets", type=int, default=64, help="parameter sets in one pass")
    parser.add_argument("--folder", type=Path, help="where to work")
    options = parser.parse_args()
    if not USDM.exists():
        sys.exit(f"{USDM} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        market, files = prepare(Path(name), options.rows)
        title, rows = measure(market, files, options.rounds, options.sets)
    say_table(title, [*words("what"), *figures("M rows/s", "times theirs")], rows, out=console())


def prepare(folder: Path, rows: int) -> tuple[Market, list[Path]]:
    """Return the columns of a tiled capture without quotes, and the same as files of hftbacktest."""
    _, plain, _ = write_tiled(folder, rows)
    root = folder / "data"
    import_into(root, plain)
    report = export(root, "hftbacktest", folder / "npz", exchange=EXCHANGE, symbol=SYMBOL)
    files = [file.path for file in report.files if file.path.suffix == ".npz"]
    return replace(load_market(root, EXCHANGE, SYMBOL), quotes=Quotes.none()), files


@dataclass(frozen=True, slots=True)
class Simulation:
    """Our engine on a recording in memory."""

    market: Market
    feed: Feed
    begin: int
    end: int

    @staticmethod
    def of(market: Market) -> Simulation:
        """Put a market on the exchange's clock."""
        times = timeline(market, map_clock(market))
        return Simulation(market, feed_of(market, times), int(times.seen[0]), int(times.acts[-1]) + 1)

    def run(self, half_spreads: Sequence[float]) -> tuple[float, list[int]]:
        """Return the seconds of one pass with a lane a half spread, and the fills of each."""
        engine = Engine(self.market.chain, AVELLANEDA_STOIKOV)
        engine.append(self.feed)
        engine.seat(
            [Lane("l2-queue", (half, SKEW, LOTS), Rules(MOST)) for half in half_spreads],
            interval=_INTERVAL,
            order=Delay.constant(_LATENCY),
            response=Delay.constant(_LATENCY),
        )
        engine.decide_from(self.begin)
        taken = measured(lambda: engine.advance(self.end)).wall
        return taken, engine.world.lanes.account[:, s.FILLS].tolist()


def measure(
    market: Market, files: Sequence[Path], rounds: int, sets: int
) -> tuple[str, list[tuple[str, ...]]]:
    """Rebuild, replay and simulate by turns; return the title and the rows of a table."""
    columns = market.columns
    # As words of 64 bits: of single bytes the adding would be measured.
    sides = columns.side[: len(columns.side) // 8 * 8].view(np.int64)
    read = (sides, columns.price, columns.size)
    own = Simulation.of(market)
    halves = [HALF_SPREAD + 0.5 * i for i in range(sets)]
    quoting = f"{HALF_SPREAD},{SKEW},{LOTS},{MOST}"
    taken: dict[str, list[float]] = {}
    fills: dict[str, int] = {}

    def note(name: str, seconds: float, filled: int = 0) -> None:
        taken.setdefault(name, []).append(seconds)
        fills[name] = filled

    # Compiled before the clock starts.
    rebuild(columns, market.chain)
    own.run(halves[:1])
    with ExitStack() as stack:
        theirs = {
            (strategy, depth): stack.enter_context(rival(market, files, depth, strategy))
            for strategy in ("none", quoting)
            for depth in _DEPTHS
        }
        for _ in range(rounds):
            note("rebuild", measured(lambda: rebuild(columns, market.chain)).wall)
            note("memory", measured(lambda: [np.sum(column) for column in read]).wall)
            seconds, filled = own.run(halves[:1])
            note("quoting", seconds, filled[0])
            seconds, filled = own.run(halves)
            note("sets", seconds, sum(filled))
            for (strategy, depth), play in theirs.items():
                note(f"{depth} {'none' if strategy == 'none' else 'quoting'}", *play())
    levels = len(columns.price)
    title = (
        f"{levels:,} level rows in {len(columns.kind):,} messages and {len(market.trades.order):,} trades of "
        f"USDⓈ-M, {rounds} rounds"
    )
    middle = {name: median(seconds) for name, seconds in taken.items()}

    def row(what: str, name: str, times: int = 1, against: str = "") -> tuple[str, str, str]:
        beside = [
            f"{times * middle[f'{depth} {against}'] / middle[name]:.1f} ({named})"
            for depth, named in _DEPTHS.items()
            if against
        ]
        told = f"{what}, {fills[name]:,} fills" if fills[name] else what
        return told, f"{times * levels / middle[name] / 1e6:,.1f}", ", ".join(beside)

    return title, [
        row("rebuild, top after each message", "rebuild", against="none"),
        *(row(f"hftbacktest, no strategy, {named}", f"{depth} none") for depth, named in _DEPTHS.items()),
        row("quotes each 100 ms, L2 queue", "quoting", against="quoting"),
        *(row(f"hftbacktest, the same, {named}", f"{depth} quoting") for depth, named in _DEPTHS.items()),
        row(f"{sets} parameter sets in one pass", "sets", sets, "quoting"),
        row("a sum over the same columns", "memory"),
    ]


@contextmanager
def rival(
    market: Market, files: Sequence[Path], depth: str, strategy: str
) -> Iterator[Callable[[], tuple[float, int]]]:
    """Have hftbacktest ready in a process of its own; yield what lets it replay once: seconds, and fills."""
    told_of = (str(market.tick_size), str(market.lot_size), depth, strategy)
    command: list[str | Path] = [RIVALS_PYTHON, _REPLAY, *told_of, *files]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        told, asked = process.stdout, process.stdin
        assert told is not None
        assert asked is not None
        if told.readline().strip() != "ready":
            sys.exit(f"hftbacktest did not start: {' '.join(map(str, command[:2]))}")

        def replay() -> tuple[float, int]:
            asked.write("go\n")
            asked.flush()
            seconds, filled, _ = told.readline().split()
            return float(seconds), int(filled)

        yield replay
        asked.close()


if __name__ == "__main__":
    main()
