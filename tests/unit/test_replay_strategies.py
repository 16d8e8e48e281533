"""Strategies: what is found by which name, what may be set, and that compiled ones are never stale."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from numba import njit

from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market
from mmdata.replay.deciding import reached
from mmdata.replay.desk import Desk
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import run
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import Strategy, find_strategy, strategy
from mmdata.replay.view import View, depth
from tests.wild import COMPILED

REPOSITORY = Path(__file__).parents[2]


def still(view: View, desk: Desk) -> None:
    """Do nothing."""


def test_a_name_a_function_a_strategy_and_a_file_are_found() -> None:
    assert find_strategy("avellaneda-stoikov").name == "avellaneda-stoikov"
    assert find_strategy(still).decide is still
    made = strategy(slots=3)(still)
    assert find_strategy(made) is made
    ladder = find_strategy(f"{REPOSITORY}/examples/ladder.py:ladder")
    assert (ladder.name, ladder.slots, [own.name for own in ladder.parameters]) == (
        "ladder",
        6,
        ["offset", "step", "lots", "lean"],
    )


def test_what_is_no_strategy_is_refused_with_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise ValueError('no')", encoding="utf-8")
    for named, sentence in (
        ("avellaneda", "strategy 'avellaneda' is not known; did you mean avellaneda-stoikov?"),
        ("nowhere.py:quote", "strategy nowhere.py:quote: there is no such file"),
        (f"{broken}:quote", "the file fails with ValueError: no"),
        (
            f"{REPOSITORY}/examples/ladder.py:lader",
            "the file has no strategy of this name; it has ladder",
        ),
    ):
        with pytest.raises(UsageError) as caught:
            find_strategy(named)
        assert sentence in str(caught.value)


def test_parameters_are_checked() -> None:
    made = strategy(offset=(2.0, 1.0, 9.0), needed=None)(still)
    assert made.values({"needed": "3"}) == {"offset": 2.0, "needed": 3.0}
    for given, sentence in (
        ({"needed": 1, "offset": 10}, "parameter offset of still was 10, expected a number from 1 to 9"),
        ({"needed": "x"}, "parameter needed of still was 'x', expected a number"),
        ({"needed": float("nan")}, "parameter needed of still was nan, expected a number"),
        ({}, "parameter needed of strategy still is not set, expected a number"),
        ({"needed": 1, "ofset": 3}, "parameter 'ofset' of strategy still is not known; did you mean offset?"),
    ):
        with pytest.raises(UsageError) as caught:
            made.values(given)
        assert sentence in str(caught.value)


def test_slots_memory_and_sight_are_checked() -> None:
    for options in ({"slots": 0}, {"slots": 5000}, {"memory": -1}, {"sees": "all"}):
        with pytest.raises(UsageError, match="expected"):
            strategy(**options)


def test_what_a_strategy_reaches_is_told_apart_value_by_value() -> None:
    def told(**names: object) -> bytes:
        inner = "def inner(x):\n    return x + C\n"
        code = f"{inner}def decide(view, desk):\n    return A + B + inner(1) + decide(0, 0)\n"
        scope: dict[str, Any] = {"__name__": "own", **names}
        exec(code, scope)
        return b"|".join(reached(scope["decide"]))

    first = told(A=1, B=2, C=1)
    assert told(A=1, B=2, C=1) == first
    for others in ({"C": 2}, {"B": 1}, {"A": 2, "B": 1}, {"A": 1.0}, {"C": (1, 2)}):
        assert told(**{"A": 1, "B": 2, "C": 1, **others}) != first


STRATEGY = """
from numba import njit
from mmdata.replay.desk import ASK, BID, keep
from mmdata.replay.strategies import strategy
from mmdata.replay.view import best_ask, best_bid
from away import away

AWAY = {away}

@strategy(sees="top")
@njit
def quote(view, desk):
    keep(desk, 0, BID, best_bid(view) - AWAY - away() + min(0, {run}), 1)
    keep(desk, 1, ASK, best_ask(view) + AWAY + away(), 1)
"""
CALLEE = """
from numba import njit

@njit
def away():
    return {away}
