"""Compile ahead what most tests need: many processes that start at once would each compile it anew."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def record() -> None:
    """Record, certify and validate a little, and let a plain function trade."""
    from mmdata.datasets import validate
    from mmdata.recorder import levels
    from mmdata.recorder.segments import recover_all
    from tests.certified import write_capture
    from tests.wild import PLAIN

    levels.warm_up()
    with TemporaryDirectory() as folder:
        root = Path(folder) / "data"
        write_capture(root)
        recover_all(root)
        validate(root)
    trade_with(PLAIN)


def trade() -> None:
    """Let the strategies trade that several files of tests share."""
    from mmdata.replay import warm_up
    from tests.wild import COMPILED

    warm_up()
    trade_with(COMPILED)


def trade_with(strategy: object) -> None:
    """Let a strategy of `tests.wild` look at a market in which nothing happens."""
    from mmdata.replay.simulator import run
    from mmdata.replay.sketch import EPOCH, Sketch
    from mmdata.replay.strategies import find_strategy

    sketch = Sketch()
    sketch.book(0, bids={100: 5, 99: 5}, asks={102: 5, 103: 5})
    sketch.diff(1000, bids={99: 1})
    found = find_strategy(strategy)  # type: ignore[arg-type]
    run(sketch.market(), strategy=found, models=("price-cross",), signals=([EPOCH], [0.0]))


def main() -> None:
    """Do both at once."""
    both = [multiprocessing.get_context("spawn").Process(target=deed) for deed in (record, trade)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    sys.exit(any(process.exitcode for process in both))


if __name__ == "__main__":
    main()
