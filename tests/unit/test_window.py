"""The trading window on the days that the clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mmdata.recorder.window import opening

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


@pytest.mark.parametrize("start", ["02:00", "02:30"])
def test_window_that_opens_in_the_hour_that_is_skipped_opens_once_and_late(start: str) -> None:
    found = opening("Europe/Berlin", start, "22:00", at("2026-03-29T00:00"))
    assert at("2026-03-29T00:30") < found.start <= at("2026-03-29T02:00")
