"""`bars`: a tape as open, high, low, close, volume; exact, whatever the number of trades.

Polars multiplies two decimals with silent truncation, so sums of price times size are taken over 128-bit
integers: of the last decimal place, or, where values are wide, of tick and lot.
"""

from __future__ import annotations

from decimal import Context, Decimal
from typing import Literal, get_args

import polars as pl

from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_instruments
from mmdata.datasets.messages import common_grid
from mmdata.datasets.reading import chosen_parts, trades
from mmdata.datasets.schema import NARROW
from mmdata.datasets.stores import Place, Root, root_of
from mmdata.datasets.times import Moment, interval_ns, span

Clock = Literal["ts_event", "ts_recv"]
_DAY_NS = 86_400_000_000_000
_CONTEXT = Context(prec=40)
_ROOM = 2.0**126  # of 128 bits: a sum below it did not overflow


def bars(
    root: Root,
    *,
    exchange: str,
    symbol: str,
    every: str | float,
    start: Moment | None = None,
    end: Moment | None = None,
    clock: Clock = "ts_event",
    prices: Literal["decimal", "float"] = "decimal",
) -> pl.DataFrame:
    """Return a row for each whole multiple of ``every`` in which there was a trade, in order of time.

    A bar at t holds the trades of ``[t, t + every)``; times without trades have no row. ``clock`` says by
    which time trades are put into bars and ``start`` and ``end`` are meant: the exchange's or the recorder's.
    By ``ts_event`` trades that were asked for later over REST are in their bars (of those received up to a
    day after ``end``), and those without a time of the exchange in none; by ``ts_recv`` what was asked for
    later is left out, since nobody had it then. The tape is that of `trades`.

    Columns: ``ts``, ``open``, ``high``, ``low``, ``close``, ``volume``, ``buy_volume`` and ``sell_volume``
    (by the taker), ``imbalance`` (their difference by their sum, float, -1 to 1), ``vwap`` (half of the last
    place rounded up), ``trades`` (rows of the tape: an aggregate counts once). Decimals, or float64.
    UsageError: ``every`` is no interval. DatasetError: a file is damaged, or a sum is beyond 128 bits.
    """
    if clock not in get_args(Clock):
        raise UsageError(f"clock={clock!r} is not known, expected one of {', '.join(get_args(Clock))}")
    if prices not in ("decimal", "float"):
        raise UsageError(f"prices={prices!r} is not known, expected decimal or float")
    step = interval_ns(every)
    where = root_of(root)
    begin, stop = span(start, end)
    # By the exchange's time: received a little before or after, or much later over REST.
    around = 0 if clock == "ts_recv" else _DAY_NS
    near = (None if begin is None else begin - around, None if stop is None else stop + around)
    tape = _tape(where, exchange, symbol, near, (begin, stop), clock)
    exact = tape.collect_schema()["price"]
    assert isinstance(exact, pl.Decimal)
    tick, lot = _units(where, exchange, symbol, exact, near)
    made = _fold(tape, clock, step, tick, lot).collect(engine="streaming")
    _require_room(made, f"{exchange} {symbol}", lot)
    decimals = _with_mean(made, tick, exact)
    return decimals if prices == "decimal" else decimals.with_columns(pl.col(pl.Decimal).cast(pl.Float64))


_Span = tuple[int | None, int | None]


def _tape(
    root: Place, exchange: str, symbol: str, received: _Span, within: _Span, clock: Clock
) -> pl.LazyFrame:
    """Return the trades received in a time that are within another by ``clock``."""
    begin, stop = received
    rows = trades(root, exchange=exchange, symbol=symbol, start=begin, end=stop)
    if clock == "ts_recv":
        return rows.filter(pl.col("origin") != "backfill")
    begin, stop = within
    when = pl.col("ts_event").dt.epoch("ns")
    rows = rows.filter(when.is_not_null())
    rows = rows if begin is None else rows.filter(when >= begin)
    return rows if stop is None else rows.filter(when < stop)


def _units(root: Place, exchange: str, symbol: str, exact: pl.Decimal, received: _Span) -> tuple[int, int]:
    """Return what prices and sizes are counted in, in their last decimal place.

    One, unless they are wide: a product of two numbers of 18 decimal places soon has no room.
    """
    if exact.scale == NARROW.scale:
        return 1, 1
    told = read_instruments(list_parts(root, "instruments", exchange=exchange, symbol=symbol))
    grid = common_grid(chosen_parts(root, "trades", exchange, symbol, *received), told)
    return int(grid.tick.size.scaleb(exact.scale)), int(grid.lot.size.scaleb(exact.scale))


def _fold(tape: pl.LazyFrame, clock: Clock, step: int, tick: int, lot: int) -> pl.LazyFrame:
    """Return the bars, and the sums that a mean is made of: in whole ticks and lots, 128 bits."""
    when = pl.col(clock).dt.epoch("ns")
    price, size = pl.col("price"), pl.col("size")
    ticks, lots = price.to_physical() // tick, size.to_physical() // lot
    return (
        tape.sort(clock, "trade_id", maintain_order=True)
        .with_columns(
            ts=(when // step * step).cast(pl.Datetime("ns", "UTC")),
            lots=lots.cast(pl.Int128),
            paid=ticks.cast(pl.Int128) * lots.cast(pl.Int128),
            ticks=ticks.cast(pl.Float64),
        )
        .group_by("ts")
        .agg(
            open=price.first(),
            high=price.max(),
            low=price.min(),
            close=price.last(),
            volume=size.sum(),
            buy_volume=size.filter(pl.col("side") == "buy").sum(),
            sell_volume=size.filter(pl.col("side") == "sell").sum(),
            trades=pl.len().cast(pl.Int64),
            lots=pl.col("lots").sum(),
            paid=pl.col("paid").sum(),
            most=pl.col("ticks").max() * pl.col("lots").cast(pl.Float64).sum(),
        )
        .sort("ts")
    )


def _require_room(made: pl.DataFrame, name: str, lot: int) -> None:
    """Raise DatasetError where a sum may have run over: integers would wrap around without a word."""
    largest = max(float(made["most"].max() or 0), float(made["lots"].cast(pl.Float64).max() or 0) * lot)  # type: ignore[arg-type]
    if largest >= _ROOM:
        raise DatasetError(
            f"{name}: price times size, summed over a bar, reaches {largest:.0e} units, beyond the 128 bits "
            f"that it is counted in; ask for shorter bars"
        )


def _with_mean(made: pl.DataFrame, tick: int, exact: pl.Decimal) -> pl.DataFrame:
    """Return the bars with the mean price by volume, to the last decimal place of prices."""
    sums = zip(made["paid"].to_list(), made["lots"].to_list(), strict=True)
    means = [
        None if not lots else Decimal((2 * paid * tick + lots) // (2 * lots)).scaleb(-exact.scale, _CONTEXT)
        for paid, lots in sums
    ]
    both = pl.col("volume").cast(pl.Float64)
    return made.select(
        *("ts", "open", "high", "low", "close", "volume", "buy_volume", "sell_volume"),
        imbalance=(pl.col("buy_volume") - pl.col("sell_volume")).cast(pl.Float64) / both,
        vwap=pl.Series(means, dtype=exact),
        trades="trades",
    )
