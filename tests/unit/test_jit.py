"""The cache of compiled kernels: an edit anywhere is seen, a second process compiles nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLEE = "def twice(x: int) -> int:\n    return {factor} * x\n"
KERNEL = """
import callee
from mmdata.datasets.jit import kernel

_twice = kernel()(callee.twice)

@kernel(callee)
def run(x):
    return _twice(x) + 1

print(run(20), sum(run.stats.cache_hits.values()))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "callee.py").write_text(CALLEE.format(factor=2), encoding="utf-8")
    (tmp_path / "user.py").write_text(KERNEL, encoding="utf-8")
    return tmp_path


def run(folder: Path, cache: Path) -> tuple[list[str], str]:
    """Return what a fresh process prints: the kernel's result, and how often the cache served it."""
    paths = os.pathsep.join([str(folder), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", "import user"],
        env=os.environ | {"PYTHONPATH": paths, "NUMBA_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split(), done.stderr


def test_second_process_compiles_nothing(folder: Path) -> None:
    assert run(folder, folder / "cache")[0] == ["41", "0"]
    assert run(folder, folder / "cache")[0] == ["41", "1"]


def test_edit_in_a_callees_file_changes_the_next_processs_result(folder: Path) -> None:
    """Numba's own cache serves the old code here."""
    run(folder, folder / "cache")
    (folder / "callee.py").write_text(CALLEE.format(factor=3), encoding="utf-8")
    assert run(folder, folder / "cache")[0] == ["61", "0"]


def test_cache_that_cannot_be_made_is_told_and_the_kernel_runs_without_it(folder: Path) -> None:
    (folder / "file").touch()
    out, err = run(folder, folder / "file")
    assert out == ["41", "0"]
    assert "kernels are compiled anew in this process" in err


def test_kernels_of_others_keep_their_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numba.core.config

    before = vars(numba.core.config)["CACHE_DIR"]
    from mmdata.datasets.jit import kernel

    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    kernel()(run)
    assert vars(numba.core.config)["CACHE_DIR"] == before
