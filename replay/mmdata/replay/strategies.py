"""Strategies: functions that decide, what they may be given, and how they are found by name.

A strategy is a function of what it sees and of its desk, ``decide(view, desk)``: compiled where it is numba's
(``@njit``), else interpreted, slower, with the same results.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmdata.datasets.errors import UsageError
from mmdata.replay.settings import NUMBER, Setting, checked_value, suggestion

if TYPE_CHECKING:
    from mmdata.replay.desk import Desk
    from mmdata.replay.view import View

Decide = Callable[["View", "Desk"], object]
"""What a strategy does with what it sees."""

TOP = "top"
BOOK = "book"
BUILT_IN = ("avellaneda-stoikov",)
_SIGHTS = (TOP, BOOK)
_MOST_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy: its function, and what it needs."""

    name: str
    decide: Decide
    parameters: tuple[Setting, ...] = ()
    """In the order in which ``view.parameter`` has them."""
    slots: int = 2
    """Orders that it may have at a time."""
    memory: int = 0
    """Numbers that it keeps from one decision to the next."""
    sees: str = BOOK
    """``top``: the best prices and their sizes; ``book``: all levels, for which a second book is kept."""
    built_in: bool = False
    """Its numbers are not set but follow from settings: those of Avellaneda and Stoikov's quotes."""
    steady: bool = False
    """What it does follows from the best prices, its parameters and what it knows of its orders alone: where
    it did nothing it is not asked again before one of them changes."""

    def values(self, given: Mapping[str, object]) -> dict[str, float]:
        """Return its parameters, checked. UsageError: one is unknown, missing or out of range."""
        known = {setting.name: setting for setting in self.parameters}
        for name in given:
            if name not in known:
                raise UsageError(
                    f"parameter {name!r} of strategy {self.name} is not known"
                    f"{suggestion(name, known) if known else ': it has none'}"
                )
        found: dict[str, float] = {}
        for setting in self.parameters:
            value = given.get(setting.name, setting.default)
            if value is None:
                raise UsageError(
                    f"parameter {setting.name} of strategy {self.name} is not set, expected {setting.allowed}"
                )
            found[setting.name] = float(
                checked_value(setting, value, f"parameter {setting.name} of {self.name}")
            )
        return found


def strategy(
    *,
    slots: int = 2,
    memory: int = 0,
    sees: str = BOOK,
    **parameters: float | tuple[float | None, float, float] | None,
) -> Callable[[Decide], Strategy]:
    """Make a strategy of a function ``decide(view, desk)``; put it above ``@njit`` to have it compiled.

    ``parameters``: by name the default (None: has to be set), or (default, least, greatest);
    ``view.parameter`` has them in this order. ``slots``: orders at a time; ``memory``: numbers kept from
    one decision to the next; ``sees``: ``top`` for the best prices alone, which is faster. UsageError: what
    cannot be.
    """
    if sees not in _SIGHTS:
        raise UsageError(f"sees was {sees!r}, expected one of {', '.join(_SIGHTS)}")
    if not 0 < slots <= _MOST_SLOTS or memory < 0:
        raise UsageError(
            f"slots was {slots} and memory {memory}, expected 1 to {_MOST_SLOTS} slots and no negative memory"
        )

    def make(decide: Decide) -> Strategy:
        name = getattr(decide, "__name__", type(decide).__name__).replace("_", "-")
        settings = tuple(_parameter(key, bounds) for key, bounds in parameters.items())
        return Strategy(name, decide, settings, slots, memory, sees)

    return make


def _parameter(name: str, bounds: float | tuple[float | None, float, float] | None) -> Setting:
    if isinstance(bounds, tuple):
        default, low, high = bounds
        return Setting(name, NUMBER, "", name, default, low, high)
    return Setting(name, NUMBER, "", name, bounds, -1e300, 1e300)


def find_strategy(named: str | Strategy | Decide) -> Strategy:
    """Return a strategy: itself, a function's, a built-in's by name, or that of ``FILE.py:NAME``.

    UsageError: there is none.
    """
    if isinstance(named, Strategy):
        return named
    if not isinstance(named, str):
        if not callable(named):
            raise UsageError(f"strategy was {named!r}, expected a name, FILE.py:NAME or a function")
        return strategy()(named)
    path, colon, name = named.rpartition(":")
    if colon and path.endswith(".py"):
        return _of_file(Path(path), name)
    if named not in BUILT_IN:
        raise UsageError(f"strategy {named!r} is not known{suggestion(named, (*BUILT_IN, 'FILE.py:NAME'))}")
    from mmdata.replay.quoting import AVELLANEDA_STOIKOV

    return AVELLANEDA_STOIKOV


def _of_file(path: Path, name: str) -> Strategy:
    """Return what a file calls ``name``; the file is run, as an import would."""
    if not path.is_file():
        raise UsageError(f"strategy {path}:{name}: there is no such file")
    module_name = f"mmdata_strategy_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(
            f"strategy {path}:{name}: the file fails with {type(error).__name__}: {error}"
        ) from error
    found: Any = vars(module).get(name)
    if isinstance(found, Strategy):
        return found
    if found is None or not callable(found):
        kept = [key for key, value in vars(module).items() if isinstance(value, Strategy)]
        raise UsageError(
            f"strategy {path}:{name}: the file has no strategy of this name; "
            f"it has {', '.join(kept) or 'none'}"
        )
    return strategy()(found)
