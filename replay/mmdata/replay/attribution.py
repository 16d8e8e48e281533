"""Where a profit came from: spread, inventory, fees; exactly.

With a fill's side s (1 bought, -1 sold), lots n, price p and the mid m at the fill, and the mid at the
end M: what the position is worth, Σ -s n p + (Σ s n) M, equals Σ s n (m - p) + Σ s n (M - m). The first
sum is the spread captured at the fills, the second what the mid did to the inventory afterwards. In whole
half ticks times lots nothing is rounded, so that the parts add up to the last unit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Context, Decimal, localcontext

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

EXACT = Context(prec=100)
"""Digits enough that no product of a run's decimals is rounded; the default's 28 are not."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """A profit and its parts, in the quote currency: ``total = spread + inventory - fees``."""

    total: Decimal
    spread: Decimal
    """What the fills were better than the mid."""
    inventory: Decimal
    """What the mid did to the inventory."""
    fees: Decimal
    """Positive: paid; negative: rebates."""


def attribute(
    side: Ints,
    price: Ints,
    lots: Ints,
    mid2: Ints,
    last_mid2: int,
    *,
    tick_size: Decimal,
    lot_size: Decimal,
    fees: Decimal | Iterable[Decimal] = Decimal(0),
) -> Attribution:
    """Attribute the profit of fills that began without a position, the rest marked at the last mid.

    ``mid2`` and ``last_mid2`` are twice the mid, in ticks. ``fees``: what was paid in all, or a fill.
    """
    # Python's integers: a day of a liquid symbol may exceed 64 bits in ticks × lots.
    rows = list(zip(side.tolist(), price.tolist(), lots.tolist(), mid2.tolist(), strict=True))
    spread = sum(s * n * (m - 2 * p) for s, p, n, m in rows)
    inventory = sum(s * n * (last_mid2 - m) for s, _, n, m in rows)
    worth = sum(-2 * s * n * p for s, p, n, _ in rows) + last_mid2 * sum(s * n for s, _, n, _ in rows)
    assert worth == spread + inventory
    with localcontext(EXACT):
        unit = tick_size * lot_size / 2
        paid = fees if isinstance(fees, Decimal) else sum(fees, Decimal(0))
        return Attribution(worth * unit - paid, spread * unit, inventory * unit, paid)
