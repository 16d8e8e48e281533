"""Requests of one venue wait for each other: none leaves before the last answer is known."""

from __future__ import annotations

import asyncio
import random

from mmdata.recorder.ask import Asker
from mmdata.recorder.capture import RestAnswer
from mmdata.recorder.pacing import RestBudget
from mmdata.recorder.venues.stream import Request


class Refusing:
    """A venue that refuses its first request for a second, and notes when it was asked."""

    address = "http://venue"

    def __init__(self) -> None:
        self.asked_s: list[float] = []

    async def get(self, path: str) -> RestAnswer:
        """Answer after a moment, as a network does."""
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        status = 429 if len(self.asked_s) == 1 else 200
        return RestAnswer(0, path, status, {"Retry-After": "1"}, "{}")


def test_request_that_waits_its_turn_obeys_the_answer_to_the_one_before_it() -> None:
    """Two symbols asked at once: the second request left right behind the first one's 429."""

    async def ask_twice() -> list[float]:
        venue = Refusing()
        asker = Asker(venue, RestBudget(6000), lambda ts, answer: None, random.Random(1))  # type: ignore[arg-type]
        await asyncio.gather(*(asker.ask(Request("time", "/t", ()), bytes.decode) for _ in range(2)))
        return venue.asked_s

    first_s, *others_s = asyncio.run(ask_twice())
    assert len(others_s) == 2
    assert min(others_s) >= first_s + 1.0
