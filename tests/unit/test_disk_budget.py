"""What free space allows, and how often that is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.datasets.errors import ConfigError, DiskError
from mmdata.recorder.config import parse_job
from mmdata.recorder.disk_budget import Space, SpaceWatch, fits, free_space, judge


@pytest.mark.parametrize(
    ("free", "space"),
    [(100, Space.ENOUGH), (99, Space.LOW), (10, Space.LOW), (9, Space.GONE), (0, Space.GONE)],
)
def test_space_is_low_below_the_one_limit_and_gone_below_the_other(free: int, space: Space) -> None:
    assert judge(free, min_free=100, floor=10) is space


def test_low_space_is_warned_of_at_once_and_then_once_a_minute_whatever_comes_between() -> None:
    watch = SpaceWatch(min_free=100, floor=10)
    looks = [(0.0, 200), (1.0, 50), (2.0, 50), (3.0, 200), (4.0, 50), (60.9, 50), (61.0, 50), (62.0, 50)]
    assert [watch.look(free, at)[1] for at, free in looks] == [False, True, *[False] * 4, True, False]


def test_captures_are_ingested_only_where_as_much_is_free() -> None:
    assert fits(0, 0)
    assert fits(100, 100)
    assert not fits(101, 100)


def test_free_space_of_a_folder_that_is_not_there_is_the_disks_fault(tmp_path: Path) -> None:
    assert free_space(tmp_path) > 0
    with pytest.raises(DiskError, match="the free space cannot be read"):
        free_space(tmp_path / "nowhere")


def test_the_floor_above_the_warning_is_refused() -> None:
    venue = {"exchange": "okx", "symbols": ["BTC-USDT"]}
    job = {"venues": [venue], "min_free": "1GiB", "stop_free": "2GiB"}
    with pytest.raises(
        ConfigError, match="stop_free: found '2GiB', expected at most min_free, which is 1GiB"
    ):
        parse_job(job, "job.yaml")
