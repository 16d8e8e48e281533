"""The books of a session: whose chain is whole, and fresh ones for those that are not.

`BookSync` decides, this carries out: over REST where books are spliced into the stream, by a new
subscription elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Collection, Coroutine, Sequence
from typing import Protocol

from mmdata.datasets.booksync import Action, Ask, BookSync, Note
from mmdata.datasets.chain import ChainRule
from mmdata.recorder.ask import Asker
from mmdata.recorder.backoff import backoff
from mmdata.recorder.capture import Event
from mmdata.recorder.counts import Counts
from mmdata.recorder.leg import Link
from mmdata.recorder.venues import DECODERS
from mmdata.recorder.venues.stream import DEPTH, Seen, Stream

_log = logging.getLogger(__name__)

_REST_INTERVAL_S = 1.0  # between snapshots of one symbol
_RESUBSCRIBE_INTERVAL_S = 5.0  # OKX: 480 requests an hour and connection
_ANSWER_WITHIN_S = 10.0  # OKX: a subscription is acknowledged, and its snapshot sent, well before


class Journal(Protocol):
    """Where what is noticed goes."""

    counts: Counts

    def note(self, event: Event) -> None:
        """Write an event."""

    def note_gap(self, conn: int | None, channel: str, symbol: str, gap: Note) -> None:
        """Write a hole, count it, and say it in the log."""

    def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None] | None:
        """Do ``work`` beside the recording; None: it ends just now, and nothing is begun any more."""


class Books:
    """The books of the symbols of one stream, over all the connections that bring it."""

    def __init__(self, stream: Stream, journal: Journal, asker: Asker, draw: random.Random) -> None:
        self._stream = stream
        self._chain: ChainRule = stream.chain
        self._journal = journal
        self._asker = asker
        self._draw = draw
        # Without a book channel there is nothing to keep in sync, and no snapshot to ask for.
        self._books = {symbol: BookSync(stream.chain) for symbol in stream.symbols if stream.has_books}
        self._whole = {symbol: asyncio.Event() for symbol in self._books}
        self._links: list[Link] = []
        self._asked_at: dict[str, float] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[None]] = {}
        journal.counts.synced |= dict.fromkeys(self._books, False)

    def joined(self, link: Link) -> None:
        """Say that a connection brings the stream."""
        self._links.append(link)
        for symbol, book in self._books.items():
            if len(self._links) == 1:
                self._act(symbol, book.connected())
            if not self._chain.spliced:
                self._start(symbol, "stream", self._expect_book(symbol))
                if link.conn == 0:
                    self._start(symbol, "audit", self._fetch_book(symbol, "audit"))

    def left(self, link: Link, *, lost: bool, brought: Collection[str]) -> None:
        """Say that a connection has ended; the books end with the last one, if it was ``lost``.

        A book whose symbol is not ``brought`` by a connection that is still there ends, too, where a snapshot
        in the stream would replace it: that does not tell what came before.
        """
        self._links.remove(link)
        for symbol, book in self._books.items():
            if not self._links:
                if lost:
                    self._act(symbol, book.disconnected(), link.conn)
            elif not self._chain.spliced and symbol not in brought:
                self._act(symbol, book.disconnected(), link.conn)
                self._start(symbol, "stream", self._expect_book(symbol))

    def receive(self, conn: int, seen: Seen) -> None:
        """Take the ids of a message that enters the tables."""
        book = self._books.get(seen.symbol)
        if book is None:
            return
        actions = book.receive(seen.first_id, seen.last_id, seen.prev_id, is_snapshot=seen.is_snapshot)
        if actions:
            self._act(seen.symbol, actions, conn)

    async def audit(self, symbol: str) -> None:
        """Keep a fresh book to compare the stream's with, unless that waits for one to be whole itself.

        Seen where a venue had refused requests for a while: the audit took the turn of the snapshot.
        """
        if symbol in self._books and self._books[symbol].synced:
            await self._fetch_book(symbol, "audit")

    def _act(self, symbol: str, actions: Sequence[Action], conn: int | None = None) -> None:
        for action in actions:
            if isinstance(action, Ask):
                self._ask(symbol, action)
            elif action.kind == "gap":
                self._journal.note_gap(self._conn if conn is None else conn, DEPTH, symbol, action)
            else:
                detail = dict(action.detail)
                event = Event(action.kind, conn=conn, channel=DEPTH, symbol=symbol, detail=detail)
                event.last_id, event.next_id = action.last_id, action.next_id
                self._journal.note(event)
        whole = self._books[symbol].synced
        self._journal.counts.synced[symbol] = whole
        if whole:
            self._whole[symbol].set()
        else:
            self._whole[symbol].clear()

    @property
    def _conn(self) -> int | None:
        return self._links[0].conn if self._links else None

    def _ask(self, symbol: str, ask: Ask) -> None:
        """Get a fresh book, as the venue gives it."""
        if self._chain.spliced:
            self._start(symbol, "rest", self._fetch_book(symbol, ask.reason))
        else:
            self._start(symbol, "stream", self._resubscribe(symbol))

    def _start(self, symbol: str, how: str, work: Coroutine[None, None, None]) -> None:
        """Begin to get a book in one way, unless that is under way."""
        task = self._asking.get((symbol, how))
        if task is not None and not task.done():
            work.close()
            return
        begun = self._journal.spawn(work)
        if begun is not None:
            self._asking[symbol, how] = begun

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
        decode = DECODERS[self._stream.exchange].decode_snapshot
        snapshot, _, _ = await self._asker.ask(
            self._stream.snapshot_request(symbol),
            lambda body: decode(body, symbol),
            symbol=symbol,
            reason=reason,
        )
        detail = {"reason": reason}
        self._journal.note(
            Event("snapshot", channel=DEPTH, symbol=symbol, last_id=snapshot.last_id, detail=detail)
        )
        if reason != "audit" and snapshot.last_id is not None:
            actions = self._books[symbol].receive_snapshot(snapshot.last_id)
            self._asking.pop((symbol, "rest"), None)  # this one is answered: the book may need another
            self._act(symbol, actions)

    async def _resubscribe(self, symbol: str) -> None:
        """Subscribe to a book anew until its snapshot comes: a refusal or a lost request is tried again."""
        waits = backoff(self._draw, first_s=_RESUBSCRIBE_INTERVAL_S)
        interval_s = _RESUBSCRIBE_INTERVAL_S
        while not self._whole[symbol].is_set():
            await self._pace(symbol, interval_s)
            if self._links:
                self._note_resync(symbol, "resubscribe")
                link = self._links[0]
                for message in self._stream.resubscribe(symbol):
                    await link.send(message)
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
        self._journal.counts.resyncs += 1
        detail = {"by": how}
        self._journal.note(Event("resync", conn=self._conn, channel=DEPTH, symbol=symbol, detail=detail))
