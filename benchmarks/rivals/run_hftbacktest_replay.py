"""Replay events by hftbacktest as released, with no strategy: once for each line of standard input.

    python run_hftbacktest_replay.py TICK LOT DEPTH FILE...

DEPTH is ``hash`` or ``vector``, its two depth structures. Prints ``ready`` once events are in memory and
everything is compiled, then the seconds of each replay.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest, ROIVectorMarketDepthBacktest
from numba import njit

_STEP = 60_000_000_000  # ns


@njit
def play(backtest):  # type: ignore[no-untyped-def]
    """Go through all events."""
    while backtest.elapse(_STEP) == 0:
        pass


def replay(events: np.ndarray, tick: str, lot: str, depth: str) -> float:
    """Return the seconds that a replay takes."""
    asset = (
        BacktestAsset()
        .data(events)
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(float(tick))
        .lot_size(float(lot))
    )
    if depth == "vector":
        prices = events["px"][events["px"] > 0]
        asset = asset.roi_lb(float(prices.min())).roi_ub(float(prices.max()))
        backtest = ROIVectorMarketDepthBacktest([asset])
    else:
        backtest = HashMapMarketDepthBacktest([asset])
    begun = time.perf_counter()
    play(backtest)
    return time.perf_counter() - begun


def main() -> None:
    """Load, compile, replay whenever asked to."""
    tick, lot, depth, *files = sys.argv[1:]
    events = np.concatenate([np.load(path)["data"] for path in files])
    replay(events[:1000].copy(), tick, lot, depth)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(replay(events, tick, lot, depth), flush=True)


if __name__ == "__main__":
    main()
