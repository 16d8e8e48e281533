"""The trading window: when recording opens and closes, right on the days that the clock changes.

Pure: the time is an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal, NamedTuple, get_args

import pytz

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
WEEKDAYS: tuple[Weekday, ...] = get_args(Weekday)
_LOOK_AHEAD_DAYS = 15  # a week, and another where the only day's opening falls into a skipped hour
_RESOLUTION = timedelta(microseconds=1)


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


def opening(zone: str, start: str, end: str, now: datetime, weekdays: Sequence[str] = WEEKDAYS) -> Opening:
    """Return the opening that ``now`` (aware) lies in, else the next one.

    ``end`` at or before ``start`` is on the next day; ``weekdays`` are the days on which it opens. Of a
    time that the clock shows twice, the window opens at the first and closes at the second; a time that
    the clock skips is the moment of the jump. An opening that falls whole into a skipped hour is left out.

    >>> opening("Europe/Berlin", "08:00", "22:00", datetime(2026, 3, 29, 3, tzinfo=UTC))[0].isoformat()
    '2026-03-29T06:00:00+00:00'
    """
    tz = pytz.timezone(zone)
    opens, closes = parse_clock(start), parse_clock(end)
    today = now.astimezone(tz).date()
    for days in range(-1, _LOOK_AHEAD_DAYS):  # yesterday's may still be open past midnight
        day = today + timedelta(days=days)
        if WEEKDAYS[day.weekday()] not in weekdays:
            continue
        last = day if closes > opens else day + timedelta(days=1)
        found = Opening(_moments(tz, day, opens)[0], _moments(tz, last, closes)[-1])
        if now < found.end and found.start < found.end:
            return found
    raise AssertionError("a window opens at least once a week")


def _moments(tz: pytz.BaseTzInfo, day: date, clock: time) -> list[datetime]:
    """Return the moments, in order and in UTC, at which the clock of ``tz`` shows ``clock`` on ``day``.

    One that it skips is the moment of the jump.
    """
    wanted = datetime.combine(day, clock)
    early, late = sorted(tz.localize(wanted, is_dst=is_dst).astimezone(UTC) for is_dst in (False, True))
    if early == late or _shown(tz, early) == wanted:
        return [early, late]
    while late - early > _RESOLUTION:  # skipped: the clock jumps over it between these two
        middle = early + (late - early) / 2
        if _shown(tz, middle) < wanted:
            early = middle
        else:
            late = middle
    return [late]


def _shown(tz: pytz.BaseTzInfo, moment: datetime) -> datetime:
    return moment.astimezone(tz).replace(tzinfo=None)
