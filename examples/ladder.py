"""A ladder of quotes around the microprice, leaning against what is held: a strategy in thirty lines.

mmdata replay data --exchange binance --symbol BTCUSDT --strategy examples/ladder.py:ladder --set lots=200
"""

from __future__ import annotations

from numba import njit

from mmdata.replay.desk import ASK, BID, Desk, inventory, keep, quantise, tick
from mmdata.replay.strategies import strategy
from mmdata.replay.view import View, best_ask, best_bid, microprice

LEVELS = 3


@strategy(
    slots=2 * LEVELS,
    sees="top",
    offset=(2.0, 0.0, 1000.0),
    step=(2.0, 1.0, 1000.0),
    lots=(1.0, 1.0, 1e9),
    lean=(0.5, 0.0, 1000.0),
)
@njit()
def ladder(view: View, desk: Desk) -> None:
    """Keep LEVELS orders a side, ``step`` ticks apart; ``lean``: ticks that an order held moves them."""
    offset, step, lots, lean = view.parameter
    centre = microprice(view) - lean * inventory(desk) / lots
    for level in range(LEVELS):
        away = offset + level * step
        bid, ask = quantise(centre - away, centre + away, best_bid(view), best_ask(view), tick(desk))
        keep(desk, 2 * level, BID, bid, int(lots))
        keep(desk, 2 * level + 1, ASK, ask, int(lots))
