"""The engine compiled with a strategy in it, or stopping for a plain function at each decision.

Engine and strategy become one compiled function, kept under a key over everything that it is made of: the
sources of the engine, and of the strategy the code it reaches (its own, that of the functions it calls,
the values of the names that they use). numba's own cache would look at one file only.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets import chain
from mmdata.datasets.jit import compile_cached, source_digest
from mmdata.replay import _kernel, desk, fills, matching, queues, view
from mmdata.replay import state as s
from mmdata.replay._kernel import view_of
from mmdata.replay.desk import check, desk_of, hear
from mmdata.replay.state import World
from mmdata.replay.strategies import Decide

Advance = Callable[[World, int], int]

_ENGINE = (book_kernel, chain, _kernel, desk, fills, matching, queues, s, view)


def is_compiled(function: object) -> bool:
    """Return whether a strategy's function is one of numba's."""
    return hasattr(function, "py_func")


@functools.lru_cache(maxsize=64)
def compiled_with(function: Decide | None) -> Advance:
    """Return the engine with a compiled strategy in it; without one it stops for each decision.

    The same strategy has the same engine: to load one from the disk takes as long as a million rows.
    """
    own = _kernel.decide if function is None else _lean(function)
    names = {**_kernel.advance.__globals__, "decide": own}
    advance = types.FunctionType(_kernel.advance.__code__, names, _kernel.advance.__name__)
    advance.__module__ = _kernel.__name__
    digest = hashlib.sha256(source_digest(_ENGINE).encode())
    for part in reached(own):
        digest.update(part)
    compiled: Advance = compile_cached(advance, digest.hexdigest()[:16])
    return compiled


def _lean(function: Any) -> Any:
    """Return a compiled function as a part of the engine.

    Without what is needed only to call it from Python, which takes seconds to compile; and not called but
    compiled in, since to hand it a view and a desk costs more than what most strategies do.
    """
    own = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "forceinline": True}
    options = {**function.targetoptions, **own}
    return numba.jit(**options)(function.py_func)


def interpreted_with(function: Decide) -> Advance:
    """Return the engine with a plain function deciding: the same results, more slowly."""

    def advance(world: World, until: int) -> int:
        while True:
            stopped = compiled_with(None)(world, until)
            if stopped != s.DECIDE:
                return stopped
            now = world.decisions[world.engine[s.DECISIONS] - 1, s.DECISION_TIME]
            for lane in range(len(world.lanes.model)):
                own = desk_of(world.lanes, lane, now, world.wire.order, world.engine)
                hear(own)
                function(view_of(world, lane), own)
                if not check(own):
                    world.engine[s.WRONG_LANE] = lane
                    return s.FAULT

    return advance


def reached(function: object) -> Iterator[bytes]:
    """Yield all that says what a function does: code and constants, and the values of what it names."""
    yield from _reached(function, {})


def _reached(found: object, known: dict[int, int]) -> Iterator[bytes]:
    function = getattr(found, "py_func", found)
    if isinstance(function, types.FunctionType):
        if id(function) in known:  # told already, as the so manyth: functions may call each other
            yield b"%d" % known[id(function)]
            return
        known[id(function)] = len(known)
        yield repr((function.__qualname__, getattr(found, "targetoptions", None))).encode()
        if sys.modules.get(function.__module__) in _ENGINE:
            return  # the engine's sources are in the key already
        yield from _of_code(function.__code__)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        for value in (*cells, *(function.__defaults__ or ())):
            yield from _reached(value, known)
        for name in sorted(_names(function.__code__)):
            if name in function.__globals__:
                value = function.__globals__[name]
                yield name.encode()
                yield from _reached(value, known)
                if isinstance(value, types.ModuleType):
                    yield from _of_module(value, _names(function.__code__), known)
    elif isinstance(function, types.ModuleType):
        yield function.__name__.encode()
    elif isinstance(function, np.ndarray):
        yield repr((function.dtype, function.shape)).encode() + function.tobytes()
    elif isinstance(function, tuple | list):
        for value in function:
            yield from _reached(value, known)
    else:
        yield repr(function).encode()


def _of_module(module: types.ModuleType, names: set[str], known: dict[int, int]) -> Iterator[bytes]:
    """Yield what of a module a function may name; numpy's and numba's own are as their versions."""
    if module.__name__.partition(".")[0] in ("math", "numba", "numpy") or module in _ENGINE:
        return
    for name in sorted(names & set(vars(module))):
        yield name.encode()
        yield from _reached(vars(module)[name], known)


def _of_code(code: types.CodeType) -> Iterator[bytes]:
    yield code.co_code
    yield repr((code.co_names, code.co_varnames, code.co_freevars)).encode()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _of_code(constant)
        else:
            yield repr(constant).encode()


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names
