"""One connection that is kept up: opened again when it ends, replaced before the venue cuts it.

A replacement is open and covers every chain before the old connection is dropped, so that nothing falls
between the two. What the connections bring is the session's business (`Host`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
from dataclasses import dataclass, field
from typing import Any, Protocol

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from mmdata.recorder.ask import Explain
from mmdata.recorder.backoff import backoff
from mmdata.recorder.pacing import TokenBucket
from mmdata.recorder.venues.stream import Stream
from mmdata.recorder.wire import Wire

_log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 0.5  # a signal must be through in seconds; what a slow peer still sends is not waited for
_MAX_MESSAGE = 16 << 20  # 480 times the largest frame seen; docs/durability.md says why there is a limit
_KEEPALIVE_AFTER_S = 20.0  # OKX closes after 30 s without a push
_SILENT_AFTER_S = 60.0  # Binance pings every 20 s
_TICK_S = 1.0
_COVERED_WITHIN_S = 10.0
_LOOK_S = 0.05

# ValueError and ImportError: an address or a proxy in the environment that cannot be used.
_CANNOT_CONNECT = (OSError, TimeoutError, WebSocketException, ValueError, ImportError)


@dataclass(eq=False)
class Link:
    """One connection, from its opening to its end."""

    conn: int
    leg: Leg
    wire: Wire
    opened_s: float
    messages: TokenBucket
    """Paces what we send."""
    ended: asyncio.Future[str] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Why it ended, once it has; an error of ours that ended it."""
    closing_soon: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the venue says that it will close the connection, or when its time is over."""
    pinged_s: float = 0.0
    frames: int = 0
    cut_for: str = ""
    watch: asyncio.Task[None] | None = None

    def cut(self, reason: str) -> None:
        """End it at once, without a word to the venue."""
        self.cut_for = reason
        self.wire.transport.abort()

    async def send(self, message: bytes) -> None:
        """Send a text message as soon as the venue's limits allow; one that has ended takes nothing."""
        wait_s = self.messages.take(self.wire.loop.time())
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        try:
            self.leg.host.sending(self, message)
            await self.wire.send(message.decode())
        except ConnectionClosed:
            return  # `ended` says why

    async def close(self) -> None:
        """Close it, if it has not ended; every frame that still comes is handed over."""
        if not self.ended.done():
            await self.wire.close()
            await asyncio.wait([self.ended])


class Host(Protocol):
    """What a leg tells of its connections, and asks."""

    def next_conn(self) -> int:
        """Return the number of a new connection."""

    def opened(self, link: Link) -> None:
        """Take note of a connection, before its first message."""

    def received(self, link: Link, ts_recv: int, messages: list[bytes], is_text: bool) -> None:
        """Take messages that came with one read."""

    def sending(self, link: Link, message: bytes) -> None:
        """Take note of what is sent now."""

    def left(self, link: Link, reason: str, *, lost: bool) -> None:
        """Take note of a connection's end; ``lost``: not by our own will."""

    def covers(self, link: Link) -> bool:
        """Tell whether this connection alone would bring everything that comes from now on."""


