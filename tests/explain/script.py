"""Every kind of fault, spread over any time: ``examples/faults.yaml``, pressed or stretched."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from mmdata.datasets.times import duration_ns

EXAMPLE = Path(__file__).parents[2] / "examples" / "faults.yaml"
_EXAMPLE_S = 600.0
_SCALED = ("at", "every", "jitter")
_LASTING = ("for", "close_after")
_SHORTEST_S = 1.5
_BEGIN_S = 4.0
"""Nothing strikes before: what is lost ahead of the first frame of a stream, no recorder can know."""
_SHORT = 0.5
"""Of the example's time; in less, faults strike once each, and a refusal asks for a second of silence."""


def scaled(seed: int, seconds: float) -> dict[str, Any]:
    """Return the script with its times pressed into ``seconds``, after which nothing strikes any more.

    What lasts gets shorter in proportion, but never too short to be noticed. In less than five minutes
    nothing strikes more than once, and each time is drawn: the example's would fall together, and a recorder
    that was refused too often waits longer than such a run lasts.
    """
    content = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    factor = (seconds - _BEGIN_S) / _EXAMPLE_S
    draw = random.Random(seed)
    return {"seed": seed, "faults": [_pressed(fault, factor, seconds, draw) for fault in content["faults"]]}


def _pressed(fault: dict[str, Any], factor: float, until_s: float, draw: random.Random) -> dict[str, Any]:
    """Return a fault whose times are pressed, and that ends by itself before ``until_s``."""
    times = {key: _seconds(fault[key]) * factor for key in _SCALED if key in fault}
    every_s = times.get("every")
    at_s = times.get("at", every_s or 0.0) + _BEGIN_S
    if factor < _SHORT:
        at_s = draw.uniform(_BEGIN_S, until_s - (every_s or 0.0))
    pressed = {**fault, "at": _text(at_s)}
    if every_s is not None:
        pressed["every"] = _text(every_s)
        strikes = 1 + int((until_s - at_s - times.get("jitter", 0.0)) / every_s)
        most = 1 if factor < _SHORT else strikes
        pressed["count"] = min(max(1, most), fault.get("count", most))
    if "jitter" in times:
        pressed["jitter"] = _text(times["jitter"])
    if "retry_after" in fault and factor < _SHORT:
        pressed["retry_after"] = "1s"
    for key in _LASTING:
        if key in fault:
            pressed[key] = _text(
                max(min(_SHORTEST_S, _seconds(fault[key])), _seconds(fault[key]) * min(1.0, factor))
            )
    return pressed


def _seconds(text: str) -> float:
    ns = duration_ns(text)
    assert ns is not None, text
    return ns / 1e9


def _text(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
