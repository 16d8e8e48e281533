"""REST requests off the event loop: one thread a venue, answers as they came, errors too."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests

from mmdata.datasets.errors import VenueError
from mmdata.recorder.capture import RestAnswer

_TIMEOUT_S = (5.0, 10.0)  # to connect, between bytes


class RestClient:
    """Asks one venue, one request after the other.

    The thread is a daemon: an answer that never comes does not hold up the end of the process.
    """

    def __init__(self, address: str, headers: Mapping[str, str] | None = None) -> None:
        self.address = address
        self._headers = dict(headers or {})
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=f"rest {address}", daemon=True).start()

    async def get(self, path: str) -> RestAnswer:
        """Return the answer to ``GET path``, whatever its status. VenueError: there was none."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[RestAnswer] = loop.create_future()

        def settle(setter: Callable[[Any], None], value: object) -> None:
            if not future.done():  # the recording may have ended meanwhile
                setter(value)

        def job() -> None:
            try:
                answer = self._ask(path)
            except requests.RequestException as error:
                refusal = VenueError(f"{self.address}{path}: no answer ({_reason(error)})")
                refusal.__cause__ = error
                outcome: tuple[Callable[[Any], None], object] = (future.set_exception, refusal)
            else:
                outcome = (future.set_result, answer)
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, *outcome)

        self._jobs.put(job)
        return await future

    def close(self) -> None:
        """Let the thread end when it has done what it was asked."""
        self._jobs.put(None)

    def _work(self) -> None:
        self._session = requests.Session()
        self._session.headers.update(self._headers)
        while (job := self._jobs.get()) is not None:
            job()
        self._session.close()

    def _ask(self, path: str) -> RestAnswer:
        t0 = time.time_ns()
        response = self._session.get(self.address + path, timeout=_TIMEOUT_S)
        return RestAnswer(
            t0=t0,
            url=self.address + path,
            status=response.status_code,
            headers=dict(response.headers),
            body=response.text,
        )


def _reason(error: BaseException) -> str:
    """Return the innermost reason: the library wraps it several times."""
    inner: BaseException = error
    while (deeper := inner.__cause__ or inner.__context__) is not None:
        inner = deeper
    return str(inner) or type(inner).__name__
