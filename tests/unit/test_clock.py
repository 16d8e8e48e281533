"""The venue's clock against ours."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.recorder.clock import offset
from mmdata.recorder.venues import DECODERS

_moment = st.integers(0, 2**61)
_trip = st.integers(0, 10**10)


@given(ours=_moment, out=_trip, back=_trip, ahead=st.integers(-(10**12), 10**12))
def test_truth_lies_within_the_uncertainty_however_the_trip_is_divided(
    ours: int, out: int, back: int, ahead: int
) -> None:
    found = offset(ours, ours + out + back, ours + out + ahead)
    assert abs(found.offset_ns - ahead) <= found.uncertainty_ns


def test_clock_that_was_set_back_during_the_request_measures_nothing() -> None:
    with pytest.raises(ValueError, match="came 5 ns before it was asked for"):
        offset(10, 5, 7)


@pytest.mark.parametrize(
    ("exchange", "body", "ns"),
    [
        ("binance", b'{"serverTime":1499827319559}', 1_499_827_319_559_000_000),
        ("binance", b'{"serverTime":1499827319559123,"new":1}', 1_499_827_319_559_123_000),
        ("okx", b'{"code":"0","msg":"","data":[{"ts":"1597026383085"}]}', 1_597_026_383_085_000_000),
    ],
)
def test_time_that_a_venue_answers_is_ns(exchange: str, body: bytes, ns: int) -> None:
    assert DECODERS[exchange].decode_time(body) == ns


@pytest.mark.parametrize(
    ("exchange", "body"),
    [
        ("binance", b'{"code":-1003,"msg":"Too much request weight used"}'),
        ("okx", b'{"code":"50011","msg":"Too Many Requests","data":[]}'),
        ("okx", b'{"code":"0","msg":"","data":[]}'),
        ("okx", b'{"code":"0","msg":"","data":[{"ts":"soon"}]}'),
        ("okx", b"<html>"),
    ],
)
def test_answer_that_holds_no_time_is_refused(exchange: str, body: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        DECODERS[exchange].decode_time(body)
