"""The schedule: when it fires, and what it does about recorders that end, die, or are somebody else's.

The recorders here are tiny scripts; real ones stand in ``tests/integration/test_schedule.py``. Each test
drives the real scheduler from its own events: what is told decides what happens next.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mmdata.datasets.errors import ConfigError, UsageError
from mmdata.recorder import schedule as scheduling
from mmdata.recorder.config import Job, parse_job
from mmdata.recorder.lock import exchange_lock
from mmdata.recorder.schedule import AHEAD, Happening, Verdict, WindowTrigger, schedule, verdict
from mmdata.recorder.window import Opening

VENUES = [{"exchange": "okx", "symbols": ["BTC-USDT"]}]
NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)


def job(**keys: Any) -> Job:
    return parse_job({"venues": VENUES, **keys}, "job")


def config(path: Path, **keys: Any) -> Path:
    keys = {"venues": VENUES, "root": str(path.with_suffix("")), "window": "none", **keys}
    path.write_text(yaml.safe_dump(keys), encoding="utf-8")
    return path


class Story:
    """Runs a schedule whose recorder is a script, and ends it when the story says so."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.told: list[Happening] = []
        self.reactions: dict[str, Callable[[], object]] = {}

    def tell(self, happening: Happening) -> None:
        """Keep what happened, and react."""
        self.told.append(happening)
        reaction = self.reactions.get(happening.event)
        if reaction is not None:
            reaction()

    def run(self, *configs: Path) -> list[str]:
        """Run to the end; return the names of what happened."""
        schedule(configs, lambda _: [sys.executable, "-c", self.script], self.tell)
        return [happening.event for happening in self.told]

    def one(self, event: str) -> Happening:
        """Return the only happening of this name."""
        [found] = [happening for happening in self.told if happening.event == event]
        return found


def end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def end_after(times: int) -> Callable[[], None]:
    """Return a reaction that ends the schedule when it is called so many times."""
    counter = itertools.count(1)
    return lambda: end() if next(counter) == times else None


# --- when


def test_it_fires_a_minute_before_the_window_and_at_once_within_it() -> None:
    trigger = WindowTrigger(job())  # 08:00 to 22:00 in Berlin
    opens = datetime(2026, 1, 15, 7, tzinfo=UTC)
    assert trigger.get_next_fire_time(None, opens - timedelta(hours=2)) == opens - AHEAD
    assert trigger.get_next_fire_time(None, NOON) == NOON
    assert trigger.get_next_fire_time(NOON, NOON) == opens + timedelta(days=1) - AHEAD


def test_opening_that_was_slept_through_is_fired_late_while_the_window_is_open() -> None:
    trigger = WindowTrigger(job())
    yesterday = datetime(2026, 1, 14, 6, 59, tzinfo=UTC)
    due = trigger.get_next_fire_time(yesterday, NOON)
    assert due == datetime(2026, 1, 15, 6, 59, tzinfo=UTC)
    closed = datetime(2026, 1, 15, 21, 30, tzinfo=UTC)
    assert trigger.get_next_fire_time(yesterday, closed) == datetime(2026, 1, 16, 6, 59, tzinfo=UTC)


def test_job_without_a_window_fires_once() -> None:
    trigger = WindowTrigger(job(window="none"))
    assert trigger.get_next_fire_time(None, NOON) == NOON
    assert trigger.get_next_fire_time(NOON, NOON) is None


@given(
    clocks=st.lists(st.times().map(str), min_size=2, max_size=2, unique=True),
    now=st.datetimes(datetime(2024, 1, 1), datetime(2030, 12, 31), timezones=st.just(UTC)),
)
def test_it_never_fires_twice_for_one_moment(clocks: list[str], now: datetime) -> None:
    window = {"zone": "Europe/Berlin", "start": clocks[0], "end": clocks[1]}
    trigger = WindowTrigger(job(window=window))
    fired = trigger.get_next_fire_time(None, now)
    for _ in range(4):
        assert fired is not None
        later = trigger.get_next_fire_time(fired, max(now, fired))
        assert later is not None
        assert later > fired
        fired = later


# --- what follows an end


@pytest.mark.parametrize(
    ("exit_code", "found"),
    [
        (0, Verdict.DONE),
        (2, Verdict.GIVEN_UP),
        (4, Verdict.GIVEN_UP),
        (3, Verdict.AGAIN),
        (70, Verdict.AGAIN),
        (-signal.SIGKILL, Verdict.AGAIN),
        (137, Verdict.AGAIN),
    ],
)
def test_what_follows_the_end_of_a_recorder(exit_code: int, found: Verdict) -> None:
    assert verdict(exit_code) is found


def test_recorder_that_dies_is_started_again(tmp_path: Path) -> None:
    story = Story("import os; os.kill(os.getpid(), 9)")
    story.reactions["started"] = end_after(3)
    happened = story.run(config(tmp_path / "a.yaml"))
    assert happened[:7] == ["scheduled", "started", "ended", "restarting", "started", "ended", "restarting"]
    assert happened[-1] == "stopped"
    ends = [happening.facts["exit"] for happening in story.told if happening.event == "ended"]
    assert ends[:2] == [-9, -9]


@pytest.mark.parametrize("exit_code", [2, 4])
def test_recorder_that_a_person_must_help_is_not_started_again(tmp_path: Path, exit_code: int) -> None:
    error = '{"schema": 1, "error": "the disk is full", "exit": 4}'
    story = Story(f"import sys; print({error!r}, file=sys.stderr); sys.exit({exit_code})")
    story.reactions["ended"] = end
    assert story.run(config(tmp_path / "a.yaml")) == ["scheduled", "started", "ended", "stopping", "stopped"]
    ended = story.one("ended")
    assert ended.facts["error"] == "the disk is full"
    assert ended.text == (
        f"the recorder has ended by exit {exit_code}: the disk is full; not again in this window"
    )


