"""The sockets: one TCP port for both venues, whose paths do not collide.

The only module that knows asyncio, websockets and the wall clock. It feeds the pure parts and does
what they say. Sending is synchronous: a frame is told to the truth and handed to the transport in
one step, so that the truth's order *is* the wire's.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import threading
import time
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from websockets.asyncio.server import ServerConnection, broadcast
from websockets.asyncio.server import serve as serve_websockets
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from mmdata.datasets.errors import UsageError, VenueError
from mmdata.sandbox.desk import BinanceDesk, Connection, Desk, DropPlan, OkxDesk
from mmdata.sandbox.faults import FaultPlan, FaultScript, load_script, parse_script
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.live import LiveBinance, LiveOkx
from mmdata.sandbox.market import LiveMarket
from mmdata.sandbox.playback import Playback, Recording, read_recordings
from mmdata.sandbox.truth import ReceivedText, TruthWriter
from mmdata.sandbox.wire import NS_PER_S, Close, Join, Leave, Reaction, Send

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from websockets.http11 import Request, Response

    from mmdata.sandbox.instruments import Venue
    from mmdata.sandbox.options import SandboxOptions

_log = logging.getLogger(__name__)

_PASS_S = 0.010
"""From one pass over the markets to the next: by so much a trade may leave late, and as often as
bbo-tbt may speak. Half of it costs five hundredths of a core more."""

_PATIENCE_BYTES = 1 << 20
"""A playback waits while a socket has more than this to take."""

_LIMIT_BYTES = 16 << 20
"""A live market does not wait: a reader that is this far behind is cut off, as the venues do."""

_OPEN_TIMEOUT_S = 10

_MAX_MESSAGE = 1 << 16
"""Bytes of one message from a client; a longer one closes the socket (OKX's documented 64 KB)."""


class Sandbox:
    """A running sandbox, as an async context manager.

    ``addresses`` is ``{"binance": {"rest_url", "ws_url"}, "okx": {...}}`` once it is entered. Raises
    VenueError when the port cannot be had, DatasetError and DiskError for captures, UsageError
    for a truth folder in use. ConfigError, at once: a fault script that cannot be used.
    """

    def __init__(self, options: SandboxOptions) -> None:
        self.options = options
        self.addresses: dict[str, dict[str, str]] = {}
        self._stack = AsyncExitStack()
        self._numbers = itertools.count(1)
        self._sockets: dict[Connection, ServerConnection] = {}
        self._last_ns = 0
        self._truth: TruthWriter | None = None
        self._desks: list[Desk] = []
        self._patient = bool(options.captures)
        self._script = _script(options)
        self._closing: set[asyncio.Task[None]] = set()
        plans = [FaultPlan(self._script, venue) for venue in ("binance", "okx")]
        self._limit_bytes = _LIMIT_BYTES + max(plan.largest_frame for plan in plans)
        self._slowest_s = max(plan.slowest_answer_ns for plan in plans) / NS_PER_S
        if self._patient and any(plan.needs_live_market for plan in plans):
            raise UsageError(
                "the faults hold a clock_step or an id_reset, which need live markets; a capture is played "
                "back with its stamps and ids as recorded"
            )

    async def __aenter__(self) -> Sandbox:
        """Make the markets or read the captures, listen, and let time run."""
        async with AsyncExitStack() as stack:
            if self.options.truth is not None:
                instruments = () if self.options.captures else MARKETS
                self._truth = TruthWriter(self.options.truth, self.options, instruments)
                stack.callback(self._truth.close)
            self._desks = self._make_desks()
            port = await self._listen(stack)
            await stack.enter_async_context(_Companion(self._pump()))
            here = f"{self.options.host}:{port}"
            urls = {"rest_url": f"http://{here}", "ws_url": f"ws://{here}"}
            self.addresses = {desk.venue: dict(urls) for desk in self._desks}
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop time, close the sockets, close the truth."""
        await self._stack.__aexit__(kind, error, traceback)

    def _make_desks(self) -> list[Desk]:
        options, truth = self.options, self._truth
        if options.captures:
            found = read_recordings(options.captures)
            binance = Playback(found.get("binance") or Recording("binance"), options.pace)
            okx = Playback(found.get("okx") or Recording("okx"), options.pace)
            return [
                BinanceDesk(binance, truth, DropPlan(options.drop), self._plan("binance")),
                OkxDesk(okx, truth, DropPlan(options.drop), self._plan("okx")),
            ]
        start_ns = self._now()
        seeds = np.random.SeedSequence(options.seed).spawn(len(MARKETS))
        markets = [
            LiveMarket(instrument, seed, options.speed, start_ns, options.sweep)
            for instrument, seed in zip(MARKETS, seeds, strict=True)
        ]
        of = {
            venue: [market for market in markets if market.instrument.venue == venue]
            for venue in ("binance", "okx")
        }
        return [
            BinanceDesk(
                LiveBinance(of["binance"], truth, start_ns),
                truth,
                DropPlan(options.drop),
                self._plan("binance"),
            ),
            OkxDesk(
                LiveOkx(of["okx"], truth, start_ns, options.heartbeat_s),
                truth,
                DropPlan(options.drop),
                self._plan("okx"),
            ),
        ]

    def _plan(self, venue: Venue) -> FaultPlan | None:
        if not self._script.faults:
            return None
        return FaultPlan(self._script, venue, self.options.seed)

    async def _listen(self, stack: AsyncExitStack) -> int:
        server = serve_websockets(
            self._serve_connection,
            self.options.host,
            self.options.port,
            process_request=self._process_request,
            compression=None,
            ping_interval=None,  # each venue keeps its connections alive in its own way
            close_timeout=1,
            open_timeout=_OPEN_TIMEOUT_S + self._slowest_s,  # a slow answer is an unfinished handshake
            max_size=_MAX_MESSAGE,
        )
        try:
            listening = await stack.enter_async_context(server)
        except OSError as error:
            raise VenueError(
                f"the sandbox cannot listen on {self.options.host}:{self.options.port}: {error}"
            ) from error
        port: int = next(iter(listening.sockets)).getsockname()[1]
        return port

    def _now(self) -> int:
        """Return the wall clock in ns, never stepping back: ids and times must grow together."""
        self._last_ns = max(self._last_ns, time.time_ns())
        return self._last_ns

    async def _pump(self) -> NoReturn:
        """Let time run: publish what is due, a few hundred times a second."""
        loop = asyncio.get_running_loop()
        while True:
            began, sent = loop.time(), 0
            if not self._patient or self._backlog() < _PATIENCE_BYTES:
                now_ns = self._now()
                sent = sum(desk.publish_due(now_ns) for desk in self._desks)
            if not self._patient:
                self._cut_off_slow_readers()
            if self._patient and sent:
                await asyncio.sleep(0)  # more may be due; the sockets have their turn first
            else:
                # On a busy machine the sockets get half as much time as the markets: a handshake takes
                # several turns of the loop, and must not wait for a pass at each of them.
                took = loop.time() - began
                await asyncio.sleep(max(_PASS_S - took, took / 2))

    def _backlog(self) -> int:
        sizes = (ws.transport.get_write_buffer_size() for ws in self._sockets.values())
        return max(sizes, default=0)

    def _cut_off_slow_readers(self) -> None:
        for connection, ws in self._sockets.items():
            if ws.transport.get_write_buffer_size() > self._limit_bytes:
                _log.warning(
                    "connection %d is %d bytes behind: cut off", connection.number, self._limit_bytes
                )
                ws.transport.abort()

    async def _process_request(self, ws: ServerConnection, request: Request) -> Response | None:
        """Answer a REST request; None lets a WebSocket handshake go on."""
        desk = self._desk_at(request.path)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            if desk.session(request.path, 0) is None:
                return ws.respond(HTTPStatus.NOT_FOUND, "no such path\n")
            refusal = desk.handshake(self._now())
            if refusal is None:
                return None
            if not refusal.status:
                ws.transport.abort()
            return ws.respond(refusal.status or HTTPStatus.SERVICE_UNAVAILABLE, "refused\n")
        headers = {name.upper(): value for name, value in request.headers.raw_items()}
        verdict = desk.verdict(request.path, self._now())
        if verdict.made_after_ns:
            await asyncio.sleep(verdict.made_after_ns / NS_PER_S)
        answer = desk.answer(request.path, headers, self._now(), verdict)
        if verdict.delay_ns:
            await asyncio.sleep(verdict.delay_ns / NS_PER_S)
        response = ws.respond(answer.status, answer.body)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json;charset=UTF-8"
        for name, value in answer.headers.items():
            response.headers[name] = value
        return response

    def _desk(self, venue: str) -> Desk:
        return next(desk for desk in self._desks if desk.venue == venue)

    def _desk_at(self, target: str) -> Desk:
        return self._desk("okx" if target.startswith(("/ws/v5/", "/api/v5/")) else "binance")

    async def _serve_connection(self, ws: ServerConnection) -> None:
        target = ws.request.path if ws.request is not None else ""
        desk, number = self._desk_at(target), next(self._numbers)
        session = desk.session(target, number)
        assert session is not None, "the handshake has refused paths that lead nowhere"
        connection = Connection(
            desk.venue,
            number,
            target,
            session,
            push=lambda text: broadcast((ws,), text),
            # A peer that was killed is noticed by the transport before the protocol hears of it.
            is_open=lambda: ws.state is State.OPEN and not ws.transport.is_closing(),
            close=lambda code, reason: self._close(ws, code, reason),
            abort=lambda: ws.transport.abort(),
        )
        self._sockets[connection] = ws
        desk.open(connection, self._now())
        keep = self._ping if desk.venue == "binance" else self._close_idle
        keeper = asyncio.create_task(keep(ws, connection))
        try:
            await self._carry_out(ws, desk, connection, connection.session.opened())
            async for message in ws:
                text = message if isinstance(message, str) else message.decode(errors="replace")
                now_ns = self._now()
                if self._truth is not None:
                    record = ReceivedText(now_ns, desk.venue, connection.number, text)
                    self._truth.write(record)
                if not desk.hears(connection, text, now_ns):
                    continue
                reactions = connection.session.receive(text, now_ns)
                await self._carry_out(ws, desk, connection, reactions)
        except ConnectionClosed:
            pass  # the client went without a word, which is its right
        finally:
            desk.forget(connection, self._now())
            del self._sockets[connection]
            keeper.cancel()

    async def _carry_out(
        self, ws: ServerConnection, desk: Desk, connection: Connection, reactions: list[Reaction]
    ) -> None:
        for reaction in reactions:
            match reaction:
                case Send(text):
                    desk.reply(connection, text, self._now())
                case Join(key):
                    desk.join(connection, key, self._now())
                case Leave(key):
                    desk.leave(connection, key)
                case Close(code, reason):
                    await ws.close(code, reason)

    def _close(self, ws: ServerConnection, code: int, reason: str) -> None:
        """Close without waiting for the client's answer; a task that nobody holds could vanish."""
        task = asyncio.ensure_future(ws.close(code, reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _ping(self, ws: ServerConnection, connection: Connection) -> None:
        """Ping as Binance does, and close when the oldest unanswered ping is too old."""
        loop = asyncio.get_running_loop()
        answered: Awaitable[float] | None = None
        since = 0.0
        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.options.ping_interval_s)
                if not self._desk("binance").pings(connection, self._now()):
                    answered = None
                elif answered is None or asyncio.ensure_future(answered).done():
                    since, answered = loop.time(), await ws.ping()
                elif loop.time() - since >= self.options.ping_timeout_s:
                    await ws.close(1008, "Pong timeout")
                    return
                else:
                    await ws.ping()

    async def _close_idle(self, ws: ServerConnection, connection: Connection) -> None:
        """Close as OKX does when nothing was sent for ``idle_s``."""
        while True:
            before = connection.sent
            await asyncio.sleep(self.options.idle_s)
            if connection.sent == before:
                await ws.close(4004, "No data received in 30s")
                return


def _script(options: SandboxOptions) -> FaultScript:
    if options.faults is None:
        return FaultScript(())
    if isinstance(options.faults, Path):
        return load_script(options.faults)
    return parse_script(options.faults)


class _Companion:
    """A task that runs beside the body of a ``with``, and whose failure ends that body.

    A task group would do the same, but wrap every error of the body into a group, too.
    """

    def __init__(self, work: Coroutine[None, None, NoReturn]) -> None:
        self._work = work

    async def __aenter__(self) -> None:
        self._owner = asyncio.current_task()
        self._task = asyncio.create_task(self._work)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[NoReturn]) -> None:
        if not task.cancelled() and self._owner is not None:
            self._owner.cancel()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._task.done():
            if self._owner is not None:
                self._owner.uncancel()
            self._task.result()  # raises what ended it
        self._task.cancel()
        await asyncio.wait([self._task])


def run(options: SandboxOptions, announce: Callable[[dict[str, dict[str, str]]], None]) -> None:
    """Serve until SIGTERM or SIGINT, or until stdin ends if the options say so.

    ``announce`` is called once with the addresses, when connections are taken. Must run in the main
    thread, where signals arrive.
    """
    asyncio.run(_run(options, announce))


async def _run(options: SandboxOptions, announce: Callable[[dict[str, dict[str, str]]], None]) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if options.until_eof:
        threading.Thread(target=_wait_for_eof, args=(loop, stop), daemon=True).start()
    async with Sandbox(options) as sandbox:
        announce(sandbox.addresses)
        await stop.wait()


def _wait_for_eof(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # Not through sys.stdin: its lock, held by a blocked thread, would crash the interpreter's exit.
    with suppress(OSError):  # no stdin at all has ended, too
        while os.read(0, 4096):
            pass
    if not loop.is_closed():
        loop.call_soon_threadsafe(stop.set)
