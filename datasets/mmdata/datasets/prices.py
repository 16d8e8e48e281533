"""How prices and sizes are handed out: exact decimals, floats, or whole ticks and lots."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets.decimals import decimal_array, in_units, shortest
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.grid import LOT, TICK, Instrument, Step, in_force
from mmdata.datasets.layout import Part, list_parts
from mmdata.datasets.market import read_instruments
from mmdata.datasets.schema import NARROW, WIDE
from mmdata.datasets.stores import Place
from mmdata.datasets.stretches import stretches_of
from mmdata.datasets.times import iso

if TYPE_CHECKING:
    import polars as pl

Prices = Literal["decimal", "float", "ticks"]
"""Decimals as stored; float64; int64 counts of the tick (prices) and the lot (sizes) in force."""


def require_known(prices: str) -> None:
    """Raise UsageError unless ``prices`` is a way to hand them out."""
    known = get_args(Prices)
    if prices not in known:
        raise UsageError(f"prices={prices!r} is not known, expected one of {', '.join(known)}")


def step_of(column: str) -> Step:
    """Return whether a column is counted in ticks or in lots."""
    return LOT if column.endswith("size") else TICK


def steps_in_force(
    root: Place, exchange: str, symbol: str, start: int | None, end: int | None, parts: Sequence[Part]
) -> dict[Step, Decimal]:
    """Return tick and lot of a symbol for what was received in ``[start, end)`` (ns).

    The table `instruments` says them; where it says nothing, the metadata of the files, ``parts``.
    UsageError: nothing does, or one of them changes within the time.
    """
    told = read_instruments(list_parts(root, "instruments", exchange=exchange, symbol=symbol))
    rows = _within(in_force(told) or list(told), start, end)
    if not rows:
        return _of_files(exchange, symbol, parts)
    return {of: _only(exchange, symbol, of, rows) for of in (TICK, LOT)}


def _within(rows: Iterable[Instrument], start: int | None, end: int | None) -> list[Instrument]:
    """Return what counts in a time: the last row before it (else the first), and those within."""
    ordered = sorted(rows, key=lambda row: row.ts_recv)
    known = 0 if start is None else sum(row.ts_recv <= start for row in ordered)
    kept = ordered[max(known - 1, 0) :]
    return [row for at, row in enumerate(kept) if at == 0 or end is None or row.ts_recv < end]


def _only(exchange: str, symbol: str, of: Step, rows: Sequence[Instrument]) -> Decimal:
    first = shortest(rows[0].step(of))
    for row in rows:
        now = shortest(row.step(of))
        if now != first:
            raise UsageError(
                f"{exchange} {symbol}: the {of} changed from {first} to {now}, told at {iso(row.ts_recv)}, "
                f"so one number would mean two prices: ask for a time before it or after it, or for decimals"
            )
    return first


def _of_files(exchange: str, symbol: str, parts: Sequence[Part]) -> dict[Step, Decimal]:
    found: dict[Step, Decimal] = {}
    names: tuple[tuple[Step, str], ...] = ((TICK, "tick_size"), (LOT, "lot_size"))
    for facts in (stretch.facts or {} for part in parts for stretch in stretches_of(part)):
        for of, name in names:
            if name not in facts:
                continue
            now = shortest(Decimal(facts[name]))
            if found.setdefault(of, now) != now:
                raise UsageError(
                    f"{exchange} {symbol}: the {of} changed from {found[of]} to {now} between its files, so "
                    f"one number would mean two prices: ask for a shorter time, or for decimals"
                )
    if len(found) < len(names):
        raise UsageError(
            f"{exchange} {symbol}: neither the table instruments nor the files say what tick and lot are, so "
            f"prices cannot be counted in them: ask for decimals or floats"
        )
    return found


def whole_steps(column: pa.Array, of: Step, step: Decimal) -> pa.Array:
    """Return decimals as whole ``step``s, int64, null for null. DatasetError: one is none."""
    found, off = in_units(column, step)
    if off.any():
        value = column.drop_null()[int(np.flatnonzero(off)[0])]
        raise _off(shortest(value.as_py()), int(off.sum()), of, step)
    whole = np.zeros(len(column), np.int64)
    null = column.is_null().to_numpy(zero_copy_only=False)
    whole[~null] = found
    return pa.array(whole, mask=null)


def _off(value: Decimal, count: int, of: Step, step: Decimal) -> DatasetError:
    others = f", nor are {count - 1} others" if count > 1 else ""
    return DatasetError(
        f"{value} is no whole multiple of the {of} {step}{others}: what rested in the book when a {of} grew "
        f"may lie off it; ask for decimals or floats"
    )


def hand_out(
    multiples: NDArray[np.int64],
    unit: Decimal,
    null: NDArray[np.bool_],
    prices: Prices,
    *,
    of: Step,
    step: Decimal | None,
    wide: bool,
) -> pl.Series:
    """Return ``multiples`` of ``unit`` as a series: decimals as the tables have them, floats, or steps."""
    import polars as pl

    if prices == "decimal":
        kind = WIDE if wide else NARROW
        made = decimal_array(np.where(null, 0, multiples), unit, null)
        series = pl.from_arrow(made.cast(kind) if made.type != kind else made)
        assert isinstance(series, pl.Series)
        return series
    if prices == "float":
        scale = max(0, -int(unit.as_tuple().exponent))
        values = (multiples * int(unit.scaleb(scale))) / float(10**scale)
        return pl.from_arrow(pa.array(values, mask=null))  # type: ignore[return-value]
    assert step is not None
    kept = np.where(null, 0, multiples)
    digits = max(0, *(-int(shortest(value).as_tuple().exponent) for value in (unit, step)))
    mine, coarse = int(unit.scaleb(digits)), int(step.scaleb(digits))
    if int(np.abs(kept).max(initial=0)) * mine >= 2**63:
        kept = kept.astype(object)
    off = np.asarray(kept * mine % coarse != 0, np.bool_)
    if off.any():
        raise _off(shortest(int(kept[off][0]) * unit), int(off.sum()), of, step)
    return pl.from_arrow(pa.array((kept * mine // coarse).astype(np.int64), mask=null))  # type: ignore[return-value]
