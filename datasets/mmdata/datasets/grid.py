"""Tick and lot of a recording: what was told of them, and the grid on which all its values lie.

Tick and lot are found apart from one another: a size off the lot says nothing about the tick. Sizes do
lie off the lot that a venue tells today (an order may rest since the lot was finer), so the unit in
which sizes are counted may be finer than the step that orders have to keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from mmdata.datasets.decimals import common_divisor, greatest_divisor, in_units, scaled, shortest

Step = Literal["tick", "lot"]
TICK: Final = "tick"
LOT: Final = "lot"
USER, VENUE, DERIVED = "user", "venue", "derived"


@dataclass(frozen=True, slots=True)
class Instrument:
    """What a row of the table `instruments` says."""

    order: int
    """Place in the order of everything."""
    session: int
    ts_recv: int
    source: str
    """``venue``, ``user``, ``derived``."""
    tick_size: Decimal
    lot_size: Decimal
    contract_value: Decimal | None
    """Base or quote of one contract; None where trading is not in contracts."""

    def step(self, of: Step) -> Decimal:
        """Return tick or lot."""
        return self.tick_size if of == TICK else self.lot_size


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit in which prices, or sizes, are counted, and where it comes from."""

    size: Decimal
    source: str


class Divisors:
    """The greatest common divisors of the prices and of the sizes of one symbol, over all that was seen."""

    def __init__(self) -> None:
        self.tick: Decimal | None = None
        self.lot: Decimal | None = None

    def see(self, rows: pa.Table) -> None:
        """Take the prices and sizes of some rows in: all their columns of decimals."""
        for name in (name for name in rows.column_names if pa.types.is_decimal(rows[name].type)):
            for chunk in rows[name].chunks:
                values = scaled(chunk)
                if not values.size:
                    continue
                step = Decimal(greatest_divisor(values)).scaleb(-chunk.type.scale)
                if name.endswith("size"):
                    self.lot = step if self.lot is None else common_divisor(self.lot, step)
                else:
                    self.tick = step if self.tick is None else common_divisor(self.tick, step)


def in_force(told: Iterable[Instrument]) -> list[Instrument]:
    """Return the rows that count, in order: of each session the user's if there are any, else the venue's."""
    rows = sorted((row for row in told if row.source != DERIVED), key=lambda row: row.order)
    by_user = {row.session for row in rows if row.source == USER}
    return [row for row in rows if row.source == USER or row.session not in by_user]


def find_unit(of: Step, told: Sequence[Instrument], values: Sequence[pa.ChunkedArray]) -> Unit:
    """Return the coarsest unit that holds every tick (or lot) in force and every value.

    Its source is that of what was told, or ``derived`` where a value lies off it or nothing was told.
    """
    rows = in_force(told) or list(told)
    columns = [column for column in values if len(column) > column.null_count]
    if rows:
        unit = reduce(common_divisor, (row.step(of) for row in rows))
        if not any(in_units(column, unit)[1].any() for column in columns):
            return Unit(shortest(unit), rows[-1].source)
    else:
        unit = Decimal(0)
    for column in columns:
        divisor = math.gcd(*(int(value) for value in np.unique(scaled(column))))
        here = Decimal(divisor).scaleb(-column.type.scale)
        unit = common_divisor(unit, here) if unit and here else unit or here
    return Unit(shortest(unit) if unit else Decimal(1), DERIVED)
