"""Twenty kills of the crash matrix; `make crash-test` does 500."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.matrix import PHASES, TARGETS, plan, run_many, summary


@pytest.mark.timeout(600)
def test_twenty_kills_lose_nothing_that_was_handed_over(tmp_path: Path) -> None:
    results, failures = run_many(range(20), tmp_path, workers=3)
    print(summary(results))
    assert not failures, "\n".join(failures)
    assert {result.plan.target for result in results} == {*TARGETS}
    assert sum(result.hit in ("ingest", "publish") for result in results) >= len(results) / 5


def test_plans_aim_at_every_target_in_every_phase_and_repeat() -> None:
    plans = [plan(seed) for seed in range(12)]
    assert {(one.target, one.phase) for one in plans} == {(t, p) for t in TARGETS for p in PHASES}
    assert plans == [plan(seed) for seed in range(12)]
