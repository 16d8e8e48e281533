"""Settings and moments: what is taken, and the sentences for what is not."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from mmdata.datasets.errors import UsageError
from mmdata.datasets.times import duration_ns, iso, span, to_ns
from mmdata.replay.settings import parse_settings


def test_text_and_numbers_mean_the_same() -> None:
    words = parse_settings({"k": "0.5", "order_size": "0.010", "interval": "250ms", "queue": "log"})
    assert words == {"k": 0.5, "order_size": Decimal("0.01"), "interval": 250_000_000, "queue": "log"}
    assert (
        parse_settings({"k": 0.5, "order_size": Decimal("0.01"), "interval": 0.25, "queue": "log"}) == words
    )


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"gama": 1}, "setting 'gama' is not known; did you mean gamma?"),
        ({"a": 1}, "setting 'a' is not known; did you mean A?"),
        ({"zzz": 1}, "setting 'zzz' is not known, expected one of A, k, sigma"),
        ({"k": "0"}, "setting k was '0', expected a number in 1/tick from 1e-09 to 1e+06"),
        ({"k": "fast"}, "setting k was 'fast', expected a number in 1/tick"),
        ({"k": float("nan")}, "setting k was nan, expected"),
        ({"k": True}, "setting k was True, expected"),
        ({"sigma": "inf"}, "setting sigma was 'inf', expected"),
        ({"interval": "0s"}, "setting interval was '0s', expected a duration such as 100ms"),
        ({"order_latency": -1}, "setting order_latency was -1, expected a duration"),
        ({"max_inventory": 0.5}, "setting max_inventory was 0.5, expected a number in orders from 1"),
        ({"maker_fee": "2"}, "setting maker_fee was '2', expected a number of notional from -0.1 to 0.1"),
        ({"queue": "fifo"}, "setting queue was 'fifo', expected one of log, log2, power"),
    ],
)
def test_what_cannot_be_is_refused_naming_key_value_and_what_may_stand_there(
    settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(settings)
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_moment_without_a_zone_is_utc() -> None:
    noon = 1_723_118_400_000_000_000
    assert to_ns("2024-08-08T12:00:00") == to_ns("2024-08-08T12:00:00Z") == noon
    assert to_ns("2024-08-08T14:00:00+02:00") == noon
    assert to_ns(datetime(2024, 8, 8, 12)) == noon
    assert to_ns(datetime(2024, 8, 8, 14, tzinfo=timezone(timedelta(hours=2)))) == noon
    assert to_ns(datetime(2024, 8, 8, 12, tzinfo=UTC)) == noon
    assert to_ns(noon) == noon


def test_a_bare_date_is_the_utc_day() -> None:
    begin, until = span("2024-08-08", "2024-08-08")
    assert begin is not None
    assert until is not None
    assert until - begin == 86_400 * 10**9
    assert (begin, until) == span(date(2024, 8, 8), date(2024, 8, 8))
    assert iso(begin) == "2024-08-08T00:00:00.000000000Z"


def test_nanoseconds_survive() -> None:
    assert iso(to_ns("2024-08-08T23:54:13.937085768Z")) == "2024-08-08T23:54:13.937085768Z"


@pytest.mark.parametrize("wrong", ["yesterday", "2024-13-01", "12:00", ""])
def test_what_is_no_moment_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError, match="is not a moment; expected ISO 8601"):
        to_ns(wrong)


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing lies between"):
        span("2024-08-09T00:00:00Z", "2024-08-08T00:00:00Z")


def test_durations() -> None:
    assert [duration_ns(text) for text in ("1", "1.5s", "20us", "3min", 0)] == [
        10**9,
        1_500_000_000,
        20_000,
        180 * 10**9,
        0,
    ]
    assert duration_ns("1 week") is None
    assert duration_ns("1e99") is None
