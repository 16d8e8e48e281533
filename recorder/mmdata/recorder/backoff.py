"""How long to wait before trying again. Nothing about sleeping is in here."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff(draw: random.Random, *, first_s: float = 1.0, most_s: float = 60.0) -> Iterator[float]:
    """Yield seconds to wait: full jitter under a bound that doubles up to ``most_s``.

    The first wait is under ``first_s``; many clients that were cut at once do not come back at once.
    """
    bound = first_s
    while True:
        yield draw.uniform(bound / 4, bound)
        bound = min(bound * 2, most_s)
