"""Queue positions, step by step, against the published rules; and where ours differ on purpose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmdata.replay.queues import LOG, POWER, POWER2, RISK_AVERSE, RULES, after_depth, behind, reached

AS_PUBLISHED, CORRECTED = 0, 1


@pytest.mark.real
def test_probabilities_are_met(shared_folder: Path) -> None:
    rows = json.loads((shared_folder / "reference/queue_models.json").read_text())["probabilities"]
    for row in rows:
        for key, expected in row.items():
            if key in ("front", "back"):
                continue
            name, _, power = key.partition("_n")
            found = behind(RULES[name], float(power or 1), float(row["front"]), float(row["back"]))
            assert found == pytest.approx(expected, abs=1e-12), (row, key)


@pytest.mark.real
@pytest.mark.parametrize("corrected", [AS_PUBLISHED, CORRECTED])
def test_every_model_s_trace_is_met_step_by_step(shared_folder: Path, corrected: int) -> None:
    """Corrected steps equal the published ones until something reaches the order or a front is below 0."""
    traces = json.loads((shared_folder / "reference/queue_models.json").read_text())
    assert len(traces["traces"]) == 8
    for trace in traces["traces"]:
        rule, power = RULES[trace["model"].replace("_", "-")], float(trace["n"] or 1)
        front, traded = float(traces["initial_front"]), 0.0
        for event in trace["trace"]:
            lots = 0
            if event["event"] == "depth":
                before, after = float(event["a"]), float(event["b"])
                front = after_depth(rule, power, corrected, front, traded, before, after)
                traded = 0.0
            else:
                front -= event["a"]
                traded += event["a"]
                lots = reached(front, corrected)
                if lots > 0:
                    front = 0.0
            if corrected == CORRECTED and (event["filled"] > 0 or event["front"] < 0):
                break
            assert front == pytest.approx(event["front"], abs=1e-9), (trace["model"], event)
            assert lots == event["filled"], (trace["model"], event)


@pytest.mark.parametrize("rule", RULES.values())
def test_last_in_the_queue_everything_goes_before_and_first_everything_behind(rule: int) -> None:
    assert behind(rule, 2.0, 0.0, 10.0) == 1.0
    assert behind(rule, 2.0, 0.0, 0.0) == 1.0
    assert behind(rule, 2.0, 10.0, 0.0) == (1.0 if rule == RISK_AVERSE else 0.0)


def test_the_queue_behind_is_counted_after_the_trades_that_the_size_before_does_not_know() -> None:
    """60 shown, 40 before us; 20 trade, so 20 before and 20 behind; then 40 - 30 = 10 are cancelled.

    Half of the ten were before us. The published rule thinks 40 behind: two thirds of the ten.
    """
    front = 40.0 - 20.0
    assert after_depth(POWER, 1.0, CORRECTED, front, 20.0, 60.0, 30.0) == pytest.approx(15.0)
    assert after_depth(POWER, 1.0, AS_PUBLISHED, front, 20.0, 60.0, 30.0) == pytest.approx(20 - 10 / 3)


def test_a_cancellation_never_carries_the_front_below_zero() -> None:
    arguments = (2.0, CORRECTED, 4.0, 0.0, 35.0, 15.0)
    assert after_depth(POWER2, *arguments) >= 0.0


def test_a_fraction_of_a_lot_waits_for_the_next_trade() -> None:
    assert reached(-0.7, AS_PUBLISHED) == 1  # rounds: three tenths too much
    assert reached(-0.7, CORRECTED) == 0
    assert reached(-1.2, CORRECTED) == 1
    assert after_depth(POWER, 1.0, CORRECTED, -0.7, 0.0, 10.0, 12.0) == -0.7


def test_risk_averse_moves_by_trades_and_by_a_level_smaller_than_its_front() -> None:
    assert after_depth(RISK_AVERSE, 1.0, CORRECTED, 50.0, 0.0, 100.0, 60.0) == 50.0
    assert after_depth(RISK_AVERSE, 1.0, CORRECTED, 50.0, 0.0, 60.0, 30.0) == 30.0


def test_as_published_a_half_lot_is_a_lot_and_a_chance_that_is_no_number_puts_an_order_last() -> None:
    assert reached(-0.5, AS_PUBLISHED) == 1
    assert reached(-0.49, AS_PUBLISHED) == 0
    # The logarithm of less than nothing: a front of -3 units, which cancellations can make.
    assert after_depth(LOG, 1.0, AS_PUBLISHED, -3.0, 0.0, 10.0, 8.0) == 8.0
    assert after_depth(LOG, 1.0, CORRECTED, -3.0, 0.0, 10.0, 8.0) == -3.0
    assert after_depth(POWER2, 2.0, AS_PUBLISHED, 0.0, 0.0, 0.0, 0.0) == 0.0


def test_a_lot_of_the_log_rules_may_count_as_less_than_one_unit() -> None:
    """Coins are what hftbacktest counts: of a thousandth each, 30 lots to 10 are nearly 3 to 1."""
    assert behind(LOG, 1.0, 10.0, 30.0) == pytest.approx(0.588830, abs=1e-6)
    assert behind(LOG, 0.001, 10.0, 30.0) == pytest.approx(0.748, abs=1e-3)
