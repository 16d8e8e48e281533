"""Compiled kernels, cached on disk under a key that changes whenever any source they use changes.

numba's own ``cache=True`` looks only at the file of the outermost function: after an edit in another
file it goes on serving the old code (reproduced with 0.68). Here the folder of the cache is named by a
hash over the kernel's module, the modules of what it calls, and numba's version.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import numba
import numba.core.config
from numba.core import types
from numba.core.dispatcher import Dispatcher
from numba.extending import register_jitable

if TYPE_CHECKING:
    from types import ModuleType

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)
_INTERNAL = {"nogil": True, "_nrt": False, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(*callees: ModuleType, allocates: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile a function with numba when it is first called, and keep the machine code on disk.

    A kernel works in arrays that its caller keeps: what ``allocates`` arrays of its own has to say so.
    Without, no array is counted when it is handed on, which costs more than most kernels' work (a book is
    rebuilt at twice the speed).

    ``callees`` are the other modules whose functions the kernel calls: an edit there makes a new cache
    folder. ``NUMBA_CACHE_DIR`` says where the folders lie (else ``$XDG_CACHE_HOME/mmdata``); where it
    cannot be written, the kernel is compiled in each process, and a log line says so.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        own = sys.modules[function.__module__]
        return compile_cached(function, source_digest((own, *callees)), allocates=allocates)

    return decorate


def helper(function: Callable[P, R]) -> Callable[P, R]:
    """Let kernels call a function, which is compiled into them; from Python it is called as it stands.

    Its module has to be among the kernel's ``callees``. A kernel of its own would be compiled with all that
    is needed to call it from Python, which takes ten times as long where it takes many arrays.
    """
    jitable: Callable[P, R] = register_jitable(**_INTERNAL)(function)
    return jitable


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """Let kernels call a function as a `helper`, which becomes a part of its caller whatever its size.

    For what happens often and is handed many arrays: to hand them on costs more than most functions' work.
    """
    jitable: Callable[P, R] = register_jitable(**_INTERNAL, forceinline=True)(function)
    return jitable


def compile_cached(function: Callable[P, R], digest: str, *, allocates: bool = False) -> Callable[P, R]:
    """Compile a function as `kernel` does; ``digest`` is another whenever anything it is made of is."""
    folder = _cache_folder(digest)
    options: dict[str, Any] = {"nogil": True, "_nrt": allocates}
    if folder is None:
        return _compiled(function, options)
    # The locator reads the setting when the function is decorated; it is put back at once, so that
    # kernels that are not ours keep their own place.
    settings = vars(numba.core.config)
    before = settings["CACHE_DIR"]
    settings["CACHE_DIR"] = str(folder)
    try:
        return _compiled(function, options | {"cache": True})
    finally:
        settings["CACHE_DIR"] = before


def _compiled(function: Callable[P, R], options: dict[str, Any]) -> Callable[P, R]:
    compiled: Any = numba.njit(**options)(function)
    if isinstance(compiled, Dispatcher):
        found: Any = compiled.get_call_template
        plain: Any = types.unliteral

        # numba compiles a callee anew for each constant that it is handed: minutes in all, for nothing,
        # since what is small is inlined later and what is not does not care.
        def get_call_template(args: Sequence[Any], kws: Mapping[str, Any]) -> Any:
            return found(tuple(map(plain, args)), {name: plain(own) for name, own in kws.items()})

        vars(compiled)["get_call_template"] = get_call_template
    return cast("Callable[P, R]", compiled)


def source_digest(modules: Sequence[ModuleType]) -> str:
    """Return a hash over the sources of ``modules`` and numba's version: another after any edit."""
    digest = hashlib.sha256(numba.__version__.encode())
    for name in sorted({module.__file__ or "" for module in modules}):
        digest.update(Path(name).read_bytes())
    return digest.hexdigest()[:16]


def _cache_folder(digest: str) -> Path | None:
    base = os.environ.get("NUMBA_CACHE_DIR") or (
        Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "mmdata"
    )
    folder = Path(base) / f"kernels-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say_once(Path(base), f"cannot be made ({error.strerror})")
        return None
    if not os.access(folder, os.W_OK):
        _say_once(Path(base), "cannot be written")
        return None
    return folder


@functools.cache
def _say_once(base: Path, why: str) -> None:
    """Say it for all kernels together: there are dozens."""
    _log.warning("kernels are compiled anew in this process: the folders in %s %s", base, why)
