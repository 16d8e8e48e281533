"""The trading window against an oracle that only looks at wall clocks, minute by minute.

The oracle shares nothing with the code: zones by `zoneinfo`, no arithmetic on wall times. It walks the
minutes of some days, reads the wall clock at each, and opens and closes where the clock shows the times.
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.recorder.window import WEEKDAYS, Opening, opening

# Forward and back by an hour, by half an hour, in the southern summer, at midnight, never; the clock that
# goes "back" in summer by the letter of the law; a quarter of an hour off the full hour.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Europe/Dublin",
    "Pacific/Chatham",
)
WINDOWS = (
    ("08:00", "22:00"),
    ("22:00", "06:00"),
    ("02:30", "10:00"),
    ("20:00", "02:15"),
    ("02:10", "02:20"),
    ("00:15", "00:45"),
    ("01:45", "01:15"),
    ("00:00", "23:59"),
)
MINUTE = timedelta(minutes=1)


@cache
def readings(zone: str, day: date) -> dict[datetime, list[datetime]]:
    """Return what the wall clock shows in the minutes from three days before ``day`` to seven after: when."""
    tz = ZoneInfo(zone)
    first = datetime.combine(day, datetime.min.time(), UTC) - timedelta(days=3)
    shown: dict[datetime, list[datetime]] = {}
    for at in range(10 * 24 * 60):
        moment = first + at * MINUTE
        shown.setdefault(moment.astimezone(tz).replace(tzinfo=None), []).append(moment)
    return shown


def moments_of(zone: str, around: date, wall: datetime) -> list[datetime]:
    """Return when the wall clock shows ``wall``; where it skips it, when it first shows something later."""
    shown = readings(zone, around)
    while wall not in shown:
        wall += MINUTE
    return shown[wall]


def oracle(zone: str, start: str, end: str, around: date, weekdays: tuple[str, ...]) -> list[Opening]:
    """Return the openings of the days around ``around``, in order."""
    found = []
    # Two days before: west of Greenwich it is still the day before, whose yesterday may be open.
    for days in range(-2, 5):
        day = around + timedelta(days=days)
        last = day + timedelta(days=1) if end <= start else day
        opens = moments_of(zone, around, datetime.fromisoformat(f"{day}T{start}"))[0]
        closes = moments_of(zone, around, datetime.fromisoformat(f"{last}T{end}"))[-1]
        if WEEKDAYS[day.weekday()] in weekdays and opens < closes:
            found.append(Opening(opens, closes))
    return found


def clock_days(zone: str) -> list[date]:
    """Return the days of 2024 to 2030 on which the clock of ``zone`` changes."""
    tz = ZoneInfo(zone)
    noon = datetime(2024, 1, 1, 12, tzinfo=UTC)
    days = [noon + timedelta(days=at) for at in range(7 * 366)]
    return [
        after.astimezone(tz).date()
        for before, after in pairwise(days)
        if before.astimezone(tz).utcoffset() != after.astimezone(tz).utcoffset() and after.year <= 2030
    ]


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin",
        pytest.param("America/New_York", marks=pytest.mark.long),
        pytest.param("Australia/Lord_Howe", marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("window", WINDOWS, ids="-".join)
def test_every_hour_of_every_day_that_the_clock_changes(zone: str, window: tuple[str, str]) -> None:
    days = clock_days(zone)
    assert len(days) == 14  # twice a year
    for day in days:
        expected = oracle(zone, *window, day, WEEKDAYS)
        ends = [found.end for found in expected]
        for hours in range(-6, 54):
            now = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=hours)
            assert opening(zone, *window, now) == expected[bisect_right(ends, now)], now


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_window_on_any_clock_day_to_the_minute(data: st.DataObject) -> None:
    zone = data.draw(st.sampled_from([zone for zone in ZONES if clock_days(zone)]))
    day = data.draw(st.sampled_from(clock_days(zone)))
    times = st.times().map(lambda clock: f"{clock:%H:%M}")
    start, end = data.draw(st.lists(times, min_size=2, max_size=2, unique=True))
    weekdays = tuple(data.draw(st.lists(st.sampled_from(WEEKDAYS), min_size=1, unique=True)))
    expected = oracle(zone, start, end, day, weekdays)
    now = datetime.combine(day, datetime.min.time(), UTC) + data.draw(st.integers(0, 24 * 60)) * MINUTE
    found = opening(zone, start, end, now, weekdays)
    later = [candidate for candidate in expected if now < candidate.end]
    if later:
        assert found == later[0]
    else:
        assert found.start >= datetime.combine(day + timedelta(days=3), datetime.min.time(), UTC)


@settings(max_examples=300, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    clocks=st.lists(st.times().map(str), min_size=2, max_size=2, unique=True),
    weekdays=st.lists(st.sampled_from(WEEKDAYS), min_size=1, unique=True),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC)),
)
def test_opening_holds_now_or_is_the_next_and_the_one_after_it_comes_later(
    zone: str, clocks: list[str], weekdays: list[str], now: datetime
) -> None:
    start, end = clocks
    found = opening(zone, start, end, now, weekdays)
    assert now < found.end
    assert found.start < found.end <= found.start + timedelta(hours=25)
    assert opening(zone, start, end, found.start, weekdays).start <= found.start
    following = opening(zone, start, end, found.end, weekdays)
    assert following.end > found.end
    assert following.start - found.start <= timedelta(days=14, hours=1)
