"""Recording one venue: a connection that is kept up, a capture that is appended to, books kept in sync.

The loop does as little as it can a frame: stamp it, append it, look at its ids. Which book is whole is
decided by the pure machines of `booksync`; here their answers are carried out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from mmdata.datasets.errors import ConfigError, DiskError, VenueError
from mmdata.recorder.backoff import backoff
from mmdata.recorder.booksync import Action, Ask, BookSync, Note, TradeChain
from mmdata.recorder.capture import (
    CaptureWriter,
    Event,
    RestAnswer,
    format_event,
    format_frame,
    format_rest,
    format_sent,
)
from mmdata.recorder.counts import Counts
from mmdata.recorder.rest import RestClient
from mmdata.recorder.venues import DECODERS
from mmdata.recorder.venues.stream import CONTROL, DEPTH, NOTICE, TRADES, Request, Stream

_log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 0.5  # a signal must be through in seconds; what a slow peer still sends is not waited for
_MAX_FRAME = 16 << 20
_READ_AHEAD = 4096  # frames buffered by the library before it stops reading
_KEEPALIVE_AFTER_S = 20.0  # OKX closes after 30 s without a push
_SILENT_AFTER_S = 60.0
_REST_INTERVAL_S = 1.0  # between snapshots of one symbol
_RESUBSCRIBE_INTERVAL_S = 5.0  # OKX: 480 requests an hour and connection
_ANSWER_WITHIN_S = 10.0  # OKX: a subscription is acknowledged, and its snapshot sent, well before


# ValueError and ImportError: an address or a proxy in the environment that cannot be used.
_CANNOT_CONNECT = (OSError, TimeoutError, WebSocketException, ValueError, ImportError)


class VenueSession:
    """Records one venue until it is told to stop."""

    def __init__(
        self,
        stream: Stream,
        symbols: Sequence[str],
        rest: RestClient,
        writer: CaptureWriter,
        *,
        on_segment: Callable[[], None],
    ) -> None:
        self._stream = stream
        self._symbols = tuple(symbols)
        self._rest = rest
        self._writer = writer
        self._on_segment = on_segment
        # Without a book channel there is nothing to keep in sync, and no snapshot to ask for.
        self._books = {symbol: BookSync(stream.chain) for symbol in symbols if stream.has_books}
        self._trades: dict[tuple[str, str], TradeChain] = {}
        self._asked_at: dict[str, float] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._whole = {symbol: asyncio.Event() for symbol in self._books}
        self._rest_answers = 0
        self._conn = -1
        self._socket: ClientConnection | None = None
        self._last_frame_s = 0.0
        self._unreadable = 0
        self._draw = random.Random()  # noqa: S311 jitter
        self.first_frame = asyncio.Event()
        self.counts = Counts(synced=dict.fromkeys(self._books, False))

    async def run(self, stop: asyncio.Event) -> None:
        """Record until ``stop`` is set. ConfigError: a symbol is unknown. DiskError: the disk is full."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                workers = [
                    tasks.create_task(self._keep_connected()),
                    tasks.create_task(self._read_instruments()),
                    tasks.create_task(self._keep_house()),
                ]
                await stop.wait()
                for worker in [*workers, *self._asking.values()]:
                    worker.cancel()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first is the cause, the others fell with it

    def note(self, event: Event) -> None:
        """Write an event into the capture."""
        self._writer.write(format_event(time.time_ns(), event))

    # --- the connection

    async def _keep_connected(self) -> None:
        waits = backoff(self._draw)
        while True:
            seen_before = self.counts.frames
            reason = await self._connect_once()
            if self.counts.frames > seen_before:
                waits = backoff(self._draw)  # it worked: the next attempt may come soon again
            wait_s = next(waits)
            _log.warning(
                "%s: %s; the next connection is tried in %.1f s", self._stream.exchange, reason, wait_s
            )
            await asyncio.sleep(wait_s)

    async def _connect_once(self) -> str:
        """Record one connection to its end; return why it ended."""
        try:
            self._socket = await connect(
                self._stream.url,
                open_timeout=_OPEN_TIMEOUT_S,
                close_timeout=_CLOSE_TIMEOUT_S,
                compression=None,
                max_size=_MAX_FRAME,
                max_queue=_READ_AHEAD,
            )
        except _CANNOT_CONNECT as error:
            return f"{self._stream.url}: cannot connect ({error or type(error).__name__})"
        self._conn += 1
        self.counts.connections += 1
        self.note(Event("connected", conn=self._conn, detail={"url": self._stream.url}))
        try:
            await self._open_streams()
            reason = await self._receive()
        except asyncio.CancelledError:
            # We end the session ourselves: nothing is missing in it, and its end is an event of its own.
            self.note(Event("disconnected", conn=self._conn, detail={"reason": "the recording ends"}))
            raise
        finally:
            await self._close_socket()
        self._disconnected(reason)
        return f"{self._stream.url}: {reason}"

    async def _open_streams(self) -> None:
        messages = self._stream.opening()
        for message in messages:
            await self._send(message)
        if not messages:  # the address subscribed
            for symbol in self._symbols:
                self.note(Event("subscribed", conn=self._conn, symbol=symbol))
        for symbol, book in self._books.items():
            self._act(symbol, DEPTH, book.connected())
            if not self._stream.chain.spliced:
                self._start(symbol, "stream", self._expect_book(symbol))
                if self._conn == 0:
                    self._start(symbol, "audit", self._fetch_book(symbol, "audit"))

    async def _receive(self) -> str:
        socket_ = self._socket
        assert socket_ is not None
        conn, write, loop = self._conn, self._writer.write, asyncio.get_running_loop()
        counts = self.counts
        self._last_frame_s = loop.time()
        while True:
            try:
                message = await socket_.recv(decode=False)
            except ConnectionClosed as error:
                return f"the connection was closed ({error})"
            ts_recv = time.time_ns()
            # The library tells text from binary only by the type that it would decode to; all frames of
            # these venues are text, and what is no UTF-8 is kept as base64.
            write(format_frame(ts_recv, conn, message, is_text=True))
            counts.frames += 1
            counts.bytes += len(message)
            self._last_frame_s = loop.time()
            if counts.frames == 1:
                self.first_frame.set()
            self._look(message)

    async def _send(self, message: bytes) -> None:
        if self._socket is None:
            return  # closed meanwhile: the next connection says all of it anew
        self._writer.write(format_sent(time.time_ns(), self._conn, message))
        try:
            await self._socket.send(message.decode())
        except ConnectionClosed:
            return  # `_receive` meets the same and says why

    async def _close_socket(self) -> None:
        if self._socket is not None:
            socket_, self._socket = self._socket, None
            await socket_.close()

    def _disconnected(self, reason: str) -> None:
        self.note(Event("disconnected", conn=self._conn, detail={"reason": reason}))
        for symbol, book in self._books.items():
            self._act(symbol, DEPTH, book.disconnected())
        for chain in self._trades.values():
            chain.disconnected()

    # --- what a frame says

    def _look(self, frame: bytes) -> None:
        try:
            found = self._stream.look(frame)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._say_unreadable(frame, error)
            return
        for seen in found:
            if seen.channel == DEPTH:
                book = self._books.get(seen.symbol)
                if book is not None:
                    actions = book.receive(
                        seen.first_id, seen.last_id, seen.prev_id, is_snapshot=seen.is_snapshot
                    )
                    if actions:
                        self._act(seen.symbol, DEPTH, actions)
            elif seen.channel == TRADES:
                chain = self._trades.setdefault((seen.symbol, seen.text), TradeChain())
                actions = chain.receive(seen.first_id, seen.last_id)
                if actions:
                    self._act(seen.symbol, TRADES, actions)
            elif seen.channel == NOTICE:
                self.note(Event("notice", conn=self._conn, detail={"text": seen.text}))
                _log.warning("%s says: %s", self._stream.exchange, seen.text)
            elif seen.channel == CONTROL and seen.text:
                detail = {"channel": seen.text}
                self.note(Event("subscribed", conn=self._conn, symbol=seen.symbol, detail=detail))

    def _say_unreadable(self, frame: bytes, error: Exception) -> None:
        """Say once a session that a frame cannot be read: it is in the capture, and will be quarantined."""
        self._unreadable += 1
        if self._unreadable == 1:
            _log.warning(
                "%s sent a frame that cannot be read (%s); it is kept in %s and comes into the table "
                "quarantine: %r",
                *(self._stream.exchange, error, self._writer.path, frame[:200]),
            )

    def _act(self, symbol: str, channel: str, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Note):
                self._carry_out(symbol, channel, action)
            else:
                self._ask(symbol, action)
        if channel == DEPTH:
            self.counts.synced[symbol] = self._books[symbol].synced
            if self._books[symbol].synced:
                self._whole[symbol].set()
            else:
                self._whole[symbol].clear()

    def _carry_out(self, symbol: str, channel: str, note: Note) -> None:
        self.note(
            Event(
                note.kind,
                conn=self._conn,
                channel=channel,
                symbol=symbol,
                last_id=note.last_id,
                next_id=note.next_id,
                detail=dict(note.detail),
            )
        )
        if note.kind == "gap":
            self.counts.gaps += 1
            _log.warning(
                "%s on %s: %s after id %s are missing (%s; the next message begins at %s)%s",
                *(symbol, self._stream.exchange, channel, note.last_id, note.detail["cause"], note.next_id),
                "; the book is invalid until a fresh snapshot" if channel == DEPTH else "",
            )

    # --- fresh books

    def _ask(self, symbol: str, ask: Ask) -> None:
        """Get a fresh book, as the venue gives it."""
        if self._stream.chain.spliced:
            self._start(symbol, "rest", self._fetch_book(symbol, ask.reason))
        else:
            self._start(symbol, "stream", self._resubscribe(symbol))

    def _start(self, symbol: str, how: str, work: Coroutine[None, None, None]) -> None:
        """Begin to get a book in one way, unless that is under way."""
        task = self._asking.get((symbol, how))
        if task is None or task.done():
            self._asking[symbol, how] = self._tasks.create_task(work)
        else:
            work.close()

    async def _pace(self, symbol: str, interval_s: float) -> None:
        """Wait until ``interval_s`` have passed since the symbol's book was last asked for."""
        loop = asyncio.get_running_loop()
        due = self._asked_at.get(symbol, -1e9) + interval_s
        await asyncio.sleep(max(0.0, due - loop.time()))
        self._asked_at[symbol] = loop.time()

    async def _fetch_book(self, symbol: str, reason: str) -> None:
        """Get a book over REST; an audit is only kept, any other is spliced into the stream."""
        if reason != "audit":
            await self._pace(symbol, _REST_INTERVAL_S)
        if reason == "gap":
            self._note_resync(symbol, "rest")
        answer = await self._fetch(self._stream.snapshot_request(symbol), symbol, reason)
        snapshot = DECODERS[self._stream.exchange].decode_snapshot(answer.body.encode(), symbol)
        detail = {"reason": reason}
        self.note(Event("snapshot", channel=DEPTH, symbol=symbol, last_id=snapshot.last_id, detail=detail))
        if reason != "audit" and snapshot.last_id is not None:
            actions = self._books[symbol].receive_snapshot(snapshot.last_id)
            self._asking.pop((symbol, "rest"), None)  # this one is answered: the book may need another
            self._act(symbol, DEPTH, actions)

    async def _resubscribe(self, symbol: str) -> None:
        """Subscribe to a book anew until its snapshot comes: a refusal or a lost request is tried again."""
        waits = backoff(self._draw, first_s=_RESUBSCRIBE_INTERVAL_S)
        interval_s = _RESUBSCRIBE_INTERVAL_S
        while not self._whole[symbol].is_set():
            await self._pace(symbol, interval_s)
            if self._socket is not None:
                self._note_resync(symbol, "resubscribe")
                for message in self._stream.resubscribe(symbol):
                    await self._send(message)
            if await self._is_whole_soon(symbol):
                return
            interval_s = max(_RESUBSCRIBE_INTERVAL_S, next(waits))
            _log.warning("%s: no snapshot of %s came; it is asked for again", self._stream.exchange, symbol)

    async def _expect_book(self, symbol: str) -> None:
        """See that the snapshot of a new subscription comes."""
        if not await self._is_whole_soon(symbol):
            await self._resubscribe(symbol)

    async def _is_whole_soon(self, symbol: str) -> bool:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                await self._whole[symbol].wait()
        except TimeoutError:
            return False
        # It may have broken again before this task had its turn; nobody else would ask then.
        return self._whole[symbol].is_set()

    def _note_resync(self, symbol: str, how: str) -> None:
        self.counts.resyncs += 1
        self.note(Event("resync", conn=self._conn, channel=DEPTH, symbol=symbol, detail={"by": how}))

    async def _read_instruments(self) -> None:
        """Read tick and lot of every symbol. ConfigError: the venue does not know one."""
        for request in self._stream.instruments_requests():
            answer = await self._fetch(request, ",".join(request.symbols), None)
            decoder = DECODERS[self._stream.exchange]
            found = decoder.decode_instruments(answer.body.encode(), request.symbols)
            for instrument in found:
                self._writer.grid[instrument.symbol] = (instrument.tick_size, instrument.lot_size)
            missing = sorted({*request.symbols} - {instrument.symbol for instrument in found})
            if missing:
                raise ConfigError(
                    f"{self._stream.exchange} has no instrument {', '.join(missing)}; its own list is "
                    f"{answer.url.partition('?')[0]}; recording ends"
                )

    async def _fetch(self, request: Request, symbol: str, reason: str | None) -> RestAnswer:
        """Ask until there is a good answer; every answer, good or not, is in the capture."""
        waits = backoff(self._draw)
        decoder = DECODERS[self._stream.exchange]
        while True:
            try:
                answer = await self._rest.get(request.path)
            except VenueError as error:
                _log.warning("%s", error)
            else:
                ts_recv = time.time_ns()
                answer.purpose, answer.symbol, answer.reason = request.purpose, symbol, reason
                self._rest_answers += 1
                self._writer.write(format_rest(ts_recv, self._rest_answers, answer))
                problem = _problem(request, answer, decoder.decode_snapshot, decoder.decode_instruments)
                if problem is None:
                    return answer
                if request.purpose == "instruments" and 400 <= answer.status < 500:
                    _refuse_unknown_symbols(self._stream.exchange, request, answer)
                _log.warning("%s: %s", answer.url, problem)
            await asyncio.sleep(next(waits))

    # --- housekeeping

    async def _sync(self) -> None:
        try:
            await _in_thread(_sync, os.dup(self._writer.handle))
        except OSError as error:
            raise DiskError(
                f"{self._writer.path}: cannot be synced to the disk ({error.strerror or error}); recording "
                f"ends, and what was recorded before is kept"
            ) from error

    async def _keep_house(self) -> None:
        """Each second: sync the capture, close a segment that is due, break a silence."""
        loop = asyncio.get_running_loop()
        pinged_at = silent_since = 0.0
        while True:
            await asyncio.sleep(1.0)
            await self._sync()
            if self._writer.is_due(loop.time()):
                self._on_segment()
            if self._socket is None or not self.counts.connections:
                continue
            silence_s = loop.time() - self._last_frame_s
            if self._stream.keepalive is not None and silence_s >= _KEEPALIVE_AFTER_S:
                if pinged_at > self._last_frame_s and loop.time() - pinged_at > _KEEPALIVE_AFTER_S / 2:
                    await self._close_socket()  # the ping was not answered
                elif pinged_at <= self._last_frame_s:
                    pinged_at = loop.time()
                    await self._send(self._stream.keepalive)
            if silence_s >= _SILENT_AFTER_S and silent_since != self._last_frame_s:
                silent_since = self._last_frame_s
                self.note(Event("silence", conn=self._conn, detail={"seconds": round(silence_s)}))
                _log.warning("%s: no frame for %.0f s", self._stream.exchange, silence_s)


