"""Seeds that differ in each run, and can be given again."""

from __future__ import annotations

import os
from random import SystemRandom

DEFECTS_SEED = "MMDATA_DEFECTS_SEED"
"""Names the seed of a run that is to be repeated."""


def drawn_seed(variable: str) -> int:
    """Return the seed that the environment variable names, else a fresh one."""
    told = os.environ.get(variable)
    return SystemRandom().randrange(10**6) if told is None else int(told)