def test_recorder_of_a_job_without_a_window_is_started_again_when_it_is_done(tmp_path: Path) -> None:
    story = Story("""print('{"schema": 1, "venues": [{"frames": 7}]}')""")
    story.reactions["ended"] = end_after(2)
    happened = story.run(config(tmp_path / "a.yaml"))
    assert happened == ["scheduled", *["started", "ended"] * 2, "stopping", "stopped"]
    assert story.told[2].facts["report"]["venues"] == [{"frames": 7}]


def test_recorder_that_cannot_be_started_at_all_is_tried_again(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(happening: Happening) -> None:
        told.append(happening.event)
        if told.count("ended") == 2:
            end()

    schedule([config(tmp_path / "a.yaml")], lambda _: [str(tmp_path / "missing")], tell)
    assert told[:4] == ["scheduled", "ended", "restarting", "ended"]


# --- one recorder a job


def test_lock_of_somebody_else_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling, "_HELD_LOOK_S", 0.05)
    path = config(tmp_path / "a.yaml")
    lock = exchange_lock(tmp_path / "a/.captures/okx", "okx")
    lock.__enter__()
    story = Story("")
    story.reactions["held"] = lambda: lock.__exit__(None, None, None)
    story.reactions["ended"] = end
    happened = story.run(path)
    assert happened == ["scheduled", "held", "started", "ended", "stopping", "stopped"]
    assert f'"pid": {os.getpid()}' in story.one("held").text


def test_openings_never_overlap_though_a_recorder_outlasts_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of a second, every second; a recorder takes a second and a half to end."""
    begun = datetime.now(UTC)

    def every_second(job: Job, now: datetime) -> Opening:
        at = int((now - begun).total_seconds() // 1)
        return Opening(begun + timedelta(seconds=at), begun + timedelta(seconds=at + 1))

    monkeypatch.setattr(scheduling, "next_opening", every_second)
    monkeypatch.setattr(scheduling, "AHEAD", timedelta(0))
    story = Story("import time; time.sleep(1.5)")
    story.reactions["ended"] = end_after(3)
    happened = story.run(config(tmp_path / "a.yaml", window={}))
    assert "busy" in happened
    runs = [event for event in happened if event in ("started", "ended")]
    assert runs[:6] == ["started", "ended"] * 3


def test_two_configurations_of_one_exchange_and_dataset_are_refused(tmp_path: Path) -> None:
    paths = [config(tmp_path / name, root=str(tmp_path / "data")) for name in ("a.yaml", "b.yaml")]
    story = Story("")
    with pytest.raises(UsageError, match=r"b\.yaml and .*a\.yaml both record okx into"):
        story.run(*paths)
    assert story.told == []


# --- the configuration, read again


def test_invalid_configuration_refuses_the_whole_schedule_at_its_start(tmp_path: Path) -> None:
    good, bad = config(tmp_path / "a.yaml"), tmp_path / "b.yaml"
    bad.write_text("venues: []", encoding="utf-8")
    story = Story("")
    with pytest.raises(ConfigError, match=r"b\.yaml: venues"):
        story.run(good, bad)
    assert story.told == []


def test_configuration_that_became_invalid_is_told_and_not_run(tmp_path: Path) -> None:
    path = config(tmp_path / "a.yaml")
    story = Story("")
    story.reactions["started"] = lambda: path.write_text("venues: []", encoding="utf-8")
    story.reactions["invalid"] = end
    happened = story.run(path)
    assert happened == ["scheduled", "started", "ended", "invalid", "stopping", "stopped"]
    assert "expected a list of at least one" in story.one("invalid").facts["error"]


def test_changed_window_is_kept_from_the_next_start_on(tmp_path: Path) -> None:
    path = config(tmp_path / "a.yaml")
    opens = datetime.now(UTC) + timedelta(hours=2)
    window = {"zone": "UTC", "start": f"{opens:%H:%M}", "end": f"{opens + timedelta(hours=1):%H:%M}"}
    story = Story("")
    story.reactions["started"] = lambda: config(path, window=window)
    story.reactions["scheduled"] = end_after(2)
    happened = story.run(path)
    assert happened == ["scheduled", "started", "ended", "scheduled", "stopping", "stopped"]
    assert story.told[3].facts["window_opens"].startswith(f"{opens:%Y-%m-%dT%H:%M}")


# --- the end


def test_second_signal_goes_on_to_the_recorder_too(tmp_path: Path) -> None:
    ready, first = tmp_path / "ready", tmp_path / "first"
    script = (
        "import pathlib, signal, sys\n"
        "def second(*_): sys.exit(9)\n"
        f"def first(*_): signal.signal(signal.SIGTERM, second); pathlib.Path({str(first)!r}).touch()\n"
        "signal.signal(signal.SIGTERM, first)\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: signal.pause()\n"
    )

    def end_twice() -> None:
        for sign in (ready, first):
            while not sign.exists():
                time.sleep(0.01)
            end()

    story = Story(script)
    ender = threading.Thread(target=end_twice)
    story.reactions["started"] = ender.start
    happened = story.run(config(tmp_path / "a.yaml"))
    ender.join()
    assert happened == ["scheduled", "started", "stopping", "ended", "stopped"]
    assert story.one("ended").facts["exit"] == 9


def test_bug_in_the_schedule_ends_it_and_is_raised(tmp_path: Path) -> None:
    def broken(_: Path) -> list[str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        schedule([config(tmp_path / "a.yaml")], broken, lambda _: None)
