"""A small local exchange that speaks the venues' own protocols, so that nothing needs a network.

``Sandbox(options)`` runs one in a test, ``serve(options, announce)`` in a process of its own,
``read_truth(folder)`` tells what it really did. What needs websockets or numpy is imported when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmdata.sandbox.options import SandboxOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from mmdata.sandbox.server import Sandbox
    from mmdata.sandbox.truth import Truth, read_truth

__all__ = ["Sandbox", "SandboxOptions", "Truth", "read_truth", "serve"]


def serve(options: SandboxOptions, announce: Callable[[dict[str, dict[str, str]]], None]) -> None:
    """Serve until SIGTERM or SIGINT, or until stdin ends if the options say so.

    ``announce`` is called once with the addresses, ``{"binance": {"rest_url", "ws_url"}, "okx":
    {...}}``, when connections are taken. Must run in the main thread, where signals arrive.
    """
    from mmdata.sandbox.server import run

    run(options, announce)


def __getattr__(name: str) -> object:
    if name == "Sandbox":
        from mmdata.sandbox.server import Sandbox

        return Sandbox
    if name in ("Truth", "read_truth"):
        from mmdata.sandbox import truth

        return getattr(truth, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
