"""Compiling ahead: every kernel once, on a sketched recording, so that real work starts at once."""

from __future__ import annotations

from decimal import Decimal


def warm_up() -> None:
    """Compile or load what `replay`, `tops` and `simulate` run, so that they compile nothing more.

    Takes some seconds where nothing lies in the cache of `mmdata.datasets.jit`; may run in a thread,
    since compiled code is the same for all of them.
    """
    from mmdata.datasets.book import rebuild
    from mmdata.replay.settings import Value
    from mmdata.replay.simulator import run
    from mmdata.replay.sketch import Sketch
    from mmdata.replay.stream import events, tops_of

    sketch = Sketch()
    sketch.book(0, bids={100: 5}, asks={102: 5})
    for at in range(10, 1000, 20):
        sketch.diff(at, bids={100: 5 + at % 3})
        sketch.trade(at + 10, "sell", 100, 2)
    market = sketch.market()
    rebuild(market.columns, market.chain)
    tops_of([market])
    for _ in events([[market]]):
        pass
    settings: dict[str, Value] = {"A": 1.0, "k": 1.0, "sigma": 1.0, "order_size": Decimal(1)}
    run(market, settings=settings)
