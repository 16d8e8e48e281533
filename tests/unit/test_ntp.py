"""What the kernel says of its clock: asked for real, nothing changed."""

from __future__ import annotations

import sys

import pytest

from mmdata.recorder.ntp import clock_state


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex(2) is Linux's")
def test_kernel_tells_whether_its_clock_is_kept_and_how_far_off_it_may_be() -> None:
    state = clock_state()
    if state.synchronized is None:
        pytest.skip("this system does not let us ask adjtimex(2)")
    assert state.most_error_us is not None
    assert 0 <= state.most_error_us <= 16_000_000  # the kernel stops counting at 16 s


def test_other_systems_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert clock_state() == (None, None)
