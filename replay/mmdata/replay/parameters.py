"""The parameters of a run, each with its source: set, default, estimated or derived."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext

from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market
from mmdata.replay import avellaneda_stoikov
from mmdata.replay import state as s
from mmdata.replay.attribution import EXACT
from mmdata.replay.calibration import Calibration, Estimate
from mmdata.replay.fills import MODELS
from mmdata.replay.fitness import Steps
from mmdata.replay.result import Parameter, joined
from mmdata.replay.settings import DURATION, SETTINGS, Value
from mmdata.replay.strategies import Strategy

# The model's own inventory stays within three standard deviations of the most that may be held.
_DEVIATIONS_HELD = 3


def find_parameters(
    strategy: Strategy,
    market: Market,
    traded: bool,
    steps: Steps,
    models: Sequence[str],
    given: Mapping[str, Value],
    own: Mapping[str, float],
    calibration: Calibration | None,
) -> dict[str, Parameter]:
    """Return every parameter of the run, by name: set, default, estimated or derived.

    ``traded``: trades were recorded. ``own`` are the strategy's own; the built-in has none, what it uses
    follows from the settings. UsageError: something is set that nothing of the run uses.
    """
    found: dict[str, Parameter] = {}
    stretch = "" if calibration is None else calibration.stretch
    clocked = any(MODELS[model] & s.BY_CLOCK for model in models)

    def take(name: str, estimated: Estimate | None = None, against: str = "") -> None:
        setting = SETTINGS[name]
        if name in given:
            found[name] = _shown(name, given[name], "set")
        elif estimated is not None:
            found[name] = Parameter(
                name,
                estimated.value,
                setting.unit,
                f"estimated from {stretch}{against}",
                estimated.se,
                estimated.n,
            )
        else:
            found[name] = _shown(name, setting.default, "default")

    intensity = None if calibration is None else calibration.intensity
    against = "" if calibration is None else _touch_of(calibration)
    if strategy.built_in or clocked:
        take("A", None if intensity is None else intensity.a, against)
        take("k", None if intensity is None else intensity.k, against)
    if any(MODELS[model] & s.BY_CLOCK and MODELS[model] & s.BY_QUEUE for model in models):
        _explained(traded, given, found, take)
    for setting in strategy.parameters:
        source = "set" if own[setting.name] != setting.default else "default"
        found[setting.name] = Parameter(setting.name, own[setting.name], setting.unit, source)
    if strategy.built_in:
        _quoting(market, steps, given, calibration, found, take)
    for name in (
        *("max_position", "min_size", "min_notional", "interval", "base_latency", "order_latency"),
        *("response_latency", "maker_fee", "taker_fee", "queue", "queue_power"),
    ):
        take(name)
    for name in given:
        if name not in found:
            raise UsageError(
                f"setting {name} has no effect on strategy {strategy.name} under {joined(models)}; "
                f"expected one that has: {joined([own for own in found if own in SETTINGS])}"
            )
    return found


Take = Callable[..., None]


def _explained(traded: bool, given: Mapping[str, Value], found: dict[str, Parameter], take: Take) -> None:
    """Add what trades explain of the rate: all of it, unless something is set or no trade was recorded."""
    for name, of in (("A_explained", "A"), ("k_explained", "k")):
        if name in given:
            take(name)
            continue
        value = found[of].value if traded or name == "k_explained" else 0.0
        source = f"derived: {of}, since trades were recorded" if traded else "derived: no trade was recorded"
        found[name] = Parameter(name, value, SETTINGS[name].unit, source)


def _quoting(
    market: Market,
    steps: Steps,
    given: Mapping[str, Value],
    calibration: Calibration | None,
    found: dict[str, Parameter],
    take: Take,
) -> None:
    """Add what Avellaneda and Stoikov's quotes follow from."""
    take("sigma", None if calibration is None else calibration.sigma)
    if "order_size" in given:
        found["order_size"] = _shown("order_size", _order_size(market, steps, given["order_size"]), "set")
    else:
        assert calibration is not None
        assert calibration.order_size is not None
        found["order_size"] = Parameter(
            "order_size",
            max(calibration.order_size // steps.lot_size, Decimal(1)) * steps.lot_size,
            SETTINGS["order_size"].unit,
            f"estimated from {calibration.stretch}: the median trade",
            n=calibration.trades,
        )
    take("max_inventory")
    if "gamma" in given:
        take("gamma")
    else:
        gamma = avellaneda_stoikov.risk_aversion_for(
            real(found["max_inventory"]) / _DEVIATIONS_HELD,
            real(found["sigma"]),
            real(found["k"]),
            real(found["A"]),
        )
        found["gamma"] = Parameter(
            "gamma",
            gamma,
            SETTINGS["gamma"].unit,
            f"derived: inventory deviates by max_inventory / {_DEVIATIONS_HELD}",
        )
    _horizon(given, found)


def _touch_of(calibration: Calibration) -> str:
    """Say against what touch sweeps were measured, how many were inside it, and if it was of no use."""
    if calibration.intensity is None:
        return ""
    inside = f", {calibration.inside_share:.1%} inside" if calibration.inside else ""
    own = ", by own price" if calibration.by_own_price else ""
    return f", touch {calibration.touch}{inside}{own}"


def _horizon(given: Mapping[str, Value], found: dict[str, Parameter]) -> None:
    """Add how far ahead the strategy looks, never further than inventory lasts, and what follows."""
    a, k, sigma, gamma = (real(found[name]) for name in ("A", "k", "sigma", "gamma"))
    useful = avellaneda_stoikov.useful_horizon(gamma, sigma, k, a)
    wanted = duration_of(given, "horizon") / 1e9 if "horizon" in given else math.inf
    ahead = min(useful, wanted)
    source = "set" if wanted <= useful else "derived: 1 / (2 √(αη)), the time that inventory lasts"
    # Without risk there is no horizon, nor does anything depend on it.
    found["horizon"] = Parameter("horizon", None if math.isinf(ahead) else ahead, "s", source)
    ahead = 0.0 if math.isinf(ahead) else ahead
    half = avellaneda_stoikov.spread(gamma, sigma, k, ahead) / 2
    skew = -avellaneda_stoikov.reservation_price(0.0, 1.0, gamma, sigma, ahead)
    found["half_spread"] = Parameter("half_spread", half, "tick", "derived: Avellaneda-Stoikov (30)")
    found["skew"] = Parameter("skew", skew, "tick/order", "derived: Avellaneda-Stoikov (29)")
    if not (math.isfinite(half) and math.isfinite(skew) and max(half, skew) < 2**40):
        raise UsageError(
            f"the quotes that follow from A={a:g}, k={k:g}, sigma={sigma:g} and gamma={gamma:g} are "
            f"{half:g} ticks from the mid, shifted by {skew:g} ticks an order held: out of any range; set "
            f"{joined(['k', 'sigma', 'gamma'])} in ticks, seconds and orders"
        )


def _shown(name: str, value: Value | None, source: str) -> Parameter:
    setting = SETTINGS[name]
    if setting.kind == DURATION and isinstance(value, int):
        value = value / 1e9
    return Parameter(name, value, setting.unit, source)


def real(parameter: Parameter) -> float:
    """Return a parameter's number."""
    assert isinstance(parameter.value, float | int | Decimal)
    return float(parameter.value)


def duration_of(given: Mapping[str, Value], name: str) -> int:
    """Return a duration in ns: as set, else its default."""
    value = given.get(name, SETTINGS[name].default)
    assert isinstance(value, int)
    return value


def _order_size(market: Market, steps: Steps, size: Value) -> Decimal:
    assert isinstance(size, Decimal)
    with localcontext(EXACT):
        off = size % steps.lot_size
    if off:
        raise UsageError(
            f"setting order_size was {size}, expected a multiple of {market.symbol}'s lot "
            f"{steps.lot_size.normalize():f} ({steps.lot_source})"
        )
    return size
