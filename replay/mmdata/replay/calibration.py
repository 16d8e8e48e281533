"""What a stretch of a recording says about a market: how orders are reached, how the mid moves.

A and k: how often market orders reach a distance from the mid, ``Λ(δ) = A exp(-k δ)`` a second and side.
Trades of one taker side at one exchange time are one sweep; how far it went beyond the best price before
it is a whole number of ticks, geometric where Λ is exponential. Its maximum-likelihood estimate has an
honest standard error; the usual regression on cumulative counts has not (its counts are nested).

The touch before a sweep is the venue's own where it was recorded (table `bbo`), else the last book
message's, which may be a whole interval old. An old touch puts some sweeps inside it, and as many others
too far beyond: all are counted, so that the errors cancel in the mean, and the standard errors grow by
what leaving out the ones inside would change. Whatever the book shows, a sweep begins at the best price:
unless some sweeps' own prices bear it out, nothing is said of k; and where the touch's errors drown how
far sweeps went beyond it, that is measured from their own first price.

Sigma: the mean square of the mid's changes over a grid, over the grid's step.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.book import NO_PRICE
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market
from mmdata.datasets.times import iso
from mmdata.replay.clock import Timeline

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BBO, DEPTH = "bbo", "depth"
FEWEST_SWEEPS = 10
FEWEST_BEYOND = 3
FEWEST_STEPS = 10
_NS = 1e9
_TOLD_APART = 2  # standard errors
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
    """Ticks from the best price before it to the worst price paid; below 0 inside the book."""
    range: Ints
    """Ticks from its own first price to its worst."""
    without_book: int
    """Sweeps left out, since no valid book of two sides preceded them."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was estimated from ``[start, end)``; None where it was not asked for."""

    start: int
    end: int
    stretch: str
    """What this is of all that was recorded."""
    intensity: Intensity | None = None
    """Both sides together."""
    buys: Intensity | None = None
    """Takers that bought: they reach asks. None where they are too few."""
    sells: Intensity | None = None
    touch: str = DEPTH
    """Against what sweeps were measured: ``bbo``, or ``depth`` where no quotes were recorded."""
    inside: int = 0
    """Sweeps that traded inside the book before them: it was out of date."""
    without_book: int = 0
    """Sweeps left out, since no valid book of two sides preceded them."""
    by_own_price: bool = False
    """True where the touch was too uncertain, and each sweep is measured from its own first price."""
    sigma: Estimate | None = None
    """tick / √s"""
    grid_ns: int = 0
    """Step of the grid on which the mid was sampled."""
    order_size: Decimal | None = None
    """The median trade, down to a whole lot, at least one."""
    trades: int = 0

    @property
    def inside_share(self) -> float:
        """The share of sweeps that traded inside the book before them."""
        return self.inside / self.intensity.k.n if self.intensity else 0.0


@dataclass(frozen=True, slots=True)
class Touches:
    """Best bid and ask at the exchange from each message or quote on, in ticks; (n,) arrays."""

    acts: Ints
    """ns of the exchange's clock, ascending."""
    seen: Ints
    valid: NDArray[np.bool_]
    bid: Ints
    ask: Ints
    told: NDArray[np.bool_]
    """True where a quote told it."""

    @staticmethod
    def of(market: Market, times: Timeline, valid: NDArray[np.bool_], bid: Ints, ask: Ints) -> Touches:
        """Join the tops after the first messages of ``market`` with its quotes, as the simulator does.

        A quote counts while the book is proven. At one moment the ids say which is the newer.
        """
        n, quotes = len(valid), market.quotes
        acts = times.acts[:n]
        until = times.acts[n] if n < len(times.acts) else 2**62
        before = np.searchsorted(acts, times.quote_acts, side="right") - 1
        usable = (before >= 0) & (times.quote_acts < until)
        usable[usable] = valid[before[usable]]
        at = np.maximum(before, 0)
        if n:
            tied = acts[at] == times.quote_acts
            usable &= ~(tied & (quotes.last_id <= market.columns.last_id[at]))
        chosen = np.flatnonzero(usable)
        joined = np.concatenate((acts, times.quote_acts[chosen]))
        told = np.repeat((False, True), (n, len(chosen)))
        rank = np.lexsort((told, joined))
        return Touches(
            acts=joined[rank],
            seen=np.concatenate((times.seen[:n], times.quote_seen[chosen]))[rank],
            valid=np.concatenate((valid, np.ones(len(chosen), np.bool_)))[rank],
            bid=np.concatenate((bid, quotes.bid_price[chosen]))[rank],
            ask=np.concatenate((ask, quotes.ask_price[chosen]))[rank],
            told=told[rank],
        )

    @property
    def two_sided(self) -> NDArray[np.bool_]:
        """Where a mid exists."""
        return np.asarray(self.valid & (self.bid != NO_PRICE) & (self.ask != NO_PRICE), np.bool_)

    def seen_before(self, end: int) -> Touches:
        """Return those that had been seen before ``end``, ns."""
        kept = self.seen < end
        return Touches(**{column.name: getattr(self, column.name)[kept] for column in fields(self)})


