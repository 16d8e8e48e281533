"""Small parts of the recorder: units, waits, the lock."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest

from mmdata.datasets.errors import DiskError
from mmdata.datasets.units import seconds, size_bytes
from mmdata.recorder.backoff import backoff
from mmdata.recorder.lock import HeldError, exchange_lock, holder


@pytest.mark.parametrize(
    ("text", "value"), [("250ms", 0.25), ("20s", 20), ("1.5m", 90), ("1h", 3600), ("1d", 86400)]
)
def test_duration_is_seconds(text: str, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["20", "s", "20 s", "-1s", "1w", "1e3s"])
def test_duration_without_a_unit_or_a_sound_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(text)


def test_size_is_bytes_in_powers_of_two() -> None:
    assert size_bytes("3KiB") == 3072
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes("3KB")


def test_waits_grow_to_the_bound_and_are_spread() -> None:
    waits = [*islice(backoff(random.Random(1)), 200)]
    assert waits[0] <= 1.0
    assert max(waits) <= 60.0
    assert min(waits[10:]) >= 15.0
    assert len({round(wait, 3) for wait in waits[10:]}) > 100


def test_second_holder_is_refused_and_told_who_holds_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from mmdata.recorder.lock import HeldError, exchange_lock, holder\n"
        "with exchange_lock(pathlib.Path(sys.argv[1]), 'okx'): pass"
    )
    with exchange_lock(tmp_path, "okx"):
        run = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert f'"pid": {os.getpid()}' in run.stderr
        assert "HeldError" in run.stderr
    with exchange_lock(tmp_path, "okx"):
        pass  # free again


def test_lock_is_refused_within_one_process_too(tmp_path: Path) -> None:
    with (
        exchange_lock(tmp_path, "okx"),
        pytest.raises(HeldError, match="is being recorded or recovered here already"),
        exchange_lock(tmp_path, "okx"),
    ):
        pass


def test_lock_in_a_place_that_cannot_be_made_is_the_disks_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(DiskError, match="nothing is written"), exchange_lock(tmp_path / "file", "okx"):
        pass


def test_holder_is_named_without_making_or_taking_anything(tmp_path: Path) -> None:
    assert holder(tmp_path / "okx") is None
    assert not (tmp_path / "okx").exists()
    with exchange_lock(tmp_path / "okx", "okx"):
        assert f'"pid": {os.getpid()}' in (holder(tmp_path / "okx") or "")
    assert holder(tmp_path / "okx") is None
    with exchange_lock(tmp_path / "okx", "okx"):
        pass  # looking left nothing locked
