"""Tick and lot of a recording: what was told of them, and the grid on which all its values lie.

Tick and lot are found apart from one another: a size off the lot says nothing about the tick. Sizes do
lie off the lot that a venue tells today (an order may rest since the lot was finer), so the unit in
which sizes are counted may be finer than the step that orders have to keep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from typing import Final, Literal

import pyarrow as pa

from mmdata.datasets.decimals import common_divisor, divisor_of, shortest

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
                if len(chunk) == chunk.null_count:
                    continue
                step = divisor_of(chunk)
                if name.endswith("size"):
                    self.lot = step if self.lot is None else common_divisor(self.lot, step)
                else:
                    self.tick = step if self.tick is None else common_divisor(self.tick, step)


def in_force(told: Iterable[Instrument]) -> list[Instrument]:
    """Return the rows that count, in order: of each session the user's if there are any, else the venue's."""
    rows = sorted((row for row in told if row.source != DERIVED), key=lambda row: row.order)
    by_user = {row.session for row in rows if row.source == USER}
    return [row for row in rows if row.source == USER or row.session not in by_user]


def told_unit(of: Step, told: Sequence[Instrument]) -> Unit | None:
    """Return the coarsest unit that holds every tick (or lot) in force; None: nothing was told."""
    rows = in_force(told) or list(told)
    if not rows:
        return None
    return Unit(shortest(reduce(common_divisor, (row.step(of) for row in rows))), rows[-1].source)


def common_unit(told: Unit | None, divisor: Decimal) -> Unit:
    """Return the coarsest unit that holds what was told and all values.

    ``divisor`` is the greatest common one of the values; 0: there are none, or all are 0. The source is that
    of what was told, or ``derived`` where a value lies off it or nothing was told.
    """
    unit = divisor if told is None else common_divisor(told.size, divisor)
    if told is not None and unit == told.size:
        return told
    return Unit(shortest(unit) if unit else Decimal(1), DERIVED)


def find_unit(of: Step, told: Sequence[Instrument], values: Sequence[pa.ChunkedArray]) -> Unit:
    """Return `common_unit` of what was told and of these values."""
    return common_unit(told_unit(of, told), reduce(common_divisor, map(divisor_of, values), Decimal(0)))
