"""Durations and sizes as people write them: a number and its unit, always."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from mmdata.datasets.times import duration_ns

_BYTES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

# `$` also matches before a line's end, hence the whole match below; a schema's pattern must be plain.
_DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
Duration = Annotated[str, Meta(pattern=_DURATION, description="a duration with its unit, such as 20s or 5m")]
_SIZE = r"^([0-9]+)(B|KiB|MiB|GiB|TiB)$"
Size = Annotated[str, Meta(pattern=_SIZE, description="a size with its unit, such as 64MiB or 5GiB")]


def seconds(text: str) -> float:
    """Return a duration in seconds. ValueError: it is none.

    >>> seconds("20s"), seconds("1.5m"), seconds("250ms")
    (20.0, 90.0, 0.25)
    """
    duration = duration_ns(text) if re.fullmatch(_DURATION.removesuffix("$"), text) else None
    if duration is None:
        raise ValueError(f"{text!r} is not a duration such as 20s, 5m or 1h")
    return duration / 1e9


def size_bytes(text: str) -> int:
    """Return a size in bytes. ValueError: it is none.

    >>> size_bytes("64MiB")
    67108864
    """
    match = re.fullmatch(_SIZE.removesuffix("$"), text)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 64MiB or 5GiB")
    return int(match[1]) * _BYTES[match[2]]
