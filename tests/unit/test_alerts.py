"""`config/alerts.yml`: each alert fires on its series, is silent on a clean one, asks for real metrics."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.watched import full_watch, scrape

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "config/alerts.yml"
CASES = REPOSITORY / "tests/alerts_test.yml"
PROMTOOL = shutil.which("promtool")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is missing (Debian: prometheus)")


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*args: str | Path) -> None:
    assert PROMTOOL is not None
    run = subprocess.run([PROMTOOL, *args], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@needs_promtool
def test_rules_are_rules() -> None:
    promtool("check", "rules", RULES)


@needs_promtool
def test_each_alert_fires_on_its_series_and_is_silent_on_a_clean_one() -> None:
    promtool("test", "rules", CASES)


def test_no_alert_is_left_untested() -> None:
    cases = [
        case
        for test in yaml.safe_load(CASES.read_text(encoding="utf-8"))["tests"]
        for case in test["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in rules()}
    assert {case["alertname"] for case in cases if case.get("exp_alerts")} == names
    assert {case["alertname"] for case in cases if not case.get("exp_alerts")} == names


def test_alerts_ask_only_for_metrics_that_are_served_and_say_a_sentence() -> None:
    served = {sample.name for family in scrape(full_watch()) for sample in family.samples}
    for rule in rules():
        asked = set(re.findall(r"mmdata_\w+", rule["expr"]))
        assert asked <= served, rule["alert"]
        assert re.fullmatch(r"[A-Z{].*\.", rule["annotations"]["description"]), rule["alert"]
