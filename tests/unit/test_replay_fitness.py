"""Recordings that cannot be replayed as one: sessions that overlap, a tick or lot that changed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market
from mmdata.replay import calibrate, replay, simulate, tops
from mmdata.replay.clock import map_clock
from mmdata.replay.fitness import Steps, order_steps, received, refuse_overlap
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import run
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.survey import refuse_overlaps
from tests.unit.test_market import NOON, A, B, S, level, publish, trade

MS = 1_000_000
SET = {"A": 1, "k": 1, "sigma": 1, "gamma": 0, "order_size": 1}


def two_sessions(second_at: float, clock_behind_ms: float = 0) -> Sketch:
    """One session from 0 to 1 s, another from ``second_at`` for a second."""
    sketch = Sketch()
    for begin, behind in ((0.0, 0.0), (second_at, clock_behind_ms)):
        if begin:
            sketch.session()
        sketch.book(begin, {100: 5}, {102: 5}, latency=1 - behind)
        for at in range(100, 1001, 100):
            sketch.diff(begin + at, {100: 5 + at // 100 % 2}, latency=1 - behind)
    return sketch


def simulated(market: Market, start: float | None = None, end: float | None = None) -> None:
    begin, until = (None if at is None else EPOCH + round(at * MS) for at in (start, end))
    run(market, start=begin, end=until, settings=parse_settings(SET))


def test_sessions_that_ran_at_the_same_time_are_refused_by_name_and_time() -> None:
    with pytest.raises(UsageError) as caught:
        simulated(two_sessions(500).market())
    assert caught.value.exit_code == 2
    assert (
        "the sessions sketch and sketch-1 both recorded 2023-11-14T22:13:20.501000000Z to "
        "2023-11-14T22:13:21.001000000Z" in str(caught.value)
    )
    assert "--from and --to, or import all sources as one stream" in str(caught.value)


def test_a_time_in_which_one_ran_alone_is_taken() -> None:
    market = two_sessions(500).market()
    simulated(market, end=490)
    simulated(market, start=1002)
    with pytest.raises(UsageError, match="both recorded"):
        simulated(market, end=700)
    refuse_overlaps([market], EPOCH + 1002 * MS, None)
    with pytest.raises(UsageError, match="both recorded"):
        refuse_overlaps([market], EPOCH + 900 * MS, None)


def test_sessions_that_follow_each_other_are_taken_though_their_clocks_differ() -> None:
    simulated(two_sessions(1100).market())
    simulated(two_sessions(1100, clock_behind_ms=700).market())  # received, it seems, at 400 ms


def test_one_wrong_event_time_makes_no_overlap() -> None:
    sketch = two_sessions(5000)
    sketch.trade(6000, "sell", 100, 1, latency=3000)
    market = sketch.market()
    shifted = replace(market.trades, ts_event=market.trades.ts_event + 20_000 * MS)
    market = replace(market, trades=shifted)
    refuse_overlap(market, received(market, map_clock(market), None, None, by_event=True))


def overlapping(root: Path) -> Path:
    """Two recordings of one symbol, the second beginning while the first still runs."""
    for session, begin in ((A, 0), (B, 20)):
        rows = [level(i, "100", NOON + (begin + i) * S, is_snapshot=i == 1) for i in range(1, 40)]
        publish(root, "depth", session, rows)
        publish(root, "trades", session, [trade(50, begin, at=NOON + (begin + 1) * S)])
    return root


@pytest.mark.parametrize("function", [replay, tops, simulate, calibrate])
def test_every_reader_refuses_an_overlap(function: object, tmp_path: Path) -> None:
    assert callable(function)
    with pytest.raises(UsageError, match=rf"the sessions {A} and {B} both recorded"):
        function(overlapping(tmp_path), exchange="okx", symbol="X")


def test_a_stream_of_a_time_without_overlap_is_taken(tmp_path: Path) -> None:
    events = list(replay(overlapping(tmp_path), exchange="okx", symbol="X", end=NOON + 15 * S))
    assert len(events) == 14 + 1


# Tick and lot.


def stepped(*told: tuple[float, str, str], until: float = 1000) -> Market:
    """One session, in which tick and lot are told at those times, ms."""
    sketch = Sketch(tick_size=Decimal("0.1"), lot_size=Decimal("0.01"))
    sketch.book(0, {1000: 500}, {1020: 500})
    for at, tick, lot in told:
        sketch.instrument(at, Decimal(tick), Decimal(lot))
    sketch.diff(600, {1000: 550})
    sketch.diff(until, {1000: 600})
    return sketch.market()


def steps(market: Market, begin: float, until: float) -> Steps:
    clock = map_clock(market)
    sessions = received(market, clock, None, None, by_event=True)
    return order_steps(market, clock, sessions, EPOCH + round(begin * MS), EPOCH + round(until * MS))


def test_a_tick_that_changes_while_trading_is_refused_with_both_and_the_moment() -> None:
    with pytest.raises(UsageError) as caught:
        simulated(stepped((0, "0.1", "0.1"), (500, "1", "0.1")))
    assert (
        "the tick changed from 0.1 (venue) to 1 (venue), told at 2023-11-14T22:13:20.501000000Z by the "
        "exchange's clock, and orders keep one grid: end the simulation before it by --to, or begin it "
        "after by --from" in str(caught.value)
    )
    with pytest.raises(UsageError, match=r"the lot changed from 0\.1 \(venue\) to 0\.01 \(venue\)"):
        simulated(stepped((0, "1", "0.1"), (500, "1", "0.01")))


def test_the_tick_in_force_is_that_of_the_time_asked_for() -> None:
    market = stepped((0, "0.1", "0.1"), (500, "1", "0.1"))
    assert steps(market, 0, 499).tick_size == Decimal("0.1")
    assert steps(market, 501, 1001) == Steps(Decimal(1), "venue", Decimal("0.1"), "venue")
    simulated(market, end=499)
    simulated(market, start=501)


def test_what_a_session_was_told_first_holds_from_its_beginning() -> None:
    assert steps(stepped((700, "0.5", "1")), 0, 600).tick_size == Decimal("0.5")


def test_a_session_that_was_told_nothing_goes_on_with_what_was_known() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.instrument(1, Decimal(2), Decimal(3))
    sketch.session()
    sketch.book(5000, {100: 5}, {102: 5})
    assert steps(sketch.market(), 4000, 6000).tick_size == Decimal(2)
    assert steps(Sketch().market(), 0, 1) == Steps(Decimal(1), "user", Decimal(1), "derived")
