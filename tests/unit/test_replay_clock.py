"""The recorder's clock on the exchange's, and the order in which things act and are seen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmdata.datasets._kernel import SPLICE
from mmdata.datasets.chain import CHAINS
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import NO_TIME, Market
from mmdata.replay.clock import Extent, Latencies, Validity, map_clock, proof, timeline
from mmdata.replay.sketch import EPOCH, Sketch

MS = 1_000_000


def recorded(behind_ms: float = 0) -> Market:
    """Two messages and a trade with latencies of 3, 5 and 4 ms, by a clock that is behind."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5}, latency=3 - behind_ms)
    sketch.trade(10, "buy", 102, 1, latency=4 - behind_ms)
    sketch.diff(20, {100: 6}, latency=5 - behind_ms)
    return sketch.market()


def test_the_least_latency_becomes_the_base_latency() -> None:
    clock = map_clock(recorded(behind_ms=1270))
    (session,) = clock.sessions
    assert session.shift_ns == 1270 * MS - 2 * MS
    assert (session.negative, session.timed) == (3, 3)
    assert session.source == "least latency set to 1 ms"
    times = timeline(recorded(behind_ms=1270), clock)
    assert ((times.seen - EPOCH) / MS).tolist() == [0, 1, 23]  # the session's start is seen as it happens
    assert ((times.acts - EPOCH) / MS).tolist() == [0, 0, 20]
    assert ((times.trade_seen - EPOCH) / MS).tolist() == [12]


def test_a_raw_clock_is_refused_when_anything_came_before_its_event() -> None:
    with pytest.raises(UsageError) as caught:
        map_clock(recorded(behind_ms=4), "raw")
    assert caught.value.exit_code == 2
    assert (
        "1 of 3 messages, trades and quotes were received before their event, the worst by 1.000 ms"
        in str(caught.value)
    )


def test_a_raw_clock_that_is_right_is_taken_as_it_is() -> None:
    clock = map_clock(recorded(), "raw")
    assert [session.shift_ns for session in clock.sessions] == [0]
    assert timeline(recorded(), clock).seen[-1] == EPOCH + 25 * MS


def test_an_unknown_clock_is_refused() -> None:
    with pytest.raises(UsageError, match="clock 'wall' is not known, expected mapped or raw"):
        map_clock(recorded(), "wall")


def test_each_session_has_its_own_shift() -> None:
    market = recorded()
    second = 1 << 40
    both = replace(
        market,
        sessions=("a", "b"),
        order=np.array([0, 1, second + 1]),
        trades=replace(market.trades, order=np.array([2])),
    )
    clock = map_clock(both)
    assert [session.shift_ns for session in clock.sessions] == [-2 * MS, -4 * MS]


def test_a_session_without_event_times_is_not_shifted_and_says_so() -> None:
    market = recorded()
    unknown = np.full(3, -(2**63))
    bare = replace(market, ts_event=unknown, trades=replace(market.trades, ts_event=unknown[:1]))
    (session,) = map_clock(bare).sessions
    assert (session.shift_ns, session.timed) == (0, 0)
    assert session.source.startswith("none")
    # Each left the exchange a base latency before it came.
    assert timeline(bare, map_clock(bare)).acts[-1] == EPOCH + 24 * MS


def test_nothing_acts_before_what_precedes_it_in_the_chain() -> None:
    sketch = Sketch()
    sketch.book(10, {100: 5}, {102: 5})
    sketch.diff(8, {100: 6}, latency=3)
    market = sketch.market()
    assert ((timeline(market, map_clock(market)).acts - EPOCH) / MS).tolist() == [10, 10, 10]


def test_a_book_asked_for_over_rest_does_not_hold_up_what_comes_behind_it() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.gap(500)
    sketch.diff(20, {100: 6})
    market = sketch.market()
    market.columns.kind[2] = SPLICE
    market.columns.prev_id[3] = 1  # an audit: the next message continues the book before it
    assert ((timeline(market, map_clock(market)).acts - EPOCH) / MS).tolist() == [0, 0, 0, 20]


def test_trades_asked_for_later_take_their_place_by_their_own_time() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.trade(30, "buy", 102, 1)
    sketch.trade(20, "buy", 102, 2, latency=900)
    market = sketch.market()
    market.trades.backfilled[1] = True
    assert timeline(market, map_clock(market)).trade.tolist() == [1, 0]


