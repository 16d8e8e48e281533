"""What may be set in a simulation: names, units, bounds; text in, checked values out."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from mmdata.datasets.errors import UsageError
from mmdata.datasets.times import duration_ns
from mmdata.replay.queues import RULES

Value = float | int | Decimal | str

NUMBER = "number"
EXACT = "exact"
DURATION = "duration"
WORD = "word"
FEED = "feed"
MESSAGE = "message"


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that may be set."""

    name: str
    kind: str
    unit: str
    meaning: str
    default: Value | None = None
    """None: estimated, or derived, where it is not set. Durations in ns."""
    low: float = -math.inf
    high: float = math.inf
    low_is_allowed: bool = True
    words: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        """What may stand there, for a sentence."""
        if self.kind == WORD:
            return "one of " + ", ".join(self.words)
        unit = f" in {self.unit}" if self.unit and " " not in self.unit else f" {self.unit}".rstrip()
        what = "a duration such as 100ms, bare numbers in s," if self.kind == DURATION else f"a number{unit}"
        if math.isfinite(self.low):
            what += f" from {self.low:g}{'' if self.low_is_allowed else ' (itself excluded)'}"
            what += "" if math.isinf(self.high) else f" to {self.high:g}"
        return ", or ".join((what, *self.words))


_MS = 1_000_000
_A_DAY, _A_YEAR = 86_400.0, 31_536_000.0  # s

SETTINGS: dict[str, Setting] = {
    setting.name: setting
    for setting in (
        # Bounds within which no product of a run leaves the floats, nor a price or time 64 bits.
        Setting("A", NUMBER, "1/s", "rate at which orders at the mid are reached", low=1e-9, high=1e9),
        Setting("k", NUMBER, "1/tick", "decay of that rate with distance", low=1e-9, high=1e6),
        Setting("sigma", NUMBER, "tick/√s", "volatility of the mid", low=1e-9, high=1e9),
        Setting(
            "gamma", NUMBER, "1/(tick·order)", "risk aversion; inventory counted in orders", low=0, high=1e6
        ),
        Setting("order_size", EXACT, "base", "size of one order", low=0, high=1e15, low_is_allowed=False),
        # GLFT's own backtests hold at most ten average trades.
        Setting("max_inventory", NUMBER, "orders", "most held, long or short", 10.0, low=1, high=1e12),
        Setting("horizon", DURATION, "s", "how far ahead the strategy looks", low=1e-6, high=_A_YEAR),
        Setting(
            "interval",
            DURATION,
            "s",
            "time between decisions; message: at each one seen",
            100 * _MS,
            low=0.001,
            high=_A_DAY,
            words=(MESSAGE,),
        ),
        Setting(
            "base_latency", DURATION, "s", "least latency from the exchange to here", _MS, low=0, high=_A_DAY
        ),
        # `feed`: drawn from how long the recording's own messages were on their way.
        Setting(
            *("order_latency", DURATION, "s", "from a decision to the exchange", _MS),
            low=0,
            high=_A_DAY,
            words=(FEED,),
        ),
        Setting(
            *("response_latency", DURATION, "s", "from the exchange to knowing of it", _MS),
            low=0,
            high=_A_DAY,
            words=(FEED,),
        ),
        Setting("maker_fee", EXACT, "of notional", "paid a fill; below 0 a rebate", Decimal(0), -0.1, 0.1),
        Setting(
            "taker_fee", EXACT, "of notional", "paid where an order took on arrival", Decimal(0), -0.1, 0.1
        ),
        Setting("max_position", EXACT, "base", "most held by any strategy, long or short", None, 0, 1e15),
        Setting("min_size", EXACT, "base", "least size of an order", Decimal(0), 0, 1e15),
        Setting("min_notional", EXACT, "quote", "least price times size of an order", Decimal(0), 0, 1e15),
        # What trades explain of A exp(-k d); a hybrid's clock stands for the rest.
        Setting("A_explained", NUMBER, "1/s", "rate at the mid that trades explain", None, low=0, high=1e9),
        Setting("k_explained", NUMBER, "1/tick", "decay of the rate that trades explain", None, 1e-9, 1e6),
        # Every queued lot alike likely to be cancelled: no parameter to tune, and exact on average
        # where cancellations do not care for their place (the zero-intelligence exchange).
        Setting(
            "queue",
            WORD,
            "",
            "where in the queue unexplained decreases are",
            "power",
            words=tuple(sorted(RULES)),
        ),
        Setting(
            "queue_power",
            NUMBER,
            "",
            "n of the power rules; of the log rules what a lot counts",
            1.0,
            low=0.01,
            high=10,
        ),
    )
}


def parse_settings(given: Mapping[str, object] | None) -> dict[str, Value]:
    """Return what was set, checked: numbers as float, exact ones as Decimal, durations in ns.

    UsageError names the setting, what was found and what may stand there.
    """
    checked: dict[str, Value] = {}
    for name, value in (given or {}).items():
        setting = SETTINGS.get(name)
        if setting is None:
            raise UsageError(f"setting {name!r} is not known{suggestion(name, SETTINGS)}")
        checked[name] = checked_value(setting, value, f"setting {name}")
    return checked


def suggestion(found: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that names the nearest of ``known``, or all of them.

    >>> suggestion("gama", ["gamma", "sigma"])
    '; did you mean gamma?'
    """
    names = list(known)
    by_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(found.lower(), by_case, n=1, cutoff=0.6)
    return f"; did you mean {by_case[near[0]]}?" if near else f", expected one of {', '.join(names)}"


def checked_value(setting: Setting, value: object, what: str) -> Value:
    """Return a value that may stand for ``setting``. UsageError, about ``what``: it may not."""
    parsed = _parsed(setting, value)
    if parsed is None:
        raise UsageError(f"{what} was {value!r}, expected {setting.allowed}")
    if isinstance(parsed, str):
        return parsed
    size = parsed / 1e9 if setting.kind == DURATION and isinstance(parsed, int) else float(parsed)
    too_low = size < setting.low or (size == setting.low and not setting.low_is_allowed)
    if too_low or size > setting.high:
        raise UsageError(f"{what} was {value!r}, expected {setting.allowed}")
    return parsed


def _parsed(setting: Setting, value: object) -> Value | None:
    """Return the value in the setting's own type; None when it is not one."""
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    if isinstance(value, str) and value in setting.words:
        return value
    if setting.kind == WORD:
        return None
    if setting.kind == DURATION:
        return duration_ns(value if isinstance(value, str) else float(value))
    try:
        exact = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    # What no float holds, or only as 0, is beyond any bound.
    if not math.isfinite(float(exact)) or (exact and not float(exact)):
        return None
    return exact if setting.kind == EXACT else float(exact)
