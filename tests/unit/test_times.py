"""Moments and durations as people write them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from mmdata.datasets.errors import UsageError
from mmdata.datasets.times import duration_ns, iso, to_ns

NOON = 1_795_262_400_000_000_000
_DAY = 86_400 * 1_000_000_000


@pytest.mark.parametrize(
    ("moment", "ns"),
    [
        ("2026-11-21T12:00:00Z", NOON),
        ("2026-11-21T13:00:00+01:00", NOON),
        ("2026-11-21T12:00:00.000000001", NOON + 1),
        (datetime(2026, 11, 21, 12, tzinfo=UTC), NOON),
        (datetime(2026, 11, 21, 12), NOON),
        (date(2026, 11, 21), NOON - 12 * 3600 * 1_000_000_000),
        (NOON, NOON),
    ],
)
def test_moments_are_read_as_utc_where_they_name_no_zone(moment: object, ns: int) -> None:
    assert to_ns(moment) == ns  # type: ignore[arg-type]


def test_moment_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match="'noon' is not a moment; expected ISO 8601"):
        to_ns("noon")


def test_bare_date_as_end_takes_in_its_day() -> None:
    assert to_ns("2026-11-21", end=True) == to_ns("2026-11-21") + _DAY
    assert to_ns(date(2026, 11, 21), end=True) == to_ns("2026-11-22")


def test_moment_comes_back_from_its_text_to_the_nanosecond() -> None:
    assert to_ns(iso(NOON + 123_456_789)) == NOON + 123_456_789


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("100ms", 10**8),
        ("5m", 300 * 10**9),
        ("1.5h", 5_400 * 10**9),
        ("2", 2 * 10**9),
        ("1d", _DAY),
        ("soon", None),
    ],
)
def test_duration_carries_its_unit_and_a_bare_number_is_seconds(text: str, ns: int | None) -> None:
    assert duration_ns(text) == ns