"""
RUN = """
import sys
from mmdata.replay import deciding
from mmdata.replay.simulator import run
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import find_strategy

sketch = Sketch()
sketch.book(0, {100: 5, 99: 5}, {102: 5, 103: 5})
sketch.diff(1000, {90: 1})
found = find_strategy(sys.argv[1])
result = run(sketch.market(), strategy=found, models=["price-cross"], start=EPOCH, log=True)
frame = result.models[0].order_frame()
compiled = deciding.compiled_with(found.decide)
print(*map(int, frame["price"].to_list()), sum(compiled.stats.cache_misses.values()))
"""


def ran(folder: Path) -> list[str]:
    """Return what a fresh process prints: prices quoted, and how many engines it compiled."""
    wings = [str(REPOSITORY / wing) for wing in ("datasets", "replay")]
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder / "own.py") + ":quote"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*wings, str(folder)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_an_edited_strategy_is_compiled_anew_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    """The key is over all that it reaches: its code, its constants, and functions of other files."""

    def write(away: int, callee: int) -> None:
        # A constant of this run: the kernels may be cached already, this strategy never is.
        (tmp_path / "own.py").write_text(STRATEGY.format(away=away, run=run_id), encoding="utf-8")
        (tmp_path / "away.py").write_text(CALLEE.format(away=callee), encoding="utf-8")

    run_id = time.time_ns()
    write(1, 0)
    assert ran(tmp_path) == ["99", "103", "1"]
    assert ran(tmp_path) == ["99", "103", "0"]
    write(1, 3)
    assert ran(tmp_path) == ["96", "106", "1"]


def quiet() -> Market:
    """Return a market in which nothing happens."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.diff(1000, {90: 1})
    return sketch.market()


def test_a_function_of_the_built_in_s_name_is_its_own_strategy() -> None:
    asked: list[int] = []

    def avellaneda_stoikov(view: View, desk: Desk) -> None:
        asked.append(view.now)

    result = run(quiet(), strategy=avellaneda_stoikov, models=["price-cross"], start=EPOCH)
    assert asked
    assert "gamma" not in {parameter.name for parameter in result.parameters}


def test_a_strategy_that_cannot_be_compiled_is_a_sentence() -> None:
    @strategy(sees="top")
    @njit()
    def quote(view: View, desk: Desk) -> None:
        return view.nowhere  # type: ignore[attr-defined, no-any-return]

    with pytest.raises(UsageError, match=r"strategy quote at its first decision: it fails with TypingError"):
        run(quiet(), strategy=quote, models=["price-cross"], start=EPOCH)


@pytest.mark.parametrize(
    ("strategy_", "given", "models", "sentence"),
    [
        (still, {"gamma": 1}, ["l2-queue"], "setting gamma has no effect on strategy still under l2-queue"),
        (still, {"A": 1}, ["l2-queue"], "setting A has no effect on strategy still under l2-queue"),
        (
            "avellaneda-stoikov",
            {"A": 1, "k": 1, "sigma": 1, "order_size": 1, "A_explained": 1},
            ["l2-queue"],
            "setting A_explained has no effect on strategy avellaneda-stoikov",
        ),
    ],
)
def test_a_setting_that_nothing_uses_is_refused(
    strategy_: Any, given: dict[str, object], models: list[str], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        run(quiet(), strategy=strategy_, models=models, start=EPOCH, settings=parse_settings(given))
    assert sentence in str(caught.value)


def test_a_compiled_strategy_that_looks_up_a_signal_that_was_not_given_is_refused() -> None:
    with pytest.raises(UsageError, match="looked up signal 0, but none were given, numbered from 0"):
        run(quiet(), strategy=COMPILED, models=["price-cross"], start=EPOCH)


def test_a_strategy_that_looks_deeper_than_declared_is_refused() -> None:
    def look(view: View, desk: Desk) -> None:
        depth(view, 0, 2)

    acts: Strategy = strategy(sees="top")(look)
    with pytest.raises(UsageError, match="looked deeper than the best prices, expected sees='book'"):
        run(quiet(), strategy=acts, models=["price-cross"], start=EPOCH)
