"""Avellaneda and Stoikov's quotes: reservation price, spread, and how far ahead they should look.

Pure functions of numbers. Any units that agree will do; the simulator's are: prices in ticks, inventory
``q`` in order sizes, ``gamma`` in 1 / (tick · order size), ``sigma`` in ticks / √s, ``k`` in 1 / tick,
``intensity`` (A) in 1 / s, times in s.

Sources, by their equation numbers: Avellaneda & Stoikov (2008), "High-frequency trading in a limit order
book", Quantitative Finance 8(3); Guéant, Lehalle & Fernandez-Tapia (2013), "Dealing with the inventory
risk", Math. Financ. Econ. 7, section 4 (here "GLFT").
"""

from __future__ import annotations

import math

_SERIES_BELOW = 1e-8


def reservation_price(mid: float, q: float, gamma: float, sigma: float, time_left: float) -> float:
    """Return the mid shifted against the inventory held (29); equal to ``mid`` when there is none.

    >>> reservation_price(100.0, 1, gamma=0.1, sigma=2.0, time_left=1.0)
    99.6
    """
    return mid - q * gamma * sigma**2 * time_left


def indifference_prices(
    mid: float, q: float, gamma: float, sigma: float, time_left: float
) -> tuple[float, float]:
    """Return the prices at which one more unit bought, or sold, leaves the utility as it is (6), (7).

    Their mean is the reservation price.
    """
    variance = gamma * sigma**2 * time_left / 2
    return mid + (-1 - 2 * q) * variance, mid + (1 - 2 * q) * variance


def indifference_prices_without_end(
    mid: float, q: float, gamma: float, sigma: float, most: float, *, as_printed: bool = False
) -> tuple[float | None, float | None]:
    """Return the indifference bid and ask when trading never ends (section 2.3), ω chosen for ``most``.

    ``most`` is the largest inventory allowed; None where a price is infinite: do not quote that side.
    The ask printed in the paper, ``s + ln(1 + (1-2q) y) / γ``, contradicts its own definition (5), which
    gives ``s - ln(1 - (1-2q) y) / γ``, the mirror image of the bid; they agree to first order. The
    definition's is returned unless ``as_printed``.

    >>> bid, ask = indifference_prices_without_end(0.0, 0, gamma=0.1, sigma=2.0, most=10)
    >>> bid == -ask
    True
    """
    omega = gamma**2 * sigma**2 * (most + 1) ** 2 / 2
    y = gamma**2 * sigma**2 / (2 * omega - gamma**2 * q**2 * sigma**2)

    def log(argument: float) -> float | None:
        # At the bound the argument is 0 but for rounding.
        return math.log(argument) / gamma if argument > 1e-12 else None

    down = log(1 + (-1 - 2 * q) * y)
    up = log(1 + (1 - 2 * q) * y) if as_printed else log(1 - (1 - 2 * q) * y)
    bid = None if down is None else mid + down
    if up is None:
        return bid, None
    return bid, mid + (up if as_printed else -up)


def liquidity_premium(gamma: float, k: float) -> float:
    """Return ``ln(1 + γ/k) / γ``, what a maker asks for waiting: half the spread when no risk is held.

    >>> liquidity_premium(0.0, 2.0), liquidity_premium(0.1, 1.5) < 1 / 1.5
    (0.5, True)
    """
    ratio = gamma / k
    if ratio < _SERIES_BELOW:
        return (1 - ratio / 2 + ratio**2 / 3) / k
    return math.log1p(ratio) / gamma


def spread(gamma: float, sigma: float, k: float, time_left: float) -> float:
    """Return the distance between the two quotes (30)."""
    return gamma * sigma**2 * time_left + 2 * liquidity_premium(gamma, k)


def quotes(
    mid: float, q: float, gamma: float, sigma: float, k: float, time_left: float
) -> tuple[float, float]:
    """Return bid and ask: half the spread on each side of the reservation price.

    >>> bid, ask = quotes(100.0, 0, gamma=0.1, sigma=2.0, k=1.5, time_left=1.0)
    >>> round(bid, 6), round(ask, 6)
    (99.154615, 100.845385)
    """
    centre = reservation_price(mid, q, gamma, sigma, time_left)
    half = spread(gamma, sigma, k, time_left) / 2
    return centre - half, centre + half


def risk_and_flow(gamma: float, sigma: float, k: float, intensity: float) -> tuple[float, float]:
    """Return GLFT's α = kγσ²/2 and η = A (1 + γ/k)^-(1 + k/γ), both in 1 / s."""
    ratio = gamma / k
    exponent = 1 + ratio / 2 if ratio < _SERIES_BELOW else math.log1p(ratio) * (1 + 1 / ratio)
    return k * gamma * sigma**2 / 2, intensity * math.exp(-exponent)


def useful_horizon(gamma: float, sigma: float, k: float, intensity: float) -> float:
    """Return τ* = 1 / (2 √(αη)), the time left at which the skew equals GLFT's stationary one.

    AS's skew and spread grow without end with the time left, so that the result would depend on where a
    session is said to end. Looking no further ahead than τ*, the time in which inventory forgets where
    it was, gives nearly all of what the exact policy attains. Infinite without risk (γ or σ zero).

    >>> round(useful_horizon(gamma=0.1, sigma=2.0, k=1.5, intensity=140.0), 4)
    0.1293
    """
    risk, flow = risk_and_flow(gamma, sigma, k, intensity)
    rate = 2 * math.sqrt(risk) * math.sqrt(flow)
    return math.inf if rate == 0 else 1 / rate


def inventory_std(gamma: float, sigma: float, k: float, intensity: float) -> float:
    """Return the standard deviation of the inventory in the long run, GLFT's Gaussian approximation.

    >>> round(inventory_std(gamma=0.01, sigma=0.3, k=0.3, intensity=0.9), 3)
    4.956
    """
    risk, flow = risk_and_flow(gamma, sigma, k, intensity)
    return math.inf if risk == 0 else math.sqrt(math.sqrt(flow / risk) / 2)


def risk_aversion_for(std: float, sigma: float, k: float, intensity: float) -> float:
    """Return the γ at which `inventory_std` equals ``std`` (> 0); ``sigma`` must not be 0.

    >>> gamma = risk_aversion_for(4.0, sigma=0.3, k=0.3, intensity=0.9)
    >>> round(inventory_std(gamma, sigma=0.3, k=0.3, intensity=0.9), 9)
    4.0
    """
    low, high = -700.0, 700.0  # of ln(γ/k); the deviation falls as γ grows
    for _ in range(200):
        middle = (low + high) / 2
        if inventory_std(k * math.exp(middle), sigma, k, intensity) > std:
            low = middle
        else:
            high = middle
    return k * math.exp((low + high) / 2)
