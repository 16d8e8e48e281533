"""A deed, killed at each step that it makes to the file system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.integration.conftest import ENVIRONMENT, REPOSITORY


def step_through(deed: str, root: Path, *more: object) -> int:
    """Die at each step of ``deed``, each time in a copy ``<root>-<n>``; return how many there are.

    The copy of that last number is the one in which nothing died. Deeds are those of `tests.crash.stepper`.
    """
    run = subprocess.run(
        [sys.executable, "-m", "tests.crash.stepper", deed, root, *map(str, more)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout.splitlines()[-1])
