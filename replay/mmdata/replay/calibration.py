"""What a stretch of a recording says about a market: how orders are reached, how the mid moves.

A and k: how often market orders reach a distance from the mid, ``Λ(δ) = A exp(-k δ)`` a second and side.
Trades of one taker side at one exchange time are one sweep; how far it went beyond the best price of the
book before it is a whole number of ticks, geometric where Λ is exponential. Its maximum-likelihood
estimate has an honest standard error; the usual regression on cumulative counts has not (its counts are
nested). Sigma: the mean square of the mid's changes over a grid, over the grid's step.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.book import NO_PRICE
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market, load_market
from mmdata.datasets.times import Moment, iso
from mmdata.replay.clock import MAPPED, Timeline, map_clock, recorded, timeline

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

FEWEST_SWEEPS = 10
FEWEST_STEPS = 10
_NS = 1e9
_BUYS, _SELLS = 1, -1


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its standard error (None where there is none) and the size of its sample."""

    value: float
    se: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Intensity:
    """``Λ(δ) = A exp(-k δ)``: A in 1 / s, k in 1 / tick; their errors are strongly correlated."""

    a: Estimate
    k: Estimate


@dataclass(frozen=True, slots=True)
class Sweeps:
    """Market orders of a stretch; arrays of shape (n,)."""

    side: Ints
    """The taker's: 1 bought, -1 sold."""
    beyond: Ints
    """Ticks from the best price of the book before it to the worst price paid; below 0 inside it."""
    without_book: int
    """Sweeps left out, since no valid book of two sides preceded them."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was estimated from ``[start, end)``; None where it was not asked for."""

    start: int
    end: int
    intensity: Intensity | None = None
    """Both sides together."""
    buys: Intensity | None = None
    """Takers that bought: they reach asks. None where they are too few."""
    sells: Intensity | None = None
    inside: int = 0
    """Sweeps left out, since they traded inside the book before them: it was out of date."""
    without_book: int = 0
    sigma: Estimate | None = None
    """tick / √s"""
    grid_ns: int = 0
    """Step of the grid on which the mid was sampled."""
    order_size: Decimal | None = None
    """The median trade, down to a whole lot, at least one."""
    trades: int = 0


@dataclass(frozen=True, slots=True)
class Touches:
    """Best bid and ask from each message on, in ticks, by the exchange's clock; (n,) arrays."""

    acts: Ints
    valid: NDArray[np.bool_]
    bid: Ints
    ask: Ints

    @property
    def two_sided(self) -> NDArray[np.bool_]:
        """Where a mid exists."""
        return np.asarray(self.valid & (self.bid != NO_PRICE) & (self.ask != NO_PRICE), np.bool_)

    def before(self, n: int) -> Touches:
        """Return the first ``n``."""
        return Touches(self.acts[:n], self.valid[:n], self.bid[:n], self.ask[:n])


def calibrate(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
) -> Calibration:
    """Estimate A, k, sigma and the order size from a stretch of a recording.

    ``start`` and ``end`` are those of `mmdata.replay.simulate`: half-open, of the exchange's clock.
    UsageError: there is too little to estimate from; the sentence says of what.
    """
    from mmdata.replay.stream import build_tops, span

    begin, until = span(start, end)
    market = load_market(Path(root), exchange, symbol)
    times = timeline(market, map_clock(market, MAPPED))
    tops = build_tops(market)
    touches = Touches(times.acts, tops[:, 0] == 1, tops[:, 1], tops[:, 3])
    return estimate(market, times, touches, *recorded(market, times, begin, until))


