"""What the way of the data costs today: import, validate, rebuild, replay, simulate; medians of one run.

    python benchmarks/first_light.py [--rounds 5]

Reads the real captures (MMDATA_SHARED, default ../shared). Nothing is asserted: the later issues measure
against peers, and this is where they start from.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets import validate
from mmdata.datasets.book import rebuild
from mmdata.datasets.loading import load_market
from mmdata.recorder import import_sources
from mmdata.replay import replay, simulate

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MMDATA_SHARED") or REPOSITORY.parent / "shared")
SOURCES = [SHARED / f"data/binance/btcusdt_{day}.gz" for day in ("20240808", "20240809")]
EXCHANGE, SYMBOL = "binance", "BTCUSDT"


def timed(work: Callable[[], object], rounds: int) -> float:
    """Return the median seconds of ``rounds`` calls, after one that is not counted."""
    work()
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    if not SOURCES[0].exists():
        sys.exit(f"{SOURCES[0]} is missing: MMDATA_SHARED says where the real captures lie")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        size = sum(path.stat().st_size for path in SOURCES)

        def fresh_import() -> None:
            with tempfile.TemporaryDirectory() as out:
                import_sources(
                    SOURCES, Path(out), source_format="hftbacktest", exchange=EXCHANGE, symbol=SYMBOL
                )

        import_sources(SOURCES, root, source_format="hftbacktest", exchange=EXCHANGE, symbol=SYMBOL)
        market = load_market(root, exchange=EXCHANGE, symbol=SYMBOL)
        levels = len(market.columns.price)
        stored = sum(path.stat().st_size for path in root.rglob("*.parquet"))
        help_command = [sys.executable, "-m", "mmdata.cli.main", "--help"]
        rows = [
            ("import, all tables", timed(fresh_import, rounds), levels, "level rows/s"),
            (
                "load columns",
                timed(lambda: load_market(root, exchange=EXCHANGE, symbol=SYMBOL), rounds),
                levels,
                "level rows/s",
            ),
            (
                "rebuild the book",
                timed(lambda: rebuild(market.columns, market.chain), rounds),
                levels,
                "level rows/s",
            ),
            (
                "replay, one event at a time",
                timed(lambda: [*replay(root, exchange=EXCHANGE, symbol=SYMBOL)], rounds),
                len(market.order),
                "messages/s",
            ),
            (
                "simulate, 4 fill models, loading included",
                timed(lambda: simulate(root, exchange=EXCHANGE, symbol=SYMBOL), rounds),
                levels,
                "level rows/s",
            ),
            ("validate", timed(lambda: validate(root), rounds), levels, "level rows/s"),
            (
                "mmdata --help",
                timed(lambda: subprocess.run(help_command, capture_output=True, check=True), rounds),
                0,
                "",
            ),
        ]
    bytes_a_row = f"{size / levels:.1f} B a row gzipped, {stored / levels:.1f} B stored"
    title = f"real Binance capture, {levels:,} level rows, {bytes_a_row}"
    shown = [
        (name, f"{seconds:.3f}", f"{count / seconds:,.0f}" if count else "", unit)
        for name, seconds, count, unit in rows
    ]
    columns = [*words("what"), *figures("median s", "rate"), *words("of")]
    say_table(title, columns, shown, out=console())


if __name__ == "__main__":
    main()