def estimate(
    market: Market,
    times: Timeline,
    touches: Touches,
    start: int,
    end: int,
    wanted: Collection[str] = ("A", "k", "sigma", "order_size"),
    stretch: str = "what was asked for",
) -> Calibration:
    """Estimate what is ``wanted`` from what was seen in ``[start, end)``, ns of the exchange's clock.

    ``stretch`` says what this is of all that was recorded. UsageError: there is too little; the sentence says
    of what, and what to set instead.
    """
    where = f"{market.exchange} {market.symbol}, {iso(start)} to {iso(end)}"
    # What had not been seen by the end is not used: who trades from there on did not know it.
    touches = touches.seen_before(end)
    chosen = np.flatnonzero(
        (times.trade_acts >= start) & (times.trade_seen < end) & ~market.trades.backfilled[times.trade]
    )
    parts: dict[str, Any] = {"trades": len(chosen)}
    if {"A", "k"} & set(wanted):
        parts.update(_intensities(where, market, times, touches, chosen, start, end))
    if "sigma" in wanted:
        seconds, _ = _exposure(touches, start, end)
        grid_ns = _grid_ns(round(float(seconds.sum()) * _NS))
        parts.update(sigma=_volatility(where, touches, start, end, grid_ns), grid_ns=grid_ns)
    if "order_size" in wanted:
        parts["order_size"] = _order_size(where, market, times.trade[chosen])
    return Calibration(start, end, stretch, **parts)


def fit_depths(depths: Floats, seconds: float, half_spread: float = 0.0) -> Intensity:
    """Fit A and k to distances reached from the mid, continuous and all at least ``half_spread``.

    ``k = n / Σ(x - d)``, ``A = (n / T) exp(k d)``: the exact maximum-likelihood estimate.
    """
    n = len(depths)
    k = n / float(np.sum(depths - half_spread))
    return _intensity(k, k / math.sqrt(n), n, seconds * math.exp(-k * half_spread), half_spread)


def fit_ticks(
    beyond: Ints, seconds: Floats, half_spreads: Floats, se_of_mean: float | None = None
) -> Intensity:
    """Fit A and k to whole ticks that sweeps went beyond the touch (above 0 in the mean).

    ``half_spreads`` (m,) in ticks held for ``seconds`` (m,): with a constant one, A is the textbook's
    ``(n / T) exp(k d)``; where it varies, the chance of a sweep varies with it. ``se_of_mean``: of
    ``beyond``, where it is not that of a geometric law, since the touch is uncertain.
    """
    n = len(beyond)
    mean = float(beyond.mean())
    k = math.log1p(1 / mean)
    se = -math.expm1(-k) / math.sqrt(n * math.exp(-k))
    if se_of_mean is not None:
        se = max(se, se_of_mean / (mean * (1 + mean)))
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
        return Sweeps(side, price, price, 0)
    first = np.flatnonzero(np.concatenate(([True], (np.diff(acts) != 0) | (np.diff(side) != 0))))
    worst = np.maximum.reduceat(price * side, first)  # the highest paid, or the lowest taken
    spanned = worst - np.minimum.reduceat(price * side, first)
    acts, side = acts[first], side[first]
    # Strictly before: at the same time the book may hold the sweep already.
    before = np.searchsorted(touches.acts, acts, side="left") - 1
    usable = before >= 0
    usable[usable] = touches.two_sided[before[usable]]
    before, side, worst = before[usable], side[usable], worst[usable]
    best = np.where(side == _BUYS, touches.ask[before], -touches.bid[before])
    return Sweeps(side, worst - best, spanned[usable], int((~usable).sum()))


def _intensities(
    where: str, market: Market, times: Timeline, touches: Touches, chosen: Ints, start: int, end: int
) -> dict[str, Any]:
    sweeps = find_sweeps(market, times, touches, chosen)
    quoted = bool((touches.told & (touches.acts >= start)).any())
    inside = int((sweeps.beyond < 0).sum())
    counted = (
        f"{len(sweeps.beyond) - inside} sweeps in it reached the best price of {BBO if quoted else DEPTH}, "
        f"{inside} traded inside it, {sweeps.without_book} had no valid book"
    )
    if len(sweeps.beyond) - inside < FEWEST_SWEEPS:
        raise UsageError(
            f"A and k cannot be estimated from {where}: {counted}; at least {FEWEST_SWEEPS} are needed; "
            f"set them by --set A=value --set k=value, or take a longer stretch"
        )
    seconds, half_spreads = _exposure(touches, start, end)
    # Each second counts once for either side.
    both = _fit(sweeps.beyond, sweeps.range, 2 * seconds, half_spreads, quoted)
    if isinstance(both, str):
        raise UsageError(
            f"k cannot be estimated from {where}: {counted}; {both}; set it by --set k=value (and A by "
            f"--set A=value)"
        )

    def one_side(side: int) -> Intensity | None:
        own = sweeps.side == side
        if (sweeps.beyond[own] >= 0).sum() < FEWEST_SWEEPS:
            return None
        found = _fit(sweeps.beyond[own], sweeps.range[own], seconds, half_spreads, quoted)
        return None if isinstance(found, str) else found[0]

    return {
        "intensity": both[0],
        "by_own_price": both[1],
        "buys": one_side(_BUYS),
        "sells": one_side(_SELLS),
        "touch": BBO if quoted else DEPTH,
        "inside": inside,
        "without_book": sweeps.without_book,
    }


