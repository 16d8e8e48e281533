"""The trading window on the days that the clock changes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from mmdata.recorder.window import Opening, opening

BERLIN = ("Europe/Berlin", "08:00", "22:00")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "start", "end"),
    [
        ("2026-01-15T00:00", "2026-01-15T07:00", "2026-01-15T21:00"),  # winter: UTC+1
        ("2026-07-15T00:00", "2026-07-15T06:00", "2026-07-15T20:00"),  # summer: UTC+2
        ("2026-03-28T22:00", "2026-03-29T06:00", "2026-03-29T20:00"),  # clocks go forward at 01:00 UTC
        ("2026-03-29T00:30", "2026-03-29T06:00", "2026-03-29T20:00"),
        ("2026-10-24T21:00", "2026-10-25T07:00", "2026-10-25T21:00"),  # clocks go back at 01:00 UTC
        ("2026-10-25T00:30", "2026-10-25T07:00", "2026-10-25T21:00"),
    ],
)
def test_berlin_window_keeps_to_the_wall_clock(now: str, start: str, end: str) -> None:
    assert opening(*BERLIN, at(now)) == (at(start), at(end))


def test_each_end_is_half_open() -> None:
    assert opening(*BERLIN, at("2026-01-15T07:00")).start == at("2026-01-15T07:00")
    assert opening(*BERLIN, at("2026-01-15T20:59")).start == at("2026-01-15T07:00")
    assert opening(*BERLIN, at("2026-01-15T21:00")).start == at("2026-01-16T07:00")


def test_window_across_midnight_is_still_open_after_it() -> None:
    night = ("Europe/Berlin", "22:00", "02:00")
    assert opening(*night, at("2026-01-15T00:30")) == (at("2026-01-14T21:00"), at("2026-01-15T01:00"))
    assert opening(*night, at("2026-01-15T01:00")).start == at("2026-01-15T21:00")


def test_open_hours_of_both_clock_days_are_fourteen_by_the_hour() -> None:
    for day in ("2026-03-29", "2026-10-25"):
        midnight = at(f"{day}T00:00")
        open_hours = [
            hour
            for hour in range(24)
            if opening(*BERLIN, midnight + timedelta(hours=hour)).start <= midnight + timedelta(hours=hour)
        ]
        assert len(open_hours) == 14


@pytest.mark.parametrize(
    ("window", "now", "found"),
    [
        # 02:30 is skipped on 29 March: it opens as the clock jumps from 02:00 to 03:00.
        (("02:30", "22:00"), "2026-03-29T00:00", ("2026-03-29T01:00", "2026-03-29T20:00")),
        (("02:30", "03:15"), "2026-03-29T00:00", ("2026-03-29T01:00", "2026-03-29T01:15")),
        (("22:00", "02:30"), "2026-03-29T00:00", ("2026-03-28T21:00", "2026-03-29T01:00")),
        # All of it is skipped: it opens the day after.
        (("02:10", "02:50"), "2026-03-29T00:00", ("2026-03-30T00:10", "2026-03-30T00:50")),
        # 02:30 comes twice on 25 October: it opens at the first and closes at the second.
        (("02:30", "22:00"), "2026-10-25T00:00", ("2026-10-25T00:30", "2026-10-25T21:00")),
        (("22:00", "02:30"), "2026-10-25T00:00", ("2026-10-24T20:00", "2026-10-25T01:30")),
        (("02:10", "02:50"), "2026-10-25T00:00", ("2026-10-25T00:10", "2026-10-25T01:50")),
    ],
)
def test_time_that_is_skipped_or_comes_twice(
    window: tuple[str, str], now: str, found: tuple[str, str]
) -> None:
    assert opening("Europe/Berlin", *window, at(now)) == (at(found[0]), at(found[1]))


def opened(weekdays: Sequence[str], window: tuple[str, str], now: str) -> Opening:
    return opening("Europe/Berlin", *window, at(now), weekdays)


def test_weekday_is_that_of_the_opening_not_of_the_close() -> None:
    friday_night = (["fri"], ("22:00", "02:00"))
    # 16 January 2026 is a Friday; its window is open into Saturday, and Saturday's own does not open.
    assert opened(*friday_night, "2026-01-17T00:30").start == at("2026-01-16T21:00")
    assert opened(*friday_night, "2026-01-17T01:00").start == at("2026-01-23T21:00")
    assert opened(*friday_night, "2026-01-15T22:00").start == at("2026-01-16T21:00")


def test_only_weekday_that_is_skipped_waits_for_the_next_week() -> None:
    # Both Sundays: 29 March has no 02:10 to 02:50.
    assert opened(["sun"], ("02:10", "02:50"), "2026-03-23T00:00").start == at("2026-04-05T00:10")


def test_weekend_is_passed_over() -> None:
    workdays = ["mon", "tue", "wed", "thu", "fri"]
    assert opened(workdays, ("08:00", "22:00"), "2026-01-16T21:00").start == at("2026-01-19T07:00")
