"""Let hftbacktest as released quote both sides of a fixed distance from the mid, and note its fills.

    python run_hftbacktest_fills.py SETTINGS.json FOLDER

Settings, a list: ``files`` as our export writes them, ``tick`` and ``lot``, ``exchange`` (``whole`` or
``partial``), ``queue`` (its rule) and ``power``, ``entry`` and ``response`` latency, ``begin``, ``end`` and
``interval`` of decisions (ns), ``offset`` in ticks, ``size`` in lots and ``skew``, the ticks by which both
prices move against each order's size that is held; ``orders``, where given, are sent instead: rows of time,
1 to buy or -1 to sell, price in ticks, lots. A row of FOLDER/fills-N.npy is (time at the exchange, number of
the order, 1 or -1, price in ticks, lots). Printed is a JSON of how each ended.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hftbacktest import (
    BUY,
    FILLED,
    GTX,
    LIMIT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
)
from hftbacktest.order import PARTIALLY_FILLED
from numba import njit

_MOST = 1 << 20  # orders, and fills
_NO_BID, _NO_ASK = -(2**63), 2**63 - 1


@njit
def note(backtest, lot, leaves, fills, count):  # type: ignore[no-untyped-def]
    """Note what has filled since the last look."""
    values = backtest.orders(0).values()
    while values.has_next():
        order = values.get()
        if order.status not in (FILLED, PARTIALLY_FILLED):
            continue
        lots = round((leaves[order.order_id] - order.leaves_qty) / lot)
        if lots > 0:
            leaves[order.order_id] = order.leaves_qty
            fills[count, 0] = order.exch_timestamp
            fills[count, 1] = order.order_id
            fills[count, 2] = order.side
            fills[count, 3] = order.exec_price_tick
            fills[count, 4] = lots
            count += 1
    return count


@njit
def wait(backtest, until, lot, leaves, fills, count):  # type: ignore[no-untyped-def]
    """Let time pass up to ``until``; return how it ended, 0 where nothing was wrong, and the fills."""
    while backtest.current_timestamp < until:
        ended = backtest.wait_next_feed(True, until - backtest.current_timestamp)
        count = note(backtest, lot, leaves, fills, count)
        if ended not in (0, 2, 3):
            return ended, count
    return 0, count


@njit
def send(backtest, number, side, price, lots, tick, lot, leaves):  # type: ignore[no-untyped-def]
    """Send a post-only order."""
    leaves[number] = lots * lot
    if side == BUY:
        backtest.submit_buy_order(0, number, price * tick, lots * lot, GTX, LIMIT, False)
    else:
        backtest.submit_sell_order(0, number, price * tick, lots * lot, GTX, LIMIT, False)


@njit
def quote(backtest, begin, end, interval, offset, size, skew, tick, lot, leaves, fills):  # type: ignore[no-untyped-def]
    """Quote until ``end``; return how it ended, how many orders were sent, how many fills there were."""
    number = 0
    cancelled = np.empty(64, np.int64)
    backtest.elapse(0)
    ended, count = wait(backtest, begin, lot, leaves, fills, 0)
    while ended == 0 and backtest.current_timestamp < end:
        backtest.clear_inactive_orders(0)
        depth = backtest.depth(0)
        bid, ask = depth.best_bid_tick, depth.best_ask_tick
        if bid != _NO_BID and ask != _NO_ASK:
            # What the strategy was told of; ``position`` knows nothing of partial fills.
            held = (fills[:count, 2] * fills[:count, 4]).sum()
            centre = 0.5 * (bid + ask) - skew * held / size
            for side in (1, -1):
                if side == BUY:
                    price = min(math.floor(centre - 0.5) - offset, ask - 1)
                else:
                    price = max(math.ceil(centre + 0.5) + offset, bid + 1)
                stands, off = False, 0
                values = backtest.orders(0).values()
                while values.has_next():
                    order = values.get()
                    if order.side != side:
                        continue
                    if order.price_tick == price:
                        stands = True
                    elif order.cancellable:
                        cancelled[off] = order.order_id
                        off += 1
                for i in range(off):
                    backtest.cancel(0, cancelled[i], False)
                if not stands:
                    number += 1
                    send(backtest, number, side, price, size, tick, lot, leaves)
        ended, count = wait(backtest, backtest.current_timestamp + interval, lot, leaves, fills, count)
    return ended, number, count


@njit
def send_all(backtest, orders, end, tick, lot, leaves, fills):  # type: ignore[no-untyped-def]
    """Send each of ``orders`` at its time; return as `quote` does."""
    backtest.elapse(0)
    ended, count = 0, 0
    for i in range(len(orders)):
        ended, count = wait(backtest, orders[i, 0], lot, leaves, fills, count)
        if ended != 0:
            return ended, i, count
        send(backtest, i + 1, orders[i, 1], orders[i, 2], orders[i, 3], tick, lot, leaves)
    ended, count = wait(backtest, end, lot, leaves, fills, count)
    return ended, len(orders), count


def asset_of(settings: dict[str, Any]) -> Any:
    """Return the market and the models."""
    asset = (
        BacktestAsset()
        .data(settings["files"])
        .linear_asset(1.0)
        .constant_order_latency(settings["entry"], settings["response"])
        .trading_value_fee_model(0, 0)
        .tick_size(float(settings["tick"]))
        .lot_size(float(settings["lot"]))
    )
    power = float(settings["power"])
    asset = {
        "risk-averse": lambda: asset.risk_adverse_queue_model(),
        "power": lambda: asset.power_prob_queue_model(power),
        "power2": lambda: asset.power_prob_queue_model2(power),
        "power3": lambda: asset.power_prob_queue_model3(power),
        "log": lambda: asset.log_prob_queue_model(),
        "log2": lambda: asset.log_prob_queue_model2(),
    }[settings["queue"]]()
    whole = settings["exchange"] == "whole"
    return asset.no_partial_fill_exchange() if whole else asset.partial_fill_exchange()


def trade(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Trade once, save the fills, and return how it ended."""
    backtest = HashMapMarketDepthBacktest([asset_of(settings)])
    tick, lot = float(settings["tick"]), float(settings["lot"])
    leaves, fills = np.zeros(_MOST), np.zeros((_MOST, 5), np.int64)
    if "orders" in settings:
        orders = np.array(settings["orders"], np.int64).reshape(-1, 4)
        ended, sent, count = send_all(backtest, orders, settings["end"], tick, lot, leaves, fills)
    else:
        grid = (settings[key] for key in ("begin", "end", "interval", "offset", "size", "skew"))
        ended, sent, count = quote(backtest, *grid, tick, lot, leaves, fills)
    np.save(out, fills[:count])
    state = backtest.state_values(0)
    return {
        "ended": int(ended),
        "at": int(backtest.current_timestamp),
        "sent": int(sent),
        "position": float(state.position),
        "balance": float(state.balance),
    }


def main() -> None:
    """Trade once for each of the settings: what is compiled serves them all."""
    path, folder = map(Path, sys.argv[1:])
    runs = json.loads(path.read_text())
    print(json.dumps([trade(settings, folder / f"fills-{i}.npy") for i, settings in enumerate(runs)]))


if __name__ == "__main__":
    main()