def _fit(
    beyond: Ints, spanned: Ints, seconds: Floats, half_spreads: Floats, quoted: bool
) -> tuple[Intensity, bool] | str:
    """Fit A and k to sweeps measured against a touch that may be out of date; else say why not.

    True where they were measured from their own first price instead.
    """
    outside = beyond[beyond >= 0]
    if not outside.any():
        return "each of the first stopped at it"
    if len(outside) == len(beyond):
        return fit_ticks(beyond, seconds, half_spreads), False
    # With so few as are expected of several takers in one instant, only the touch's errors are seen.
    if (further := int((spanned > 0).sum())) < FEWEST_BEYOND:
        age = "the quotes" if quoted else "the book (record bbo to know the touch)"
        return (
            f"{further or 'none'} of them traded at more than one price, so what lies between their price "
            f"and the touch may be the age of {age}"
        )
    others = [fit_ticks(outside, seconds, half_spreads)]
    doubt = _se_of_mean(beyond)
    own = fit_ticks(spanned, seconds, half_spreads, _se_of_mean(spanned))
    if beyond.mean() <= _TOLD_APART * doubt:
        return _widened(own, others), True
    if not quoted:
        others.append(own)
    return _widened(fit_ticks(beyond, seconds, half_spreads, doubt), others), False


def _se_of_mean(sample: Ints) -> float:
    return float(sample.std()) / math.sqrt(len(sample))


def _widened(found: Intensity, others: Sequence[Intensity]) -> Intensity:
    """Return an estimate whose errors reach to what others would say."""

    def wider(estimate: Estimate, values: Sequence[float]) -> Estimate:
        assert estimate.se is not None
        off = max(abs(value - estimate.value) for value in values)
        return Estimate(estimate.value, math.hypot(estimate.se, off), estimate.n)

    return Intensity(
        wider(found.a, [other.a.value for other in others]),
        wider(found.k, [other.k.value for other in others]),
    )


def _exposure(touches: Touches, start: int, end: int) -> tuple[Floats, Floats]:
    """Return how many seconds of the stretch each book with a mid stood, and its half spread in ticks."""
    begins = np.clip(touches.acts, start, end)
    seconds = np.diff(np.append(begins, end)) / _NS
    stood = touches.two_sided & (seconds > 0)
    return seconds[stood], (touches.ask[stood] - touches.bid[stood]) / 2


def _grid_ns(length: int) -> int:
    """Return a grid of a second, or a hundredth of ``length``, ns, but not below 100 ms.

    Finer grids count the bounce between bid and ask as volatility.
    """
    return max(100_000_000, min(1_000_000_000, length // 100))


def _volatility(where: str, touches: Touches, start: int, end: int, grid_ns: int) -> Estimate:
    changes = _mid_changes(touches, start, end, grid_ns)
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


def _mid_changes(touches: Touches, start: int, end: int, grid_ns: int) -> Floats:
    """Return the mid's changes, in ticks, over each step of a grid laid into each stretch without a hole."""
    edges = np.flatnonzero(np.diff(touches.valid)) + 1
    changes: list[Floats] = [np.empty(0)]
    for first in np.concatenate(([0], edges))[: len(touches.acts)].tolist():
        if not touches.valid[first]:
            continue
        after = edges[edges > first]
        until = int(touches.acts[after[0]]) if after.size else end
        grid = np.arange(max(int(touches.acts[first]), start), min(until, end), grid_ns)
        at = np.searchsorted(touches.acts, grid, side="right") - 1
        known = touches.two_sided[at]
        whole = known[:-1] & known[1:]
        changes.append(np.diff(touches.bid[at] + touches.ask[at])[whole] / 2)
    return np.concatenate(changes)


def _order_size(where: str, market: Market, trades: Ints) -> Decimal:
    if not len(trades):
        raise UsageError(
            f"order_size cannot be estimated from {where}: it holds no trades; set it by "
            f"--set order_size=value"
        )
    return market.lot_size * max(1, math.floor(float(np.median(market.trades.size[trades]))))
