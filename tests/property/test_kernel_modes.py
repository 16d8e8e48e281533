"""The same tests uncompiled, and with bounds checked: compiled code reads past an array without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
KERNEL_TESTS = {
    "book": ("tests/unit/test_book_kernel.py", "tests/property/test_book_kernel.py"),
    "export": ("tests/property/test_export_flow.py",),
    "lines": ("tests/unit/test_plain.py",),
    "validation": ("tests/unit/test_validation_parts.py",),
    "levels": ("tests/unit/test_levels.py", "tests/property/test_levels.py"),
}


SLOW = ("export", "levels")


@pytest.mark.parametrize(
    "kernels", [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in KERNEL_TESTS]
)
@pytest.mark.parametrize(
    "mode",
    [{"NUMBA_DISABLE_JIT": "1"}, pytest.param({"NUMBA_BOUNDSCHECK": "1"}, marks=pytest.mark.long)],
    ids=lambda mode: next(iter(mode)),
)
def test_kernels_pass_their_tests(kernels: str, mode: dict[str, str], tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *KERNEL_TESTS[kernels]],
        cwd=REPOSITORY,
        env=os.environ | mode | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout
