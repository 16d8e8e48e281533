"""One venue's counter: who is subscribed to what, what is withheld, who gets which frame."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import parse_qs, urlsplit

from mmdata.sandbox.binance import rest as binance_rest
from mmdata.sandbox.binance.rest import BinanceBooks, BinanceRest
from mmdata.sandbox.binance.session import BinanceSession
from mmdata.sandbox.faults.deeds import (
    Announce,
    Cut,
    Deed,
    Deliver,
    Hangup,
    Notify,
    Refusal,
    ResetIds,
    RestVerdict,
    StepClock,
)
from mmdata.sandbox.faults.memory import BookMemory, cut
from mmdata.sandbox.okx import rest as okx_rest
from mmdata.sandbox.okx.rest import OkxBooks, OkxRest
from mmdata.sandbox.okx.session import OkxSession
from mmdata.sandbox.truth import DroppedFrame, RestAnswer, SentFrame, TruthWriter
from mmdata.sandbox.wire import NS_PER_S, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from mmdata.sandbox.faults import FaultPlan
    from mmdata.sandbox.instruments import Venue
    from mmdata.sandbox.wire import Answer, Message, Session


class Content(Protocol):
    """Where a venue's messages come from: live markets, or a capture."""

    @property
    def offered(self) -> Container[str]:
        """The subscriptions that there are."""

    def greet(self, key: str, now_ns: int) -> Iterable[Message]:
        """Return what a connection gets that has just subscribed."""

    def due(self, now_ns: int) -> Iterator[Message]:
        """Yield the messages whose time has come."""

    def step_clock(self, by_ns: int) -> None:
        """Let the venue's clock jump."""

    def reset_ids(self, symbol: str | None, by: int) -> None:
        """Let the ids of a symbol (None: of all) go down."""


class BinanceContent(Content, BinanceBooks, Protocol):
    """What Binance's counter needs."""


class OkxContent(Content, OkxBooks, Protocol):
    """What OKX's counter needs."""


class Connection:
    """One client: its session, and the way to its socket.

    ``push`` hands a text to the socket at once; ``is_open`` says whether the socket still takes it;
    ``close`` and ``abort`` end it, with a close frame and without.
    """

    def __init__(
        self,
        venue: Venue,
        number: int,
        path: str,
        session: Session,
        push: Callable[[str], None],
        is_open: Callable[[], bool],
        close: Callable[[int, str], None] = lambda code, reason: None,
        abort: Callable[[], None] = lambda: None,
    ) -> None:
        self.venue = venue
        self.number = number
        self.path = path
        self.session = session
        self.sent = 0
        self._push = push
        self._is_open = is_open
        self.close = close
        self.abort = abort

    def send(self, text: str, now_ns: int, truth: TruthWriter | None) -> None:
        """Tell the truth, then hand the frame to the socket; nothing once it is closing."""
        if not self._is_open():
            return
        if truth is not None:
            truth.write(SentFrame(now_ns, self.venue, self.number, self.path, text))
        self.sent += 1
        self._push(text)


class DropPlan:
    """Which book messages are withheld from everybody, and when.

    The clock starts at the venue's first book subscription; at each time (seconds since) the next
    message of exactly that subscription that chains is taken.
    """

    def __init__(self, times_s: Iterable[float]) -> None:
        self._times_ns = sorted(int(time * NS_PER_S) for time in times_s)
        self._key = ""
        self._began_ns = 0

    def begin(self, key: str, now_ns: int) -> None:
        """Start the clock, unless it runs."""
        if not self._key:
            self._key, self._began_ns = key, now_ns

    def takes(self, key: str, now_ns: int) -> bool:
        """Return whether this message is due to be withheld; each time takes one."""
        if key != self._key or not self._times_ns:
            return False
        if now_ns - self._began_ns < self._times_ns[0]:
            return False
        del self._times_ns[0]
        return True

    @property
    def done(self) -> bool:
        """Whether nothing is left to withhold."""
        return not self._times_ns


