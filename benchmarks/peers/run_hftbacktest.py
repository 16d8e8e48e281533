"""Replay an exported `.npz` by hftbacktest as released, and note the best bid and ask at every feed.

    python run_hftbacktest.py TICK LOT ORDER OUT.npy FILE...

ORDER is ``local``: the strategy's book, at the times that it sees; or ``exchange``: a book fed with what
the exchange takes, at those times. Its own check of the order of events comes first. A row of OUT is
(time in ns, bid tick, ask tick, bid lots, ask lots); ticks as hftbacktest gives them for an empty side.
"""

from __future__ import annotations

import sys

import numpy as np
from hftbacktest import EXCH_EVENT, LOCAL_EVENT, BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.data import validate_event_order
from numba import njit


@njit
def play(backtest, lot, rows):  # type: ignore[no-untyped-def]
    """Fill ``rows`` with a row a feed, and return how many there are."""
    n = 0
    while backtest.wait_next_feed(False, 10**15) == 2:
        depth = backtest.depth(0)
        rows[n, 0] = backtest.current_timestamp
        rows[n, 1] = depth.best_bid_tick
        rows[n, 2] = depth.best_ask_tick
        bid, ask = depth.best_bid_qty, depth.best_ask_qty
        rows[n, 3] = 0 if np.isnan(bid) else round(bid / lot)
        rows[n, 4] = 0 if np.isnan(ask) else round(ask / lot)
        n += 1
    return n


def main() -> None:
    """Load, check, replay, save."""
    tick, lot, order, out, *files = sys.argv[1:]
    events = np.concatenate([np.load(path)["data"] for path in files])
    validate_event_order(events)
    if order == "exchange":
        events = events[events["ev"] & EXCH_EVENT == EXCH_EVENT]
        events["ev"] |= LOCAL_EVENT
        events["local_ts"] = events["exch_ts"]
    # The files themselves where they can be: they must load, not only their content.
    feed = events if order == "exchange" else files
    asset = (
        BacktestAsset()
        .data(feed)
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(float(tick))
        .lot_size(float(lot))
    )
    rows = np.empty((len(events), 5), np.int64)
    count = play(HashMapMarketDepthBacktest([asset]), float(lot), rows)
    np.save(out, rows[:count])


if __name__ == "__main__":
    main()
