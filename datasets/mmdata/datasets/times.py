"""Moments and durations as people write them, as nanoseconds; and back."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta

from mmdata.datasets.errors import UsageError

Moment = str | int | datetime | date
"""ISO 8601 text, ns since the epoch, a datetime, or a date."""

NO_TIME = -(2**63)
"""Stands for a time that the venue did not send (null in the tables)."""
NEVER = 2**63 - 1
"""A time behind all others."""
_NS = 1_000_000_000
DAY_NS = 86_400 * _NS
_FRACTION = re.compile(r"(?<=:\d\d)[.,](\d+)")
_DURATION = re.compile(r"([0-9.]+(?:e-?[0-9]+)?) ?(ns|us|µs|ms|s|m|min|h|d)?")
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": _NS,
    "m": 60 * _NS,
    "min": 60 * _NS,
    "h": 3600 * _NS,
    "d": DAY_NS,
}


def to_ns(value: Moment, *, end: bool = False) -> int:
    """Return ns since the epoch; what has no zone is UTC.

    A bare date is the UTC day: its first moment, or with ``end`` the first moment after it, so that
    one date as start and as end means that day. UsageError: it cannot be read as a moment.

    >>> to_ns("2024-08-08T23:54:13.937085768Z")
    1723161253937085768
    >>> to_ns("2024-08-08", end=True) - to_ns("2024-08-08") == 86_400_000_000_000
    True
    """
    if isinstance(value, bool):
        raise UsageError(f"{value!r} is not a moment; expected ISO 8601, as in 2024-08-08T12:00:00Z")
    if isinstance(value, int):
        return value
    if isinstance(value, datetime):
        return _of_datetime(value)
    if isinstance(value, date):
        return _of_datetime(datetime.combine(value, time())) + (DAY_NS if end else 0)
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", value.strip()):
            return to_ns(date.fromisoformat(value.strip()), end=end)
        # The standard library reads at most microseconds; venues and we write nanoseconds.
        found = _FRACTION.search(value)
        whole = value if found is None else value[: found.start()] + value[found.end() :]
        fraction = 0 if found is None else int(found[1].ljust(9, "0")[:9])
        return _of_datetime(datetime.fromisoformat(whole.strip())) + fraction
    except ValueError as error:
        raise UsageError(
            f"{value!r} is not a moment; expected ISO 8601, as in 2024-08-08T12:00:00Z or 2024-08-08"
        ) from error


def _of_datetime(moment: datetime) -> int:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (since // timedelta(microseconds=1)) * 1000


def span(start: Moment | None, end: Moment | None) -> tuple[int | None, int | None]:
    """Return start and end in ns, None where open. UsageError: unreadable, or nothing lies between."""
    begin = None if start is None else to_ns(start)
    until = None if end is None else to_ns(end, end=True)
    if begin is not None and until is not None and begin >= until:
        raise UsageError(f"nothing lies between start {iso(begin)} and end {iso(until)}: end comes first")
    return begin, until


def iso(ts_ns: int) -> str:
    """Return a moment as ISO 8601 with all nine digits, UTC.

    >>> iso(1723161253937085768)
    '2024-08-08T23:54:13.937085768Z'
    """
    moment = datetime.fromtimestamp(ts_ns // _NS, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{ts_ns % _NS:09d}Z"


def duration_ns(value: str | float) -> int | None:
    """Return a duration in ns; a bare number is seconds. None: it is not a duration.

    >>> duration_ns("100ms"), duration_ns(0.5), duration_ns("soon")
    (100000000, 500000000, None)
    """
    if isinstance(value, bool):
        return None
    found = _DURATION.fullmatch(str(value).strip())
    if found is None:
        return None
    try:
        ns = float(found[1]) * _UNITS[found[2] or "s"]
    except (ValueError, OverflowError):
        return None
    return round(ns) if ns < 2**62 else None


def interval_ns(every: str | float) -> int:
    """Return an interval in ns, at least 1; a bare number is seconds. UsageError: it is none.

    >>> interval_ns("100ms")
    100000000
    """
    step = duration_ns(every)
    if step is None or step < 1:
        raise UsageError(f"every={every!r} is no interval, expected a duration as in 100ms, 1s, 5m")
    return step
