"""The fault plan of one venue: messages and times in, decisions out; no clock, no socket.

A server asks it before anything leaves: ``handshake``, ``request``, ``publishing`` once a message and
``frame`` once for each of its readers, ``reply`` for everything else that it sends; ``due`` as time goes
on. What it does is told by ``take_records()``.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import TYPE_CHECKING, TypeVar

from mmdata.sandbox.faults import edits, kinds
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
from mmdata.sandbox.faults.holds import BookHold, Held, Holds
from mmdata.sandbox.faults.record import FaultRecord, frame_ids
from mmdata.sandbox.faults.trigger import VENUE, Armed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmdata.sandbox.faults.kinds import VenueName
    from mmdata.sandbox.faults.script import FaultScript

_FOREVER_NS = 2**63 - 1


_Kind = TypeVar("_Kind", bound=kinds.Fault)


class FaultPlan:
    """The faults of a script at one venue; ``seed`` holds where the script has none.

    Connections are known by their numbers, from 1. All times are ns of one clock that never steps back.
    """

    def __init__(self, script: FaultScript, venue: VenueName, seed: int = 0) -> None:
        self.venue = venue
        self._seed = f"{seed if script.seed is None else script.seed}/{venue}"
        faults = [
            (at, fault)
            for at, fault in enumerate(script.faults)
            if fault.venue in (None, venue) and venue in fault.venues()
        ]
        self._frames = self._arm(faults, kinds.OnFrame)
        own = self._arm(faults, kinds.OnConnection)
        self._sockets = [armed for armed in own if not isinstance(armed.fault, kinds.OnFrame)]
        self._clocks = self._arm(faults, kinds.ClockStep)
        self._resets = self._arm(faults, kinds.IdReset)
        self._refusals = self._arm(faults, kinds.Refuse)
        self._rest = self._arm(faults, kinds.OnRest)
        self._connections: dict[int, Holds] = {}
        self._began_ns: int | None = None
        self._shared: list[tuple[Armed[kinds.OnFrame], str]] = []
        self._later: list[tuple[int, Deed]] = []
        self._books: dict[str, BookHold] = {}
        self._records: list[FaultRecord] = []

    def _arm(self, faults: Iterable[tuple[int, kinds.Fault]], cls: type[_Kind]) -> list[Armed[_Kind]]:
        return [Armed(fault, at, self._seed) for at, fault in faults if isinstance(fault, cls)]

    @property
    def needs_live_market(self) -> bool:
        """Whether a fault changes what a recording holds: a clock or ids."""
        return bool(self._clocks or self._resets)

    @property
    def oldest_book_ns(self) -> int:
        """How old a book must be kept for stale answers; 0 when none is wanted."""
        stale = (a.fault.by for a in self._rest if isinstance(a.fault, kinds.RestStale))
        return max(stale, default=0)

    @property
    def slowest_answer_ns(self) -> int:
        """How long an answer may take."""
        slow = (a.fault.by for a in self._rest if isinstance(a.fault, kinds.RestSlow | kinds.RestAhead))
        return sum(slow)

    @property
    def largest_frame(self) -> int:
        """The bytes of the largest frame that is made on purpose; 0 when there is none."""
        sizes = (a.fault.size for a in self._frames if isinstance(a.fault, kinds.Oversize))
        return max(sizes, default=0)

    def take_records(self) -> list[FaultRecord]:
        """Return what was done since the last call."""
        records, self._records = self._records, []
        return records

    # ------------------------------------------------------------------------------ coming and going

    def handshake(self, now_ns: int) -> Refusal | None:
        """Return how a handshake is refused, None when it may go on."""
        since_ns = self._since(now_ns)
        for armed in self._refusals:
            if armed.hits(VENUE, now_ns, since_ns) is not None:
                status = 0 if armed.fault.how == "reset" else armed.fault.status
                self._tell(armed, now_ns, note=f"handshake refused: {status or 'reset'}")
                return Refusal(status)
        return None

    def opened(self, conn: int, now_ns: int) -> None:
        """Take notice of a new connection."""
        self._since(now_ns)
        self._connections[conn] = Holds()

    def closed(self, conn: int, now_ns: int) -> None:
        """Forget a connection; frames that it still waited for are told as unsent. Twice is once."""
        connection = self._connections.pop(conn, None)
        if connection is None:
            return
        for held in connection.held():
            self._tell(held.by, now_ns, conn, held.key, held.text, "the connection was gone", "unsent")
        for armed in (*self._frames, *self._sockets):
            armed.forget(conn)
        self._later = [(due_ns, deed) for due_ns, deed in self._later if getattr(deed, "conn", 0) != conn]

    # --------------------------------------------------------------------------------------- frames

    def publishing(self, key: str, now_ns: int) -> None:
        """Take notice of a message before its readers get it: what is for all is decided here."""
        since_ns = self._since(now_ns)
        self._shared = [
            (armed, seed)
            for armed in self._frames
            if armed.fault.all and armed.fault.concerns(key)
            if (seed := armed.hits(VENUE, now_ns, since_ns)) is not None
        ]

    def frame(self, conn: int, key: str, text: str, now_ns: int) -> list[Deed]:
        """Return what happens instead of sending this frame of a subscription; often just that."""
        connection = self._connections.get(conn)
        if connection is None:
            return []
        since_ns = self._since(now_ns)
        waiting = connection.swapped.get(key)
        texts = [text]
        for armed, seed in self._shared:
            texts = self._spoil(armed, seed, conn, key, texts, now_ns)
        for armed in self._frames:
            if armed.fault.all or not armed.fault.concerns(key):
                continue
            own = armed.hits(conn, now_ns, since_ns)
            if own is not None:
                texts = self._spoil(armed, own, conn, key, texts, now_ns)
        if waiting is not None and texts:
            del connection.swapped[key]
            texts = [*texts, waiting.text]
        deeds = [deed for each in texts for deed in self._pass(connection, conn, key, each, now_ns)]
        for socket in self._sockets:
            if not socket.fault.all and socket.fault.concerns(key) and socket.counted(conn):
                deeds += self._strike(socket, conn, now_ns)
        return deeds

    def published(self, key: str, now_ns: int) -> list[Deed]:
        """Return what a message leads to beyond itself, when all its readers have been served."""
        self._shared = []
        deeds: list[Deed] = []
        for socket in self._sockets:
            if socket.fault.all and socket.fault.concerns(key) and socket.counted(VENUE):
                deeds += self._strike_all(socket, now_ns)
        for clock in self._clocks:
            if clock.counted(VENUE):
                deeds.append(self._step(clock, now_ns))
        for reset in self._resets:
            if reset.fault.symbol in (None, kinds.names(key)[0]) and reset.counted(VENUE):
                deeds.append(self._reset(reset, now_ns))
        return deeds

    def reply(self, conn: int, text: str, now_ns: int) -> list[Deed]:
        """Return what happens instead of sending an answer, which no fault alters but a stall holds."""
        connection = self._connections.get(conn)
        return [] if connection is None else self._pass(connection, conn, "", text, now_ns)

    def hears(self, conn: int, text: str, now_ns: int) -> bool:
        """Return whether the venue takes notice of what a client sent."""
        connection = self._connections.get(conn)
        if connection is None or connection.deaf is None or text != "ping":
            return True
        until_ns, armed = connection.deaf
        if now_ns >= until_ns:
            connection.deaf = None
            return True
        self._tell(armed, now_ns, conn, note="a ping was not answered")
        return False

    def pings(self, conn: int, now_ns: int) -> bool:
        """Return whether a WebSocket ping may leave now."""
        connection = self._connections.get(conn)
        return connection is None or now_ns >= max(connection.until_ns, connection.no_pings_until_ns)

    # ----------------------------------------------------------------------------------------- time

    def due(self, now_ns: int) -> list[Deed]:
        """Return what time has brought: strikes by time, and frames that have waited long enough."""
        since_ns = self._since(now_ns, begins=False)
        deeds: list[Deed] = []
        for socket in self._sockets:
            if socket.fault.all:
                if socket.victim(since_ns, [VENUE] if self._connections else []) is not None:
                    deeds += self._strike_all(socket, now_ns)
                continue
            among = self._connections if socket.fault.unfiltered else None
            victim = socket.victim(since_ns, among)
            if victim is not None:
                deeds += self._strike(socket, victim, now_ns)
        for clock in self._clocks:
            if clock.victim(since_ns, [VENUE]) is not None:
                deeds.append(self._step(clock, now_ns))
        for reset in self._resets:
            if reset.victim(since_ns, [VENUE]) is not None:
                deeds.append(self._reset(reset, now_ns))
        for conn, connection in self._connections.items():
            deeds += connection.released(conn, now_ns)
        self._books = {symbol: hold for symbol, hold in self._books.items() if now_ns < hold.due_ns}
        deeds += [deed for due_ns, deed in self._later if due_ns <= now_ns]
        self._later = [(due_ns, deed) for due_ns, deed in self._later if due_ns > now_ns]
        return deeds

    # ----------------------------------------------------------------------------------------- REST

    def request(self, path: str, symbol: str, book: bool, now_ns: int) -> RestVerdict:
        """Return what is done to a request for ``path``; ``book`` says whether it asks for a book."""
        since_ns = self._since(now_ns)
        verdict = RestVerdict()
        for armed in self._rest:
            fault = armed.fault
            if fault.path not in (None, path) or fault.symbol not in (None, symbol):
                continue
            if isinstance(fault, kinds.RestStale | kinds.RestAhead) and not book:
                continue
            if armed.hits(VENUE, now_ns, since_ns) is None:
                continue
            match fault:
                case kinds.RestError(status=status, retry_after=after):
                    verdict = verdict._replace(status=status, retry_after_ns=after)
                    did = f"answered {status}"
                case kinds.RestSlow(by=by):
                    verdict = verdict._replace(delay_ns=verdict.delay_ns + by)
                    did = f"answered {_s(by)} later"
                case kinds.RestStale(by=by):
                    verdict = verdict._replace(older_ns=by)
                    did = f"answered with a book {_s(by)} old"
                case kinds.RestAhead(by=by):
                    self._books[symbol] = BookHold(now_ns + by, armed)
                    verdict = verdict._replace(made_after_ns=by // 2)
                    did = f"the book's diffs held back for {_s(by)}, answered when half of it has passed"
                case _:
                    raise AssertionError(f"{fault.kind} is no fault of REST")
            self._tell(armed, now_ns, note=f"{path} {symbol}: {did}")
        return verdict

    # ------------------------------------------------------------------------------------ what is done

    def _since(self, now_ns: int, *, begins: bool = True) -> int:
        """Return the time since the venue was first spoken to; before that, less than nothing."""
        if self._began_ns is None:
            if not begins:
                return -1
            self._began_ns = now_ns
        return now_ns - self._began_ns

    def _spoil(
        self,
        armed: Armed[kinds.OnFrame],
        seed: str,
        conn: int,
        key: str,
        texts: list[str],
        now_ns: int,
    ) -> list[str]:
        """Return what becomes of the texts of one frame (two when it was doubled, none when it is gone)."""
        if not texts:
            return texts
        connection, fault = self._connections[conn], armed.fault
        first = texts[0]
        match fault:
            case kinds.Drop():
                spoilt, note = [], "never sent"
            case kinds.Duplicate():
                spoilt, note = [*texts, first], "sent twice"
            case kinds.Reorder():
                if key in connection.swapped:  # two that wait for each other would wait for ever
                    return texts
                connection.swapped[key] = Held(_FOREVER_NS, key, first, armed)
                spoilt, note = texts[1:], "sent after the next frame of its stream"
            case kinds.Delay(by=by, keep_order=True):
                self._block(connection, now_ns + by, armed, loses=False)
                spoilt, note = texts, f"held for {_s(by)}, and all behind it"
            case kinds.Delay(by=by):
                connection.loose += [Held(now_ns + by, key, text, armed) for text in texts]
                spoilt, note = [], f"held for {_s(by)}, others overtake it"
            case _:
                spoilt, note = [_altered(fault, seed, text) for text in texts], "altered"
        self._tell(armed, now_ns, conn, key, first, note)
        return spoilt

    def _pass(self, connection: Holds, conn: int, key: str, text: str, now_ns: int) -> list[Deed]:
        """Let a text through, or let it wait where it has to."""
        if (now_ns < connection.until_ns or connection.line) and connection.holder is not None:
            if connection.loses:
                self._tell(connection.holder, now_ns, conn, key, text, "lost in the stall")
            else:
                connection.line.append(Held(connection.until_ns, key, text, connection.holder))
            return []
        hold = self._books.get(kinds.names(key)[0]) if self._books and kinds.is_book(key) else None
        waiting = connection.books.get(key)
        if hold is not None and now_ns < hold.due_ns:
            connection.books.setdefault(key, deque()).append(Held(hold.due_ns, key, text, hold.by))
            return []
        if waiting:
            waiting.append(waiting[-1]._replace(text=text))
            return []
        return [Deliver(conn, text)]

    def _strike(self, armed: Armed[kinds.OnConnection], conn: int, now_ns: int) -> list[Deed]:
        connection = self._connections[conn]
        deeds: list[Deed] = []
        match armed.fault:
            case kinds.Stall(for_=time, lose=lose):
                self._block(connection, now_ns + time, armed, loses=lose)
                note = f"nothing is sent for {_s(time)}; what comes meanwhile is {'lost' if lose else 'held'}"
            case kinds.Close(code=code, reason=reason):
                deeds, note = [Hangup(conn, code, reason)], f"closed with {code}"
            case kinds.Abort():
                deeds, note = [Cut(conn)], "cut off"
            case kinds.ServerShutdown(shape=shape, close_after=after):
                deeds, note = [Announce(conn, shape)], f"serverShutdown announced, {shape}"
                note += self._hang_up_later(conn, after, now_ns)
            case kinds.Notice(close_after=after):
                deeds, note = [Notify(conn)], "64008 announced"
                note += self._hang_up_later(conn, after, now_ns)
            case kinds.IgnorePing(for_=time):
                connection.deaf = (_until(now_ns, time), armed)
                note = "pings are not answered from now on"
            case kinds.StopPings(for_=time):
                connection.no_pings_until_ns = _until(now_ns, time)
                note = "no ping is sent from now on"
            case fault:
                raise AssertionError(f"{fault.kind} is no fault of connections")
        self._tell(armed, now_ns, conn, note=note)
        return deeds

    def _strike_all(self, armed: Armed[kinds.OnConnection], now_ns: int) -> list[Deed]:
        return [deed for conn in self._connections for deed in self._strike(armed, conn, now_ns)]

    def _hang_up_later(self, conn: int, after_ns: int | None, now_ns: int) -> str:
        if after_ns is None:
            return ""
        self._later.append((now_ns + after_ns, Hangup(conn, 1001, "going away")))
        return f"; closed {_s(after_ns)} later"

    def _block(self, connection: Holds, until_ns: int, armed: Armed[kinds.Fault], *, loses: bool) -> None:
        connection.until_ns = max(connection.until_ns, until_ns)
        connection.holder, connection.loses = armed, loses

    def _step(self, armed: Armed[kinds.ClockStep], now_ns: int) -> Deed:
        self._tell(armed, now_ns, note=f"the clock jumps by {_s(armed.fault.by)}")
        return StepClock(armed.fault.by)

    def _reset(self, armed: Armed[kinds.IdReset], now_ns: int) -> Deed:
        symbol, by = armed.fault.symbol, armed.fault.by
        self._tell(armed, now_ns, note=f"ids of {symbol or 'all symbols'} go down by {by}")
        return ResetIds(symbol, by)

    def _tell(
        self,
        armed: Armed[_Kind],
        now_ns: int,
        conn: int = 0,
        key: str = "",
        frame: str = "",
        note: str = "",
        kind: str = "",
    ) -> None:
        self._records.append(
            FaultRecord(
                now_ns,
                self.venue,
                armed.index,
                kind or armed.fault.kind,
                conn,
                key,
                frame_ids(frame),
                frame,
                note,
            )
        )


def _altered(fault: kinds.OnFrame, seed: str, text: str) -> str:
    draw = Random(seed)  # noqa: S311 faults are drawn, not secrets
    match fault:
        case kinds.Truncate(bytes=count):
            return edits.truncate(text, count, draw)
        case kinds.InvalidJson():
            return edits.break_json(text, draw)
        case kinds.UnknownField(field=name, value=value):
            return edits.add_field(text, name, value)
        case kinds.WrongType(field=name):
            return edits.change_type(text, name, draw)
        case kinds.Oversize(size=size):
            return edits.pad(text, size)
        case _:
            raise AssertionError(f"{fault.kind} alters no text")


def _until(now_ns: int, time: int | None) -> int:
    return _FOREVER_NS if time is None else now_ns + time


def _s(ns: int) -> str:
    return f"{ns / 1e9:g} s"