def test_a_recording_does_not_begin_with_an_old_trade_that_was_told_late() -> None:
    sketch = Sketch()
    sketch.trade(-9000, "buy", 102, 1, latency=9010)
    sketch.book(0, {100: 5}, {102: 5})
    sketch.diff(100, {100: 6})
    market = sketch.market()
    times = timeline(market, map_clock(market))
    span = Extent.of(times, None).within(market, None, None)
    assert span == (EPOCH, EPOCH + 100 * MS + 1)


def quoted(*, timed: bool = True) -> Market:
    """Book messages at 0, 100 and 200 ms; quotes of 30, 130 and 190 ms, each received 2 ms later."""
    sketch = Sketch(latency=2)
    sketch.book(0, {100: 5}, {102: 5})
    for at in (100, 200):
        sketch.quote(at - 70, (100, 5), (102, 5))
        if at == 200:
            sketch.quote(190, (100, 5), (102, 5))
        sketch.diff(at, {100: at})
    market = sketch.market()
    if timed:
        return market
    untimed = np.full(3, NO_TIME)
    return replace(market, chain=CHAINS["binance"], quotes=replace(market.quotes, ts_event=untimed))


def test_a_quote_acts_at_its_own_time_where_the_venue_sends_one() -> None:
    market = quoted()
    times = timeline(market, map_clock(market))
    assert ((times.quote_acts - EPOCH) / MS).tolist() == [30, 130, 190]
    assert ((times.quote_seen - EPOCH) / MS).tolist() == [31, 131, 191]


def test_a_quote_without_time_acts_a_base_latency_before_it_came_between_the_messages_its_id_says() -> None:
    market = quoted(timed=False)
    times = timeline(market, map_clock(market))
    assert ((times.quote_acts - EPOCH) / MS).tolist() == [30, 130, 190]
    late = replace(market.quotes, ts_recv=market.quotes.ts_recv + 100 * MS)
    acts = timeline(replace(market, quotes=late), map_clock(market)).quote_acts
    assert ((acts - EPOCH) / MS).tolist() == [100, 200, 200]  # the message that holds it came at the latest
    early = replace(market.quotes, ts_recv=market.quotes.ts_recv - 100 * MS)
    acts = timeline(replace(market, quotes=early), map_clock(market)).quote_acts
    assert ((acts - EPOCH) / MS).tolist() == [0, 100, 100]  # the message before it came before


def test_quotes_that_carry_a_time_are_part_of_the_clock_s_map() -> None:
    market = quoted()
    fast = replace(market.quotes, ts_recv=market.quotes.ts_recv - 1_500_000)
    (session,) = map_clock(replace(market, quotes=fast)).sessions
    assert (session.shift_ns, session.timed) == (500_000, 6)
    assert session.latencies is not None
    assert (session.latencies.least, session.latencies.median) == (MS, 2_500_000)


def test_what_shows_a_hole_acts_from_the_message_before_it_and_is_seen_when_it_came() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.diff(100, {100: 6})
    sketch.gap(30_000)
    sketch.book(31_000, {100: 5}, {102: 5})
    market = sketch.market()
    times = timeline(market, map_clock(market))
    assert ((times.acts - EPOCH) / MS).tolist() == [0, 0, 100, 100, 31_000]
    assert ((times.seen - EPOCH) / MS).tolist() == [0, 1, 101, 30_001, 31_001]
    assert times.valid.tolist() == [False, True, True, False, True]
    held = proof(Validity.of(times), EPOCH, EPOCH + 31_500 * MS)
    assert held.length == (99 + 499) * MS
    assert [held.after(n * MS) - EPOCH for n in (1, 99, 100, 598)] == [
        n * MS for n in (2, 100, 31_002, 31_500)
    ]


def test_an_event_time_that_stands_alone_is_told_from_a_distribution() -> None:
    assert not Latencies(least=MS, low=3 * MS, median=5 * MS).least_stands_alone
    assert not Latencies(least=MS, low=90 * MS, median=91 * MS).least_stands_alone
    assert not Latencies(least=MS, low=400 * MS, median=900 * MS).least_stands_alone
    assert Latencies(least=MS, low=3000 * MS, median=3005 * MS).least_stands_alone
