"""Recordings played back: books and trades as a stream, strategies simulated, fill models compared.

Names are loaded when first used, so that importing this package loads neither numba nor Polars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.replay.calibration import Calibration
    from mmdata.replay.gathering import calibrate
    from mmdata.replay.result import ModelResult, Parameter, Result
    from mmdata.replay.simulator import simulate, sweep
    from mmdata.replay.strategies import Strategy, strategy
    from mmdata.replay.stream import (
        BookEvent,
        BookView,
        Event,
        IntervalEvent,
        Level,
        TradeEvent,
        replay,
        tops,
    )
    from mmdata.replay.warming import warm_up

__all__ = [
    "BookEvent",
    "BookView",
    "Calibration",
    "Event",
    "IntervalEvent",
    "Level",
    "ModelResult",
    "Parameter",
    "Result",
    "Strategy",
    "TradeEvent",
    "calibrate",
    "replay",
    "simulate",
    "strategy",
    "sweep",
    "tops",
    "warm_up",
]

_MODULES = {
    "calibration": ("Calibration",),
    "gathering": ("calibrate",),
    "result": ("ModelResult", "Parameter", "Result"),
    "simulator": ("simulate", "sweep"),
    "strategies": ("Strategy", "strategy"),
    "stream": ("BookEvent", "BookView", "Event", "IntervalEvent", "Level", "TradeEvent", "replay", "tops"),
    "warming": ("warm_up",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
