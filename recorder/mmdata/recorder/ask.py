"""REST requests of one venue: within its limits, asked until there is a good answer, all of it captured."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import msgspec

from mmdata.datasets.errors import VenueError
from mmdata.recorder.backoff import backoff
from mmdata.recorder.capture import RestAnswer
from mmdata.recorder.pacing import RestBudget
from mmdata.recorder.rest import RestClient
from mmdata.recorder.venues.stream import Request

_log = logging.getLogger(__name__)

_TOO_MANY = (418, 429)
_Read = TypeVar("_Read")


Explain = Callable[[int, str], str | None]
"""Makes a sentence of a refusal's HTTP status and body; None: there is nothing to add."""


class Good(NamedTuple, Generic[_Read]):
    """An answer that could be read."""

    value: _Read
    answer: RestAnswer
    ts_recv: int
    """When it came, ns since the epoch; ``answer.t0`` is when it was asked for."""


class Asker:
    """Asks one venue; ``capture(ts_recv, answer)`` gets every answer, errors too."""

    def __init__(
        self,
        rest: RestClient,
        budget: RestBudget,
        capture: Callable[[int, RestAnswer], None],
        draw: random.Random,
        explain: Explain = lambda status, body: None,
    ) -> None:
        self._rest = rest
        self._capture = capture
        self._draw = draw
        self._explain = explain
        self.budget = budget
        self._turn = asyncio.Lock()

    async def ask(
        self,
        request: Request,
        read: Callable[[bytes], _Read],
        *,
        symbol: str | None = None,
        reason: str | None = None,
        tries: int | None = None,
        refused: Callable[[RestAnswer], None] | None = None,
    ) -> Good[_Read]:
        """Return what ``read`` makes of the body of a good answer, and the answer.

        Asks again after anything else: ``read`` raising, an error status, no answer. ``refused`` is
        called with an answer of status 400 to 499 other than too many requests, and may raise.
        VenueError: none of ``tries`` was good (None: it is asked for ever).
        """
        waits = backoff(self._draw)
        tried = 0
        while True:
            ts_recv, answer, problem = await self._once(request, symbol, reason)
            if answer is not None and problem is None:
                try:
                    return Good(read(answer.body.encode()), answer, ts_recv)
                except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                    problem = f"cannot be read ({error!r}): {answer.body[:200]}"
            if refused is not None and answer is not None and _is_refusal(answer.status):
                refused(answer)
            tried += 1
            told = f"{self._rest.address}{request.path}: {problem}"
            if tried == tries:
                raise VenueError(told)
            _log.warning("%s", told)
            await asyncio.sleep(max(next(waits), self.budget.closed_s(time.monotonic())))

    async def _once(
        self, request: Request, symbol: str | None, reason: str | None
    ) -> tuple[int, RestAnswer | None, str | None]:
        """Send the request when it may be sent; return when what answer came, and what is wrong with it."""
        async with self._turn:  # one that waited for its turn must know what the last answer said of limits
            wait_s = self.budget.wait_s(request.weight, time.monotonic())
            while wait_s > 0:
                await asyncio.sleep(wait_s)
                wait_s = self.budget.closed_s(time.monotonic())
            try:
                answer = await self._rest.get(request.path)
            except VenueError as error:
                return 0, None, str(error)
            ts_recv = time.time_ns()
            self.budget.answered(answer.status, answer.headers, time.monotonic())
        answer.purpose, answer.symbol, answer.reason = request.purpose, symbol, reason
        answer.kind, answer.first_id, answer.last_id = request.span or (None, None, None)
        self._capture(ts_recv, answer)
        if answer.status != 200:
            told = self._explain(answer.status, answer.body)
            return ts_recv, answer, told or f"status {answer.status}: {answer.body[:200]}"
        return ts_recv, answer, None


def _is_refusal(status: int) -> bool:
    return 400 <= status < 500 and status not in _TOO_MANY
