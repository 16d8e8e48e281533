"""Recording one venue: connections that are kept up, a capture that is appended to, books kept in sync.

The loop does as little as it can a read: stamp it, append its frames, look at their ids. Which frame
advances which chain is decided by `merge`, which book is whole by `booksync`; here they meet the wire.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mmdata.datasets.booksync import COVERED, Note, TradeChain
from mmdata.datasets.chain import RANGE
from mmdata.datasets.errors import DiskError
from mmdata.recorder.ask import Asker, Explain
from mmdata.recorder.backfill import Hole, fill
from mmdata.recorder.books import Books
from mmdata.recorder.capture import (
    CaptureWriter,
    Event,
    FinishedSegment,
    RestAnswer,
    format_event,
    format_frames,
    format_rest,
    format_sent,
)
from mmdata.recorder.counts import Counts
from mmdata.recorder.leg import Leg, Link
from mmdata.recorder.merge import Merge, MergeState, chain_name
from mmdata.recorder.pacing import RestBudget, TokenBucket
from mmdata.recorder.rest import RestClient
from mmdata.recorder.upkeep import Upkeep
from mmdata.recorder.venues.stream import BBO, CLOSING, CONTROL, DEPTH, TRADES, Seen, Stream

_log = logging.getLogger(__name__)

_OWED_FOR_NS = 5_000_000_000
"""A connection that has not brought by then what another brought is taken for dead."""
_DATA = (DEPTH, TRADES, BBO)
_STEP_NS = 500_000_000
"""A wall clock that runs away from the monotonic one by so much within a second was set."""
_SILENT_NS = 60_000_000_000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Intervals:
    """How often a session does what it does on the side, seconds."""

    sync_s: float = 1.0
    clock_s: float = 60.0
    instruments_s: float = 3600.0
    audit_s: float | None = 3600.0
    """Between two audits of one symbol; None: never."""


class VenueSession:
    """Records one venue until it is told to stop.

    ``streams`` are the venue's symbols dealt out to connections; each is brought by ``connections`` of
    them, merged by sequence id. ``on_segment`` gets each closed segment, in order; ``explain`` may know why
    the venue refuses us.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        rest: RestClient,
        writer: CaptureWriter,
        *,
        on_segment: Callable[[Path], None],
        connections: int = 1,
        intervals: Intervals | None = None,
        explain: Explain = lambda status, body: None,
    ) -> None:
        first = streams[0]
        self.exchange = first.exchange
        self._writer = writer
        self._on_segment = on_segment
        self._intervals = intervals or Intervals()
        self._draw = random.Random()  # noqa: S311 jitter
        self._chain_rule = first.chain.rule
        self._merges: dict[tuple[str, str, str], Merge] = {}
        self._trades: dict[tuple[str, str], TradeChain] = {}
        self._conns = -1
        self._rest_answers = 0
        self._unreadable = 0
        self._silent: set[tuple[str, str]] = set()
        self._spawned: set[asyncio.Task[None]] = set()
        self._ending = False
        self._closing: asyncio.Task[None] | None = None
        self.first_frame = asyncio.Event()
        self.counts = Counts()
        budget = RestBudget(first.limits.rest_per_minute)
        self._asker = Asker(rest, budget, self._capture_answer, self._draw, explain)
        self._books = {stream: Books(stream, self, self._asker, self._draw) for stream in streams}
        self._upkeep = Upkeep(streams, self._asker, self)
        self._symbols = [symbol for stream in streams for symbol in stream.symbols]
        self._books_of = {symbol: self._books[stream] for stream in streams for symbol in stream.symbols}
        connects = TokenBucket(*first.limits.connects)
        self._legs = [
            Leg(
                stream,
                self,
                connects=connects,
                # Two connections are never replaced at the same time.
                first_lifetime_s=stream.limits.lifetime_s * (at + 1) / connections,
                draw=self._draw,
                explain=explain,
            )
            for stream in streams
            for at in range(connections)
        ]
        self._lost: set[Leg] = set()
        self._at: dict[Leg, list[Link]] = {leg: [] for leg in self._legs}

    async def run(self, stop: asyncio.Event) -> None:
        """Record until ``stop`` is set. ConfigError: a symbol is unknown. DiskError: the disk is full."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                workers = [tasks.create_task(leg.run()) for leg in self._legs]
                workers += [tasks.create_task(work) for work in self._side_work()]
                await stop.wait()
                self._ending = True
                for worker in (*workers, *self._spawned):
                    worker.cancel()
            self._note_owed()
        except ExceptionGroup as group:
            raise group.exceptions[0] from None  # the first is the cause, the others fell with it
        finally:
            if self._closing is not None:
                await self._closing

    def note(self, event: Event) -> None:
        """Write an event into the capture."""
        self._writer.write(format_event(time.time_ns(), event))

    def note_gap(self, conn: int | None, channel: str, symbol: str, gap: Note) -> None:
        """Write a hole in a chain, count it, and say it."""
        event = Event("gap", conn=conn, channel=channel, symbol=symbol, detail=dict(gap.detail))
        event.last_id, event.next_id = gap.last_id, gap.next_id
        self.note(event)
        self.counts.gaps += 1
        _log.warning(
            "%s on %s: %s after id %s are missing (%s; the next message begins at %s)%s",
            *(symbol, self.exchange, channel, gap.last_id, gap.detail["cause"], gap.next_id),
            "; the book is invalid until a fresh snapshot"
            if channel == DEPTH and not COVERED.items() <= gap.detail.items()
            else "",
        )

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        """Do ``work`` beside the recording; None: it ends just now, and nothing is begun any more."""
        try:
            task = None if self._ending else self._tasks.create_task(work)
        except RuntimeError:  # an error has ended the recording; frames still come until the sockets close
            task = None
        if task is None:
            work.close()
            return None
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)
        return task

    # --- the connections (`leg.Host`)

    def next_conn(self) -> int:
        """Return the number of a new connection."""
        self._conns += 1
        return self._conns

    def opened(self, link: Link) -> None:
        """Take note of a connection, before its first message."""
        self.counts.connections += 1
        self.counts.live += 1
        self.counts.reconnects += link.leg in self._lost
        self._lost.discard(link.leg)
        stream = link.leg.stream
        leg = self._legs.index(link.leg)
        self.note(Event("connected", conn=link.conn, detail={"url": stream.url, "leg": leg}))
        if not stream.opening():  # the address subscribed
            for symbol in stream.symbols:
                self.note(Event("subscribed", conn=link.conn, symbol=symbol))
        self._at[link.leg].append(link)
        self._books[stream].joined(link)

    def sending(self, link: Link, message: bytes) -> None:
        """Write what is sent into the capture."""
        self._writer.write(format_sent(time.time_ns(), link.conn, message))

    def left(self, link: Link, reason: str, *, lost: bool) -> None:
        """Take note of a connection's end."""
        self.counts.live -= 1
        self.note(Event("disconnected", conn=link.conn, detail={"reason": reason}))
        for merge in self._merges.values():
            merge.leave(link.conn)
        self._at[link.leg].remove(link)
        if lost:
            self._lost.add(link.leg)
        stream = link.leg.stream
        brought = {key[1] for key, merge in self._merges.items() if key[0] == DEPTH and merge.is_brought}
        self._books[stream].left(link, lost=lost, brought=brought)
        # Ended by ourselves, nothing is missing, and its end is an event of its own.
        if lost and not any(links for leg, links in self._at.items() if leg.stream is stream):
            for (symbol, _), chain in self._trades.items():
                if symbol in stream.symbols:
                    chain.disconnected()

    def covers(self, link: Link) -> bool:
        """Tell whether this connection alone would bring every book message that comes from now on."""
        chains = [self._merges.get((DEPTH, symbol, "")) for symbol in link.leg.stream.symbols]
        return link.frames > 0 and all(chain is None or chain.covers(link.conn) for chain in chains)

    def received(self, link: Link, ts_recv: int, messages: list[bytes], is_text: bool) -> None:
        """Take messages that came with one read: first into the capture, then their ids."""
        counts = self.counts
        lines = format_frames(ts_recv, link.conn, messages, is_text=is_text)
        self._writer.write(lines, len(messages))
        counts.add_lag((time.time_ns() - ts_recv) / 1e9)
        if not counts.frames:
            self.first_frame.set()
        counts.frames += len(messages)
        counts.bytes += len(lines)
        look = link.leg.stream.look
        for frame in messages:
            try:
                found = look(frame)
            except (msgspec.MsgspecError, ValueError, RecursionError) as error:
                self._say_unreadable(frame, error)
                continue
            for seen in found:
                if seen.channel in _DATA:
                    self._see_data(link, ts_recv, seen)
                else:
                    self._see(link, seen)

    # --- what a frame says

    def _see(self, link: Link, seen: Seen) -> None:
        if seen.channel == CONTROL:
            if seen.text:
                detail = {"channel": seen.text}
                self.note(Event("subscribed", conn=link.conn, symbol=seen.symbol, detail=detail))
            return
        self.note(Event("notice", conn=link.conn, detail={"text": seen.text}))
        _log.warning("%s says: %s", self.exchange, seen.text)
        if seen.channel == CLOSING:
            link.closing_soon.set()

    def _see_data(self, link: Link, ts_recv: int, seen: Seen) -> None:
        channel, symbol = seen.channel, seen.symbol
        self.counts.last_frame[channel, symbol] = ts_recv
        merge = self._merges.get((channel, symbol, seen.text))
        if merge is None:
            merge = Merge(self._chain_rule if channel == DEPTH else RANGE)
            self._merges[channel, symbol, seen.text] = merge
        if not merge.enters(link.conn, seen.last_id, seen.prev_id, seen.is_snapshot, ts_recv):
            self.counts.repeats += 1
        elif channel == DEPTH:
            self._books[link.leg.stream].receive(link.conn, seen)
        elif channel == TRADES:
            self._follow_trades(link.conn, seen)

    def _follow_trades(self, conn: int, seen: Seen) -> None:
        key = (seen.symbol, seen.text)
        chain = self._trades.get(key)
        if chain is None:
            chain = self._trades[key] = TradeChain()
        for action in chain.receive(seen.first_id, seen.last_id):
            assert isinstance(action, Note)
            self.note_gap(conn, TRADES, seen.symbol, action)
            assert action.last_id is not None
            assert action.next_id is not None
            if action.next_id <= action.last_id:
                continue  # the venue counts anew: there are no ids to ask for
            hole = Hole(seen.symbol, seen.text, action.last_id + 1, action.next_id - 1)
            self.spawn(self._fill(hole))

    async def _fill(self, hole: Hole) -> None:
        count, event = await fill(hole, self.exchange, self._asker)
        self.counts.backfilled += count
        self.note(event)

    def _say_unreadable(self, frame: bytes, error: Exception) -> None:
        """Say once a session that a frame cannot be read: it is in the capture, and will be quarantined."""
        self._unreadable += 1
        if self._unreadable == 1:
            _log.warning(
                "%s sent a frame that cannot be read (%s); it is kept in %s and comes into the table "
                "quarantine: %r",
                *(self.exchange, error, self._writer.path, frame[:200]),
            )

    def _capture_answer(self, ts_recv: int, answer: RestAnswer) -> None:
        self._rest_answers += 1
        self._writer.write(format_rest(ts_recv, self._rest_answers, answer))
        self.counts.rest_used_weight = self._asker.budget.used

    # --- on the side

    def _side_work(self) -> Sequence[Coroutine[None, None, None]]:
        intervals = self._intervals
        work = [
            self._keep_house(),
            self._upkeep.read_instruments(self._writer.grid, intervals.instruments_s),
            self._upkeep.compare_clocks(intervals.clock_s),
        ]
        if intervals.audit_s is not None:
            audits = {symbol: books.audit for symbol, books in self._books_of.items()}
            work.append(self._upkeep.audit(audits, intervals.audit_s))
        return work

    async def _keep_house(self) -> None:
        """Sync the capture each second, close a segment that is due, look for what has fallen silent."""
        loop = asyncio.get_running_loop()
        ahead_ns = time.time_ns() - time.monotonic_ns()
        while True:
            began_s = loop.time()
            await self._sync()
            if self._writer.is_due(loop.time()):
                await self._rotate()
            step_ns = time.time_ns() - time.monotonic_ns() - ahead_ns
            ahead_ns += step_ns
            if abs(step_ns) > _STEP_NS:
                self.note(Event("clock", detail={"step_ns": step_ns}))
                _log.warning("the system's clock was set by %+.3f s", step_ns / 1e9)
            else:
                self._look_for_silence(time.time_ns())
            await asyncio.sleep(max(0.0, began_s + self._intervals.sync_s - loop.time()))

    async def _sync(self) -> None:
        try:
            handle = os.dup(self._writer.handle)
            await _in_thread(lambda: _sync(handle))
        except OSError as error:
            raise DiskError(
                f"{self._writer.path}: cannot be synced to the disk ({error.strerror or error}); recording "
                f"ends, and what was recorded before is kept"
            ) from error

    async def _rotate(self) -> None:
        finished = self._writer.rotate(self._merge_states())
        self._closing = asyncio.create_task(self._close(finished))
        await asyncio.shield(self._closing)  # which goes on when the recording ends meanwhile

    async def _close(self, finished: FinishedSegment) -> None:
        self._on_segment(await _in_thread(finished.close))

    def _merge_states(self) -> dict[str, MergeState]:
        """Return where the merge of every chain stands, for the header of a segment."""
        return {chain_name(*key): merge.state() for key, merge in self._merges.items()}

    def _look_for_silence(self, now_ns: int) -> None:
        """End connections that owe what others brought; note streams that say nothing for long."""
        for (channel, symbol, _), merge in self._merges.items():
            if not merge.is_owed:
                merge.waiting_since = None
            elif merge.waiting_since is not None and now_ns - merge.waiting_since > _OWED_FOR_NS:
                merge.waiting_since = None
                for link in self._links():
                    if link.conn in merge.laggards():
                        link.cut(f"it does not bring the {channel} of {symbol} that another brought")
        if not self._links():
            return  # not the streams' doing
        for (channel, symbol), last_ns in self.counts.last_frame.items():
            silent = now_ns - last_ns > _SILENT_NS and not self._upkeep.is_halted(symbol)
            if silent and (channel, symbol) not in self._silent:
                detail = {"seconds": (now_ns - last_ns) // 1_000_000_000}
                self.note(Event("silence", channel=channel, symbol=symbol, detail=detail))
                _log.warning("%s: no %s of %s for a minute", self.exchange, channel, symbol)
                self._silent.add((channel, symbol))
            elif not silent:
                self._silent.discard((channel, symbol))

    def _note_owed(self) -> None:
        """Put on record what was left to a connection that does not bring it any more."""
        for (channel, symbol, _), merge in self._merges.items():
            if merge.is_owed and channel in (DEPTH, TRADES):
                self.note_gap(None, channel, symbol, Note("gap", merge.head, None, {"cause": "disconnect"}))

    def _links(self) -> list[Link]:
        return [link for links in self._at.values() for link in links]


def _sync(handle: int) -> None:
    """Flush a capture to the disk, on a handle of our own: the segment may be closed meanwhile."""
    try:
        os.fdatasync(handle)
    finally:
        os.close(handle)


async def _in_thread(function: Callable[[], _Result]) -> _Result:
    """Run a blocking call in a daemon thread: a hanging disk must not hang the end of the process."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: object) -> None:
        if not future.done():
            setter(value)

    def work() -> None:
        try:
            outcome: tuple[Callable[[Any], None], object] = (future.set_result, function())
        except (OSError, DiskError) as error:
            outcome = (future.set_exception, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=work, daemon=True).start()
    return await future