class Leg:
    """Keeps one connection of ``stream`` up until it is cancelled."""

    def __init__(
        self,
        stream: Stream,
        host: Host,
        *,
        connects: TokenBucket,
        first_lifetime_s: float,
        draw: random.Random,
        explain: Explain,
    ) -> None:
        self.stream = stream
        self.host = host
        self._connects = connects
        self._lifetime_s = first_lifetime_s
        self._draw = draw
        self._explain = explain
        self._links: list[Link] = []

    async def run(self) -> None:
        """Record until cancelled; then the connections are closed."""
        waits = backoff(self._draw)
        link: Link | None = None
        try:
            while True:
                if link is None:
                    link = await self._open()
                if link is not None and await self._watch(link):
                    link = await self._replace(link)
                    continue
                if link is not None and link.frames:
                    waits = backoff(self._draw)  # it worked: the next attempt may come soon again
                link = None
                wait_s = next(waits)
                _log.warning("%s: the next connection is tried in %.1f s", self.stream.exchange, wait_s)
                await asyncio.sleep(wait_s)
        finally:
            for last in self._links.copy():
                await self._drop(last, "the recording ends", lost=False)

    async def _open(self) -> Link | None:
        """Open a connection; None, and a line in the log: it cannot be opened."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._connects.take(loop.time()))
        link: Link | None = None

        def opened(wire: Wire) -> None:
            nonlocal link
            limits = self.stream.limits.messages
            link = Link(self.host.next_conn(), self, wire, loop.time(), TokenBucket(*limits))
            self._links.append(link)
            link.watch = loop.create_task(_await_end(link))
            self.host.opened(link)

        def received(ts_recv: int, messages: list[bytes], is_text: bool) -> None:
            assert link is not None
            link.frames += len(messages)
            self.host.received(link, ts_recv, messages, is_text)

        try:
            await connect(
                self.stream.url,
                create_connection=functools.partial(  # type: ignore[arg-type]
                    Wire, on_open=opened, on_messages=received, max_message=_MAX_MESSAGE
                ),
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=_CLOSE_TIMEOUT_S,
                ping_interval=None,  # each venue has its own way; what is silent for long is closed
                compression=None,
                max_size=_MAX_MESSAGE,
            )
        except _CANNOT_CONNECT as error:
            told = self._explained(error) or f"cannot connect ({error or type(error).__name__})"
            _log.warning("%s: %s: %s", self.stream.exchange, self.stream.url, told)
            if link is not None:
                await self._drop(link, told, lost=True)
            return None
        assert link is not None
        for message in self.stream.opening():
            await link.send(message)
        return link

    def _explained(self, error: BaseException) -> str | None:
        if not isinstance(error, InvalidStatus):
            return None
        response = error.response
        return self._explain(response.status_code, (response.body or b"").decode(errors="replace"))

    async def _watch(self, link: Link) -> bool:
        """Wait until a connection ends (False), or wants to be replaced (True)."""
        wants = asyncio.create_task(link.closing_soon.wait())
        try:
            while not link.ended.done():
                if wants.done() or self._is_old(link):
                    return True
                await self._keep_alive(link)
                await _first_of(link.ended, wants, timeout_s=_TICK_S)
        finally:
            wants.cancel()
        reason = link.ended.result()
        _log.warning("%s: %s: %s", self.stream.exchange, self.stream.url, reason)
        await self._drop(link, reason, lost=True)
        return False

    def _is_old(self, link: Link) -> bool:
        return link.wire.loop.time() - link.opened_s > self._lifetime_s

    async def _keep_alive(self, link: Link) -> None:
        """Say something when nothing came for a while; close what has been silent for too long."""
        now_s = link.wire.loop.time()
        silent_s = now_s - link.wire.last_bytes_s
        pinged = link.pinged_s > link.wire.last_bytes_s
        if silent_s >= _SILENT_AFTER_S or (pinged and now_s - link.pinged_s > _KEEPALIVE_AFTER_S / 2):
            link.cut(f"nothing came for {silent_s:.0f} s")
        elif self.stream.keepalive is not None and silent_s >= _KEEPALIVE_AFTER_S and not pinged:
            link.pinged_s = now_s
            await link.send(self.stream.keepalive)

    async def _replace(self, old: Link) -> Link | None:
        """Open a successor, and drop ``old`` when it is not needed any more. None: both have ended."""
        self._lifetime_s = self.stream.limits.lifetime_s * self._draw.uniform(0.98, 1.0)
        waits = backoff(self._draw)
        while not old.ended.done():
            new = await self._open()
            if new is not None:
                await self._until_covered(old, new)
                if old.ended.done() or not new.ended.done():
                    await self._retire(old, new)
                    return new
                await self._drop(new, new.ended.result(), lost=True)
            await asyncio.wait([old.ended], timeout=next(waits))
        await self._drop(old, old.ended.result(), lost=True)
        return None

    async def _until_covered(self, old: Link, new: Link) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + _COVERED_WITHIN_S
        while loop.time() < until_s and not (old.ended.done() or new.ended.done()):
            if self.host.covers(new):
                return
            await _first_of(old.ended, new.ended, timeout_s=_LOOK_S)

    async def _retire(self, old: Link, new: Link) -> None:
        if old.ended.done():
            await self._drop(old, old.ended.result(), lost=True)
            return
        await self._drop(old, f"replaced by connection {new.conn}", lost=False)
        old.ended.result()  # an error of ours, if one came up in its last messages

    async def _drop(self, link: Link, reason: str, *, lost: bool) -> None:
        await link.close()
        self._links.remove(link)
        self.host.left(link, reason, lost=lost)


async def _first_of(*futures: asyncio.Future[Any], timeout_s: float) -> None:
    await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)


async def _await_end(link: Link) -> None:
    wire = link.wire
    await wire.wait_closed()
    if wire.failure is not None:
        link.ended.set_exception(wire.failure)
    else:
        link.ended.set_result(link.cut_for or f"the connection was closed ({wire.protocol.close_exc})")
