"""How often a venue is spoken to: never more than it allows, never before it says so."""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.datasets.errors import VenueError
from mmdata.recorder.ask import Asker
from mmdata.recorder.capture import RestAnswer
from mmdata.recorder.pacing import RestBudget, TokenBucket
from mmdata.recorder.rest import RestClient
from mmdata.recorder.venues import open_streams
from mmdata.recorder.venues.stream import Request


@given(
    asks=st.lists(st.tuples(st.floats(0, 10), st.floats(0.1, 5)), min_size=1, max_size=60),
    rate=st.floats(0.1, 10),
    burst=st.floats(1, 20),
)
def test_never_more_than_the_burst_and_the_rate_over_any_span(
    asks: list[tuple[float, float]], rate: float, burst: float
) -> None:
    bucket, now, done = TokenBucket(rate, burst), 0.0, []
    for pause, cost in asks:
        now += pause
        done.append((now + bucket.take(now, cost), cost))
    done.sort()
    for at, (begin, _) in enumerate(done):
        spent = 0.0
        for end, cost in done[at:]:
            spent += cost
            allowed = burst + (end - begin) * rate
            # One that costs more than what is saved up is let through when its tokens have come.
            assert spent <= allowed + max(cost for _, cost in asks) + 1e-6


def test_a_venue_that_says_too_many_requests_is_left_alone_for_as_long_as_it_says() -> None:
    budget = RestBudget(6000)
    assert budget.wait_s(1, 0.0) == 0
    budget.answered(429, {"Retry-After": "7"}, 10.0)
    assert budget.wait_s(1, 10.0) == 7.0
    assert budget.closed_s(16.0) == 1.0
    budget.answered(418, {}, 20.0)  # a ban that does not say how long
    assert budget.closed_s(20.0) == 60.0


def test_weight_that_others_use_from_here_is_left_to_them() -> None:
    budget = RestBudget(6000)
    budget.answered(200, {"x-mbx-used-weight-1m": "100"}, 0.0)
    assert (budget.used, budget.closed_s(0.0)) == (100, 0.0)
    budget.answered(200, {"X-MBX-USED-WEIGHT-1M": "5500"}, 0.0)
    assert budget.used == 5500
    assert budget.closed_s(0.0) > 0


def test_weight_of_deep_snapshots_is_spread_over_the_minute() -> None:
    budget = RestBudget(6000)
    waits = [budget.wait_s(250, 0.0) for _ in range(15)]
    assert waits[:3] == [0.0, 0.0, 0.0]
    assert waits[-1] >= 55  # 3750 of the 3000 a minute that are ours, less what was saved up


def test_symbols_are_dealt_out_to_connections_within_the_venues_limits() -> None:
    names = [f"S{number}USDT" for number in range(150)]
    streams = open_streams("binance", names, ["depth@100ms", "trade", "bookTicker"], "wss://x")
    assert [symbol for stream in streams for symbol in stream.symbols] == names
    assert all(stream.url.count("@") <= 1024 for stream in streams)
    assert all(len(stream.url) < 8000 for stream in streams)  # what a server takes as the first line
    books = open_streams("okx", [f"S{number}-USDT" for number in range(60)], ["books", "trades"], "wss://x")
    assert all(len(stream.symbols) < 30 for stream in books)
    [small] = open_streams("okx", ["BTC-USDT"], ["books"], "wss://x")
    assert small.symbols == ("BTC-USDT",)


class Answers(RestClient):
    """Gives one prepared answer after the other, and says when it was asked."""

    def __init__(self, *answers: tuple[int, dict[str, str], str]) -> None:
        self.address = "http://here"
        self._answers = iter(answers)
        self.asked_s: list[float] = []

    async def get(self, path: str) -> RestAnswer:
        """Return the next answer."""
        self.asked_s.append(time.monotonic())
        status, headers, body = next(self._answers)
        return RestAnswer(time.time_ns(), self.address + path, status, headers, body)


def ask(answers: Answers, **options: Any) -> tuple[Any, list[RestAnswer]]:
    captured: list[RestAnswer] = []
    asker = Asker(answers, RestBudget(6000), lambda ts, answer: captured.append(answer), random.Random(1))
    good = asyncio.run(asker.ask(Request("time", "/time", ()), json.loads, **options))
    return good.value, captured


def test_every_answer_is_captured_and_a_retry_comes_after_what_the_venue_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mmdata.recorder.ask.backoff", lambda draw: iter([0.01] * 9))
    answers = Answers(
        (500, {}, "busy"), (200, {}, "not JSON"), (429, {"Retry-After": "1"}, ""), (200, {}, "7")
    )
    value, captured = ask(answers)
    assert value == 7
    assert [answer.status for answer in captured] == [500, 200, 429, 200]
    assert answers.asked_s[3] - answers.asked_s[2] >= 1.0


def test_asking_ends_after_so_many_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmdata.recorder.ask.backoff", lambda draw: iter([0.01] * 9))
    answers = Answers(*[(503, {}, "closed")] * 5)
    with pytest.raises(VenueError, match="/time: status 503: closed"):
        ask(answers, tries=3)
    assert len(answers.asked_s) == 3
