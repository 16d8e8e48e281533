"""One venue's counter: who is subscribed to what, what is withheld, who gets which frame."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from mmdata.sandbox.binance.rest import BinanceBooks, BinanceRest
from mmdata.sandbox.binance.session import BinanceSession
from mmdata.sandbox.okx.rest import OkxBooks, OkxRest
from mmdata.sandbox.okx.session import OkxSession
from mmdata.sandbox.truth import DroppedFrame, RestAnswer, SentFrame, TruthWriter
from mmdata.sandbox.wire import NS_PER_S, Style

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

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


class BinanceContent(Content, BinanceBooks, Protocol):
    """What Binance's counter needs."""


class OkxContent(Content, OkxBooks, Protocol):
    """What OKX's counter needs."""


class Connection:
    """One client: its session, and the way to its socket.

    ``push`` hands a text to the socket at once; ``is_open`` says whether the socket still takes it.
    """

    def __init__(
        self,
        venue: Venue,
        number: int,
        path: str,
        session: Session,
        push: Callable[[str], None],
        is_open: Callable[[], bool],
    ) -> None:
        self.venue = venue
        self.number = number
        self.path = path
        self.session = session
        self.sent = 0
        self._push = push
        self._is_open = is_open

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

    def __init__(self, content: Content, truth: TruthWriter | None, drops: DropPlan) -> None:
        self._content = content
        self._truth = truth
        self._drops = drops
        # Dicts, not sets: connections are served in the order in which they came.
        self._members: defaultdict[str, dict[Connection, None]] = defaultdict(dict)

    @abstractmethod
    def session(self, target: str, number: int) -> Session | None:
        """Return the session of a WebSocket address, None when the venue has no such path."""

    @abstractmethod
    def _answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer: ...

    @abstractmethod
    def _is_book(self, key: str) -> bool: ...

    def answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer:
        """Return the answer to a REST request."""
        answer = self._answer(target, headers, now_ns)
        if self._truth is not None:
            self._truth.write(RestAnswer(now_ns, self.venue, target, answer.status, answer.body))
        return answer

    def join(self, connection: Connection, key: str, now_ns: int) -> None:
        """Subscribe a connection, and send it what the venue owes a newcomer."""
        if self._is_book(key):
            self._drops.begin(key, now_ns)
        self._members[key][connection] = None
        for message in self._content.greet(key, now_ns):
            connection.send(message.render(connection.session.style), now_ns, self._truth)

    def leave(self, connection: Connection, key: str) -> None:
        """Take one subscription back; none that is not there."""
        self._members[key].pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """Take all subscriptions of a connection back."""
        for members in self._members.values():
            members.pop(connection, None)

    def publish_due(self, now_ns: int) -> int:
        """Send what is due to those who subscribed; return how many messages there were."""
        count = 0
        for message in self._content.due(now_ns):
            self._publish(message, now_ns)
            count += 1
        return count

    def _publish(self, message: Message, now_ns: int) -> None:
        key = message.key
        if not self._drops.done and self._withheld(message, now_ns):
            return
        rendered: dict[Style, str] = {}
        for connection in self._members.get(key, ()):
            style = connection.session.style
            if style not in rendered:
                rendered[style] = message.render(style)
            connection.send(rendered[style], now_ns, self._truth)

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

    def __init__(self, content: BinanceContent, truth: TruthWriter | None, drops: DropPlan) -> None:
        super().__init__(content, truth, drops)
        self._rest = BinanceRest(content)

    def session(self, target: str, number: int) -> Session | None:
        """Return the session of an address, None when Binance has no such path."""
        return BinanceSession.at(target)

    def _answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer:
        return self._rest.answer(target, headers, now_ns)

    def _is_book(self, key: str) -> bool:
        return _DIFF_DEPTH.fullmatch(key) is not None


class OkxDesk(Desk):
    """OKX's counter."""

    venue: Venue = "okx"

    def __init__(self, content: OkxContent, truth: TruthWriter | None, drops: DropPlan) -> None:
        super().__init__(content, truth, drops)
        self._rest = OkxRest(content)

    def session(self, target: str, number: int) -> Session | None:
        """Return the session of an address, None when OKX has no such path."""
        return OkxSession.at(target, self._content.offered, number)

    def _answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer:
        return self._rest.answer(target, now_ns)

    def _is_book(self, key: str) -> bool:
        return key.startswith("books:")
