"""Avellaneda and Stoikov's quotes as a strategy: compiled, for the built-in name."""

from __future__ import annotations

from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.jit import kernel
from mmdata.replay import desk as desks
from mmdata.replay import fills
from mmdata.replay import state as s
from mmdata.replay import view as views
from mmdata.replay.desk import Desk, inventory, keep, most, quantise, tick
from mmdata.replay.strategies import TOP, Strategy
from mmdata.replay.view import View, best_ask, best_bid, mid

HALF_SPREAD, SKEW, ORDER_LOTS = 0, 1, 2  # of `View.parameter`


@kernel(desks, fills, s, views)
def avellaneda_stoikov(view: View, desk: Desk) -> None:
    """Keep one order a side around the reservation price, never more than may be held.

    With a horizon that rolls along, half spread and skew do not change within a run.
    """
    half_spread, skew = view.parameter[HALF_SPREAD], view.parameter[SKEW]
    order_lots = int(view.parameter[ORDER_LOTS])
    held, limit = inventory(desk), most(desk)
    centre = mid(view) - held / order_lots * skew
    bid, ask = quantise(
        centre - half_spread, centre + half_spread, best_bid(view), best_ask(view), tick(desk)
    )
    keep(desk, 0, BID, bid, max(0, min(order_lots, limit - held)) if bid > 0 else 0)
    keep(desk, 1, ASK, ask, max(0, min(order_lots, limit + held)) if ask > 0 else 0)


AVELLANEDA_STOIKOV = Strategy(
    "avellaneda-stoikov",
    avellaneda_stoikov,
    sees=TOP,
    built_in=True,
    steady=True,
)
"""Half spread (ticks), skew (ticks an order held) and lots of an order follow from settings: `parameters`."""