def estimate(
    market: Market,
    times: Timeline,
    touches: Touches,
    start: int,
    end: int,
    wanted: Collection[str] = ("A", "k", "sigma", "order_size"),
) -> Calibration:
    """Estimate what is ``wanted`` from what was seen in ``[start, end)``, ns of the exchange's clock.

    UsageError: there is too little; the sentence says of what, and what to set instead.
    """
    where = f"{market.exchange} {market.symbol}, {iso(start)} to {iso(end)}"
    # What had not been seen by the end is not used: who trades from there on did not know it.
    known = int(np.searchsorted(times.seen, end))
    touches = touches.before(known)
    chosen = np.flatnonzero(
        (times.trade_acts >= start) & (times.trade_seen < end) & ~market.trades.backfilled[times.trade]
    )
    parts: dict[str, Any] = {"trades": len(chosen)}
    if {"A", "k"} & set(wanted):
        parts.update(_intensities(where, market, times, touches, chosen, start, end))
    if "sigma" in wanted:
        grid_ns = _grid_ns(end - start)
        parts.update(sigma=_volatility(where, touches, start, end, grid_ns), grid_ns=grid_ns)
    if "order_size" in wanted:
        parts["order_size"] = _order_size(where, market, times.trade[chosen])
    return Calibration(start, end, **parts)


def fit_depths(depths: Floats, seconds: float, half_spread: float = 0.0) -> Intensity:
    """Fit A and k to distances reached from the mid, continuous and all at least ``half_spread``.

    ``k = n / Σ(x - d)``, ``A = (n / T) exp(k d)``: the exact maximum-likelihood estimate.
    """
    n = len(depths)
    k = n / float(np.sum(depths - half_spread))
    return _intensity(k, k / math.sqrt(n), n, seconds * math.exp(-k * half_spread), half_spread)


def fit_ticks(beyond: Ints, seconds: Floats, half_spreads: Floats) -> Intensity:
    """Fit A and k to whole ticks that sweeps went beyond the touch (all >= 0, not all 0).

    ``half_spreads`` (m,) in ticks held for ``seconds`` (m,): with a constant one, A is the textbook's
    ``(n / T) exp(k d)``; where it varies, the chance of a sweep varies with it.
    """
    n = len(beyond)
    mean = float(beyond.mean())
    k = math.log1p(1 / mean)
    se = -math.expm1(-k) / math.sqrt(n * math.exp(-k))
    weight = seconds * np.exp(-k * half_spreads)
    exposure = float(weight.sum())
    return _intensity(k, se, n, exposure, float((weight * half_spreads).sum()) / exposure)


def _intensity(k: float, se: float, n: int, exposure: float, half_spread: float) -> Intensity:
    a = n / exposure
    relative = math.sqrt(1 / n + (half_spread * se) ** 2)  # of ln A, by the delta method
    return Intensity(Estimate(a, a * relative, n), Estimate(k, se, n))


def find_sweeps(market: Market, times: Timeline, touches: Touches, chosen: Ints) -> Sweeps:
    """Group trades (positions in the exchange's order) into sweeps, each against the book before it."""
    picked = times.trade[chosen]
    side = market.trades.side[picked].astype(np.int64)
    rank = np.lexsort((side, times.trade_acts[chosen]))
    acts, side, price = times.trade_acts[chosen][rank], side[rank], market.trades.price[picked][rank]
    if not len(acts):
        return Sweeps(side, price, 0)
    first = np.flatnonzero(np.concatenate(([True], (np.diff(acts) != 0) | (np.diff(side) != 0))))
    worst = np.maximum.reduceat(price * side, first)  # the highest paid, or the lowest taken
    acts, side = acts[first], side[first]
    # Strictly before: at the same time the book may hold the sweep already.
    before = np.searchsorted(touches.acts, acts, side="left") - 1
    usable = before >= 0
    usable[usable] = touches.two_sided[before[usable]]
    before, side, worst = before[usable], side[usable], worst[usable]
    best = np.where(side == _BUYS, touches.ask[before], -touches.bid[before])
    return Sweeps(side, worst - best, int((~usable).sum()))


