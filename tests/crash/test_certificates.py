"""A kill at each step of certifying, and of compacting what is certified: nothing is vouched for in vain."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmdata.datasets import certify, compact, verify
from mmdata.datasets.certificate.accounts import ACCOUNTS
from mmdata.datasets.certificate.canonical import derived
from mmdata.datasets.certificate.store import NEXT, list_certified, read_certificate
from mmdata.recorder.segments import recount, recover, recover_all
from tests.certified import write_capture
from tests.crash.steps import step_through
from tests.crash.test_compaction import dataset


def say(root: Path) -> dict[str, object]:
    """Return what all certificates say, but what cannot be derived again."""
    return {str(day): derived(read_certificate(root, day) or {}) for day in list_certified(root)}


@pytest.mark.long
def test_kill_at_any_step_of_certifying_and_the_next_recovery_certifies_the_same(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_capture(root)
    recover(root, "binance")
    steps = step_through("certify", root)
    told = say(tmp_path / f"data-{steps}")
    assert len(told) == 2
    assert steps > 20
    for number in range(steps + 1):
        harmed = tmp_path / f"data-{number}"
        assert all(told[day] == facts for day, facts in say(harmed).items())
        assert recover_all(harmed)[0].failures == []
        assert say(harmed) == told, f"killed at step {number}"
        assert verify(harmed, recount=recount).differences == []
        assert [*(harmed / ACCOUNTS).rglob("*.json")] == []


@pytest.mark.parametrize("wide", [pytest.param(False, id="narrow"), pytest.param(True, id="widened")])
@pytest.mark.long
def test_kill_at_any_step_of_a_compaction_leaves_a_dataset_that_is_as_certified(
    tmp_path: Path, wide: bool
) -> None:
    root = dataset(tmp_path / "data", wide=wide)
    certify(root)
    steps = step_through("compact", root)
    told = say(tmp_path / f"data-{steps}")
    between = 0
    for number in range(steps + 1):
        harmed = tmp_path / f"data-{number}"
        between += any(harmed.rglob(NEXT))
        assert verify(harmed).differences == [], f"killed at step {number}"
        assert compact(harmed).failures == []
        assert verify(harmed).differences == [], f"killed at step {number}"
        assert say(harmed) == told
        assert [*harmed.rglob(NEXT)] == []
    assert between > 1
