"""Where in the queue an order stands, guessed from level sizes and trades: small compiled steps.

An order joins the end of the queue at its price: ``front`` lots stand before it. Trades at the price
take from the front. Of a decrease that no trade explains nobody knows where in the queue it was; each
rule says how likely it was *behind* the order. Own orders are not in the sizes shown.

The rules are those of hftbacktest (``queue.rs``, commit 5f3ec40b) and Rigtorp, "Estimating order queue
position" (2013); numbers of each step are compared with ``reference/queue_models.json``. Where
hftbacktest's steps have a known defect, ours (``corrected``) differ, and its own stay for comparison:

* it takes the queue *behind* from the size before the trades, though *front* already is after them, so
  that it is overstated by what traded;
* of an order that has nothing before and nothing behind it, or a front far below zero, its chance is no
  number, and the order is put behind all that the level then shows;
* it rounds what reached the order to whole lots at each trade, up to half a lot too much or too little;
  we keep the fraction for the next trade;
* a cancellation can carry its front below zero; we stop at zero.
"""

from __future__ import annotations

import math

from mmdata.datasets.jit import helper, kernel

# Rules for a decrease that no trade explains.
POWER = 0  # f(back) / (f(back) + f(front)), f(x) = x^n
LOG = 1  # the same with f(x) = ln(1 + n x): hftbacktest counts units, not lots, so that its n is the lot
POWER2 = 2  # f(back) / f(back + front)
POWER3 = 3  # 1 - f(front / (front + back))
LOG2 = 4  # f(back) / f(back + front), f(x) = ln(1 + n x)
RISK_AVERSE = 5  # always behind: only trades, and a level smaller than our front, move us

RULES = {
    "power": POWER,
    "log": LOG,
    "power2": POWER2,
    "power3": POWER3,
    "log2": LOG2,
    "risk-averse": RISK_AVERSE,
}


@kernel()
def behind(rule: int, power: float, front: float, back: float) -> float:
    """Return the probability that a decrease was behind an order with ``front`` before, ``back`` after it.

    0 when nothing is behind it, 1 when nothing is before it (or at all).
    """
    if front <= 0.0 or rule == RISK_AVERSE:
        return 1.0
    if back <= 0.0:
        return 0.0
    if rule == POWER:
        return math.pow(back, power) / (math.pow(back, power) + math.pow(front, power))
    if rule == LOG:
        return math.log1p(power * back) / (math.log1p(power * back) + math.log1p(power * front))
    if rule == POWER2:
        return math.pow(back, power) / math.pow(back + front, power)
    if rule == POWER3:
        return 1.0 - math.pow(front / (front + back), power)
    return math.log1p(power * back) / math.log1p(power * (back + front))


@helper
def _power(x: float, n: float) -> float:
    return math.nan if x < 0.0 and math.floor(n) != n else math.pow(x, n)


@helper
def _log(x: float) -> float:
    return math.log(1.0 + x) if x > -1.0 else math.nan


@helper
def _ratio(one: float, other: float) -> float:
    """Return a quotient as floats have it, but 1 where it is infinite."""
    if other != 0.0:
        return one / other
    return math.nan if one == 0.0 or one != one else 1.0


@helper
def behind_as_published(rule: int, power: float, front: float, back: float) -> float:
    """Return what hftbacktest makes of `behind`, whatever its arguments are: NaN where it is no number."""
    if rule == POWER:
        return _ratio(_power(back, power), _power(back, power) + _power(front, power))
    if rule == LOG:
        return _ratio(_log(power * back), _log(power * back) + _log(power * front))
    if rule == POWER2:
        return _ratio(_power(back, power), _power(back + front, power))
    if rule == POWER3:
        whole = front + back
        return 1.0 - _power(front / whole, power) if whole != 0.0 else math.nan
    return _ratio(_log(power * back), _log(power * (back + front)))


@kernel()
def reached(front: float, corrected: int) -> int:
    """Return the whole lots that trades took beyond the front of the queue, when ``front`` fell below 0."""
    if front >= 0.0:
        return 0
    # A sum of fractions may miss a whole lot by its rounding alone.
    return math.floor(-front + (1e-9 if corrected == 1 else 0.5))


@kernel()
def after_depth(
    rule: int, power: float, corrected: int, front: float, traded: float, before: float, after: float
) -> float:
    """Return the front after the level went from ``before`` to ``after`` lots.

    ``traded`` lots have traded at the price since the level was last told: they explain a part of it.
    """
    gone = before - after - traded
    if rule == RISK_AVERSE or gone < 0.0:
        return min(front, after)
    if corrected == 0:
        back = before - front
        chance = behind_as_published(rule, power, front, back)
        if chance != chance:
            return after
        return min(front - (1.0 - chance) * gone + min(back - chance * gone, 0.0), after)
    waiting = max(front, 0.0)
    back = max(before - traded - waiting, 0.0)
    chance = behind(rule, power, waiting, back)
    # What would be taken from behind beyond what is there, was taken from before.
    moved = max(waiting - (1.0 - chance) * gone + min(back - chance * gone, 0.0), 0.0)
    if waiting > front:  # a fraction of a lot has reached us already
        moved = front
    return min(moved, after)
