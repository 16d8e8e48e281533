"""The trading window: when recording opens and closes, right on the days that the clock changes.

Pure: the time is an argument.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import pytz


class Opening(NamedTuple):
    """One opening of a window, both ends in UTC; half-open."""

    start: datetime
    end: datetime


def parse_clock(text: str) -> time:
    """Return a time of day from ``HH:MM`` or ``HH:MM:SS``. ValueError: it is none.

    >>> parse_clock("08:00")
    datetime.time(8, 0)
    """
    try:
        clock = time.fromisoformat(text)
    except ValueError:
        clock = None
    if clock is None or clock.tzinfo is not None:  # the window has a zone of its own
        raise ValueError(f"{text!r} is not a time of day such as 08:00")
    return clock


def opening(zone: str, start: str, end: str, now: datetime) -> Opening:
    """Return the opening that ``now`` (aware) lies in, else the next one.

    ``end`` at or before ``start`` is on the next day. A time that the clock skips is taken as if it had
    not been moved yet; of a time that comes twice, the second.

    >>> opening("Europe/Berlin", "08:00", "22:00", datetime(2026, 3, 29, 3, tzinfo=UTC))[0].isoformat()
    '2026-03-29T06:00:00+00:00'
    """
    tz = pytz.timezone(zone)
    opens, closes = parse_clock(start), parse_clock(end)
    today = now.astimezone(tz).date()
    for days in (-1, 0, 1, 2):  # yesterday's may still be open past midnight
        day = today + timedelta(days=days)
        last = day if closes > opens else day + timedelta(days=1)
        found = Opening(_utc(tz, day, opens), _utc(tz, last, closes))
        if now < found.end:
            return found
    raise AssertionError("a window opens every day")


def _utc(tz: pytz.BaseTzInfo, day: date, clock: time) -> datetime:
    naive = datetime.combine(day, clock)
    return tz.normalize(tz.localize(naive, is_dst=False)).astimezone(UTC)