def _problem(
    request: Request,
    answer: RestAnswer,
    read_snapshot: Callable[[bytes, str], object],
    read_instruments: Callable[[bytes, Sequence[str]], object],
) -> str | None:
    """Return what is wrong with an answer; None when it can be used."""
    if answer.status != 200:
        return f"status {answer.status}: {answer.body[:200]}"
    try:
        if request.purpose == "snapshot":
            read_snapshot(answer.body.encode(), request.symbols[0])
        else:
            read_instruments(answer.body.encode(), request.symbols)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return f"cannot be read ({error!r}): {answer.body[:200]}"
    return None


def _refuse_unknown_symbols(exchange: str, request: Request, answer: RestAnswer) -> None:
    """Raise when the venue says that it does not know a symbol: asking again would not help."""
    if answer.status == 400:
        raise ConfigError(
            f"{exchange} does not know all of {', '.join(request.symbols)} (it says: {answer.body[:200]}); "
            f"recording ends"
        )


def _sync(handle: int) -> None:
    """Flush a capture to the disk, on a handle of our own: the segment may be closed meanwhile."""
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)


async def _in_thread(function: Callable[[int], None], argument: int) -> None:
    """Run a blocking call in a daemon thread: a hanging disk must not hang the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle(error: OSError | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def work() -> None:
        outcome: OSError | None = None
        try:
            function(argument)
        except OSError as error:
            outcome = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=work, daemon=True).start()
    await future