class Desk(ABC):
    """Publishes a venue's messages to its connections."""

    venue: Venue

    book_path: ClassVar[str]
    """The REST path that answers a book."""

    def __init__(
        self,
        content: Content,
        truth: TruthWriter | None,
        drops: DropPlan,
        plan: FaultPlan | None = None,
    ) -> None:
        self._content = content
        self._truth = truth
        self._drops = drops
        self._plan = plan
        self._memory = BookMemory(plan.oldest_book_ns) if plan and plan.oldest_book_ns else None
        self._clock_ns = 0
        self._connections: dict[int, Connection] = {}
        # Dicts, not sets: connections are served in the order in which they came.
        self._members: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    @abstractmethod
    def session(self, target: str, number: int) -> Session | None:
        """Return the session of a WebSocket address, None when the venue has no such path."""

    @abstractmethod
    def _answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer: ...

    @abstractmethod
    def _is_book(self, key: str) -> bool: ...

    @abstractmethod
    def _failure(self, status: int, retry_after_s: int | None, now_ns: int) -> Answer: ...

    @abstractmethod
    def _whole_books(self, now_ns: int) -> Iterable[tuple[str, str]]:
        """Yield symbol and REST body of each whole book as it is now."""

    @abstractmethod
    def _announcement(self, connection: Connection, deed: Announce | Notify, now_ns: int) -> str:
        """Return the text by which the venue says that it will close a connection."""

    def handshake(self, now_ns: int) -> Refusal | None:
        """Return how a fault refuses a new connection, None when it may come."""
        if self._plan is None:
            return None
        refusal = self._plan.handshake(now_ns)
        self._tell_faults()
        return refusal

    def open(self, connection: Connection, now_ns: int) -> None:
        """Take notice of a new connection."""
        self._connections[connection.number] = connection
        if self._plan is not None:
            self._plan.opened(connection.number, now_ns)

    def hears(self, connection: Connection, text: str, now_ns: int) -> bool:
        """Return whether the venue takes notice of what a client sent; only a fault keeps it from that."""
        if self._plan is None:
            return True
        heard = self._plan.hears(connection.number, text, now_ns)
        self._tell_faults()
        return heard

    def pings(self, connection: Connection, now_ns: int) -> bool:
        """Return whether a ping frame may leave now; only a fault keeps it from that."""
        return self._plan is None or self._plan.pings(connection.number, now_ns)

    def verdict(self, target: str, now_ns: int) -> RestVerdict:
        """Return what the faults do to a REST request that has just come."""
        if self._plan is None:
            return RestVerdict()
        path, query = _parts(target)
        verdict = self._plan.request(path, _symbol(query), path == self.book_path, now_ns)
        self._tell_faults()
        return verdict

    def answer(
        self, target: str, headers: Mapping[str, str], now_ns: int, verdict: RestVerdict | None = None
    ) -> Answer:
        """Return the answer to a REST request, or what the faults' verdict makes of it."""
        told_ns = now_ns + self._clock_ns
        if verdict is not None and verdict.status:
            after_ns = verdict.retry_after_ns
            after_s = None if after_ns is None else -(-after_ns // NS_PER_S)
            answer = self._failure(verdict.status, after_s, told_ns)
        else:
            answer = self._answer(target, headers, told_ns)
            if verdict is not None and verdict.older_ns and answer.status == 200:
                answer = self._older(answer, target, now_ns - verdict.older_ns)
        if self._truth is not None:
            self._truth.write(RestAnswer(now_ns, self.venue, target, answer.status, answer.body))
        return answer

    def _older(self, answer: Answer, target: str, time_ns: int) -> Answer:
        """Return the book as it was then, with as many levels as were asked for."""
        assert self._memory is not None, "a plan with stale answers says how old a book must be kept"
        _, query = _parts(target)
        body = self._memory.before(_symbol(query), time_ns)
        if body is None:
            return answer
        limit = query.get("limit", query.get("sz", ""))
        return answer._replace(body=cut(body, int(limit)) if limit else body)

    def join(self, connection: Connection, key: str, now_ns: int) -> None:
        """Subscribe a connection, and send it what the venue owes a newcomer."""
        if self._is_book(key):
            self._drops.begin(key, now_ns)
        self._members[key][connection] = None
        for message in self._content.greet(key, now_ns):
            self._send(connection, key, message.render(connection.session.style), now_ns)

    def reply(self, connection: Connection, text: str, now_ns: int) -> None:
        """Send what is no message of a subscription: acks, errors, pongs."""
        if self._plan is None:
            connection.send(text, now_ns, self._truth)
        else:
            self._carry_out(self._plan.reply(connection.number, text, now_ns), now_ns)

    def leave(self, connection: Connection, key: str) -> None:
        """Take one subscription back; none that is not there."""
        self._members[key].pop(connection, None)

    def forget(self, connection: Connection, now_ns: int = 0) -> None:
        """Take all subscriptions of a connection back: it is gone."""
        for members in self._members.values():
            members.pop(connection, None)
        self._connections.pop(connection.number, None)
        if self._plan is not None:
            self._plan.closed(connection.number, now_ns)
            self._tell_faults()

    def publish_due(self, now_ns: int) -> int:
        """Send what is due to those who subscribed; return how many messages there were."""
        count = 0
        if self._plan is not None:
            self._carry_out(self._plan.due(now_ns), now_ns)
        for message in self._content.due(now_ns):
            self._publish(message, now_ns)
            count += 1
        if self._memory is not None and self._memory.due(now_ns):
            for symbol, body in self._whole_books(now_ns):
                self._memory.keep(symbol, body, now_ns)
        return count

    def _publish(self, message: Message, now_ns: int) -> None:
        key = message.key
        if not self._drops.done and self._withheld(message, now_ns):
            return
        members = self._members.get(key)
        if not members:
            return
        if self._plan is not None:
            self._plan.publishing(key, now_ns)
        rendered: dict[Style, str] = {}
        for connection in members:
            style = connection.session.style
            if style not in rendered:
                rendered[style] = message.render(style)
            self._send(connection, key, rendered[style], now_ns)
        if self._plan is not None:
            self._carry_out(self._plan.published(key, now_ns), now_ns)

    def _send(self, connection: Connection, key: str, text: str, now_ns: int) -> None:
        if self._plan is None:
            connection.send(text, now_ns, self._truth)
        else:
            self._carry_out(self._plan.frame(connection.number, key, text, now_ns), now_ns)

    def _carry_out(self, deeds: Iterable[Deed], now_ns: int) -> None:
        """Do what the faults decided, told first: the truth is on disk before the wire has it."""
        self._tell_faults()
        for deed in deeds:
            match deed:
                case Deliver(conn, text):
                    self._connections[conn].send(text, now_ns, self._truth)
                case Hangup(conn, code, reason):
                    self._connections[conn].close(code, reason)
                case Cut(conn):
                    self._connections[conn].abort()
                case Announce(conn) | Notify(conn):
                    connection = self._connections[conn]
                    notice = self._announcement(connection, deed, now_ns + self._clock_ns)
                    self.reply(connection, notice, now_ns)
                case StepClock(by_ns):
                    self._clock_ns += by_ns
                    self._content.step_clock(by_ns)
                case ResetIds(symbol, by):
                    self._content.reset_ids(symbol, by)

    def _tell_faults(self) -> None:
        if self._plan is None:
            return
        records = self._plan.take_records()
        if records and self._truth is not None:
            self._truth.write(*records)

    def _withheld(self, message: Message, now_ns: int) -> bool:
        ids = message.book_ids
        # What nobody would have got is not withheld from anybody.
        if ids is None or not self._members.get(message.key):
            return False
        if not self._drops.takes(message.key, now_ns):
            return False
        if self._truth is not None:
            frame = message.render(Style())
            self._truth.write(DroppedFrame(now_ns, self.venue, message.key, *ids, frame))
        return True


_DIFF_DEPTH = re.compile(r"[^@]+@depth(@100ms|@1000ms)?")


class BinanceDesk(Desk):
    """Binance spot's counter."""

    venue: Venue = "binance"
    book_path = "/api/v3/depth"

    def __init__(
        self,
        content: BinanceContent,
        truth: TruthWriter | None,
        drops: DropPlan,
        plan: FaultPlan | None = None,
    ) -> None:
        super().__init__(content, truth, drops, plan)
        self._books = content
        self._rest = BinanceRest(content)

    def session(self, target: str, number: int) -> Session | None:
        """Return the session of an address, None when Binance has no such path."""
        return BinanceSession.at(target)

    def _answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer:
        return self._rest.answer(target, headers, now_ns)

    def _is_book(self, key: str) -> bool:
        return _DIFF_DEPTH.fullmatch(key) is not None

    def _failure(self, status: int, retry_after_s: int | None, now_ns: int) -> Answer:
        return binance_rest.failure(status, retry_after_s, now_ns)

    def _whole_books(self, now_ns: int) -> Iterable[tuple[str, str]]:
        for symbol in self._books.symbol_rows():
            if (body := self._books.depth(symbol, binance_rest.MAX_DEPTH)) is not None:
                yield symbol, body

    def _announcement(self, connection: Connection, deed: Announce | Notify, now_ns: int) -> str:
        assert isinstance(connection.session, BinanceSession)
        assert isinstance(deed, Announce)
        return connection.session.shutdown(deed.shape, now_ns)


class OkxDesk(Desk):
    """OKX's counter."""

    venue: Venue = "okx"
    book_path = "/api/v5/market/books"

    def __init__(
        self,
        content: OkxContent,
        truth: TruthWriter | None,
        drops: DropPlan,
        plan: FaultPlan | None = None,
    ) -> None:
        super().__init__(content, truth, drops, plan)
        self._books = content
        self._rest = OkxRest(content)

    def session(self, target: str, number: int) -> Session | None:
        """Return the session of an address, None when OKX has no such path."""
        return OkxSession.at(target, self._content.offered, number)

    def _answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer:
        return self._rest.answer(target, now_ns)

    def _is_book(self, key: str) -> bool:
        return key.startswith("books:")

    def _failure(self, status: int, retry_after_s: int | None, now_ns: int) -> Answer:
        return okx_rest.failure(status, retry_after_s)

    def _whole_books(self, now_ns: int) -> Iterable[tuple[str, str]]:
        for inst_id in self._books.instrument_rows():
            if (data := self._books.depth_data(inst_id, okx_rest.MAX_DEPTH, now_ns)) is not None:
                yield inst_id, okx_rest.envelope(data)

    def _announcement(self, connection: Connection, deed: Announce | Notify, now_ns: int) -> str:
        assert isinstance(connection.session, OkxSession)
        return connection.session.upgrade_notice()


def _symbol(query: Mapping[str, str]) -> str:
    return query.get("symbol", query.get("instId", ""))


def _parts(target: str) -> tuple[str, dict[str, str]]:
    """Return path and query of a request."""
    parts = urlsplit(target)
    return parts.path, {name: values[-1] for name, values in parse_qs(parts.query).items()}
