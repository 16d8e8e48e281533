"""Replay events by hftbacktest as released: once for each line of standard input.

    python run_hftbacktest_replay.py TICK LOT DEPTH STRATEGY FILE...

DEPTH is ``hash`` or ``vector``, its two depth structures. STRATEGY is ``none``, or
``HALF_SPREAD,SKEW,LOTS,MOST``: quotes around a reservation price each 100 ms (half spread and its shift an
order held in ticks, lots of an order, most lots held), a power queue, 1 ms each way. Prints ``ready`` once
events are in memory and everything is compiled, then seconds, fills and position of each replay.

Its exchange with partial fills ends such a run after some minutes of a recording with error 14 (an order's
status is not what it expects); the one that fills whole orders does not, and is the faster.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from hftbacktest import (
    BUY,
    GTX,
    LIMIT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
    ROIVectorMarketDepthBacktest,
)
from numba import njit

_STEP = 60_000_000_000  # ns
_INTERVAL = 100_000_000
_LATENCY = 1_000_000
_END_OF_DATA = 1


@njit
def play(backtest):  # type: ignore[no-untyped-def]
    """Go through all events."""
    while backtest.elapse(_STEP) == 0:
        pass


@njit
def quote(backtest, half_spread, skew, size, most):  # type: ignore[no-untyped-def]
    """Keep one order a side around the reservation price; return why it ended."""
    tick = backtest.depth(0).tick_size
    ended = 0
    while ended == 0:
        ended = backtest.elapse(_INTERVAL)
        if ended != 0:
            break
        backtest.clear_inactive_orders(0)
        depth = backtest.depth(0)
        position = backtest.position(0)
        best_bid, best_ask = depth.best_bid_tick, depth.best_ask_tick
        if best_bid <= 0 or best_ask >= 2**31 - 1:
            continue
        centre = 0.5 * (best_bid + best_ask) - position / size * skew
        bid = min(np.floor(centre - half_spread + 1e-9), best_ask - 1)
        ask = max(np.ceil(centre + half_spread - 1e-9), best_bid + 1)
        has_bid = has_ask = False
        orders = backtest.orders(0)
        values = orders.values()
        while values.has_next():
            order = values.get()
            wanted = bid if order.side == BUY else ask
            if order.price_tick == wanted:
                if order.side == BUY:
                    has_bid = True
                else:
                    has_ask = True
            elif order.cancellable:
                backtest.cancel(0, order.order_id, False)
        if not has_bid and position + size <= most:
            backtest.submit_buy_order(0, int(bid) * 2, bid * tick, size, GTX, LIMIT, False)
        if not has_ask and position - size >= -most:
            backtest.submit_sell_order(0, int(ask) * 2 + 1, ask * tick, size, GTX, LIMIT, False)
    return ended


def replay(events: np.ndarray, tick: str, lot: str, depth: str, strategy: str) -> tuple[float, int, float]:
    """Return the seconds that a replay takes, the fills, and what is held at its end."""
    quoted = strategy != "none"
    latency = _LATENCY if quoted else 0
    asset = (
        BacktestAsset()
        .data(events)
        .linear_asset(1.0)
        .constant_order_latency(latency, latency)
        .power_prob_queue_model(1.0)
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
    if quoted:
        half_spread, skew, lots, most = map(float, strategy.split(","))
        ended = quote(backtest, half_spread, skew, lots * float(lot), most * float(lot))
        if ended != _END_OF_DATA:
            sys.exit(f"hftbacktest ended with {ended} before the end of its data")
    else:
        play(backtest)
    taken = time.perf_counter() - begun
    state = backtest.state_values(0)
    return taken, int(state.num_trades), float(state.position)


def main() -> None:
    """Load, compile, replay whenever asked to."""
    tick, lot, depth, strategy, *files = sys.argv[1:]
    events = np.concatenate([np.load(path)["data"] for path in files])
    replay(events[:1000].copy(), tick, lot, depth, strategy)
    print("ready", flush=True)
    for _ in sys.stdin:
        print(*replay(events, tick, lot, depth, strategy), flush=True)


if __name__ == "__main__":
    main()