def _intensities(
    where: str, market: Market, times: Timeline, touches: Touches, chosen: Ints, start: int, end: int
) -> dict[str, Any]:
    sweeps = find_sweeps(market, times, touches, chosen)
    # A book that is out of date puts trades inside its spread. They reach no order at or beyond the
    # touch of the mid that a strategy would see, and so do not count.
    outside = sweeps.beyond >= 0
    seconds, half_spreads = _exposure(touches, start, end)
    inside = int((~outside).sum())
    counted = (
        f"{int(outside.sum())} sweeps in it reached a valid book's best price ({inside} traded inside it, "
        f"{sweeps.without_book} had none)"
    )
    if outside.sum() < FEWEST_SWEEPS:
        raise UsageError(
            f"A and k cannot be estimated from {where}: {counted}, at least {FEWEST_SWEEPS} are needed; "
            f"set them by --set A=value --set k=value, or take a longer stretch"
        )
    if not sweeps.beyond[outside].any():
        raise UsageError(
            f"k cannot be estimated from {where}: each of the {counted} stopped at it; set it by "
            f"--set k=value (and A by --set A=value)"
        )

    def one_side(side: int) -> Intensity | None:
        beyond = sweeps.beyond[outside & (sweeps.side == side)]
        enough = len(beyond) >= FEWEST_SWEEPS and beyond.any()
        return fit_ticks(beyond, seconds, half_spreads) if enough else None

    return {
        # Each second counts once for either side.
        "intensity": fit_ticks(sweeps.beyond[outside], 2 * seconds, half_spreads),
        "buys": one_side(_BUYS),
        "sells": one_side(_SELLS),
        "inside": inside,
        "without_book": sweeps.without_book,
    }


def _exposure(touches: Touches, start: int, end: int) -> tuple[Floats, Floats]:
    """Return how many seconds of the stretch each book with a mid stood, and its half spread in ticks."""
    begins = np.clip(touches.acts, start, end)
    seconds = np.diff(np.append(begins, end)) / _NS
    stood = touches.two_sided & (seconds > 0)
    return seconds[stood], (touches.ask[stood] - touches.bid[stood]) / 2


def _grid_ns(length: int) -> int:
    """Return a grid of a second, or a hundredth of a short stretch, but not below 100 ms.

    Finer grids count the bounce between bid and ask as volatility.
    """
    return max(100_000_000, min(1_000_000_000, length // 100))


def _volatility(where: str, touches: Touches, start: int, end: int, grid_ns: int) -> Estimate:
    grid = np.arange(start, end, grid_ns)
    at = np.searchsorted(touches.acts, grid, side="right") - 1
    known = at >= 0
    known[known] = touches.two_sided[at[known]]
    at = np.maximum(at, 0)
    breaks = np.cumsum(~touches.valid) if len(touches.valid) else np.zeros(1, np.int64)
    mid2 = (touches.bid + touches.ask) if len(touches.bid) else np.zeros(1, np.int64)
    # A change across a hole is no change of a grid's step.
    whole = known[:-1] & known[1:] & (breaks[at[:-1]] == breaks[at[1:]])
    changes = np.diff(mid2[at])[whole] / 2
    n = len(changes)
    if n < FEWEST_STEPS:
        raise UsageError(
            f"sigma cannot be estimated from {where}: the book is valid over {n} steps of "
            f"{grid_ns / 1e6:g} ms, at least {FEWEST_STEPS} are needed; set it by --set sigma=value, or "
            f"take a longer stretch"
        )
    squares = changes**2
    if not squares.any():
        raise UsageError(
            f"sigma cannot be estimated from {where}: the mid never moved over {n} steps of "
            f"{grid_ns / 1e6:g} ms; set it by --set sigma=value"
        )
    variance = float(squares.mean())
    sigma = math.sqrt(variance / (grid_ns / _NS))
    # From the squares' own scatter: the changes have heavier tails than a Gaussian's.
    relative = float(squares.std(ddof=1)) / math.sqrt(n) / variance / 2
    return Estimate(sigma, sigma * relative, n)


def _order_size(where: str, market: Market, trades: Ints) -> Decimal:
    if not len(trades):
        raise UsageError(
            f"order_size cannot be estimated from {where}: it holds no trades; set it by "
            f"--set order_size=value"
        )
    return market.lot_size * max(1, math.floor(float(np.median(market.trades.size[trades]))))
