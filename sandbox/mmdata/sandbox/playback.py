"""A capture played back: the same frames, to those who subscribed, at the recorded pace.

Two passes over the files: the first learns what is in them (streams, snapshots, instruments), the
second reads on as time goes on, so that a long capture never has to fit into memory.
"""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.sandbox.binance.rest import symbol_row
from mmdata.sandbox.captures import Frame, RestBody, capture_files, read_capture
from mmdata.sandbox.instruments import Instrument, Venue, e8
from mmdata.sandbox.okx.messages import subscription
from mmdata.sandbox.okx.rest import instrument_row
from mmdata.sandbox.tape import Tape, TapeAggregate, TapeTrade
from mmdata.sandbox.wire import NS_PER_MS, Style, whole_ns

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from mmdata.sandbox.wire import Message

_log = logging.getLogger(__name__)

_FRAMES_AT_ONCE = 512
"""Frames that one pass may send: at a great pace the sockets set the speed, not the memory."""

_QUOTES = ("USDT", "USDC", "FDUSD", "TUSD", "BTC", "ETH", "BNB", "EUR", "TRY")

_REST_VENUES: dict[str, Venue] = {
    "/api/v3/depth": "binance",
    "/api/v3/exchangeInfo": "binance",
    "/api/v5/market/books": "okx",
    "/api/v5/public/instruments": "okx",
}

_STREAM = re.compile(r'\{"stream":"([^"]+)"')
_ARG = re.compile(r'\{"arg":\{"channel":"([^"]+)","instId":"([^"]+)"')
_LEVEL = re.compile(r'\["(\d+\.?\d*)","(\d+\.?\d*)"')
_PRICE = re.compile(r'"(?:p|px)":"(\d+\.?\d*)"')
_SIZE = re.compile(r'"(?:q|sz)":"(\d+\.?\d*)"')


class _Envelope(msgspec.Struct):
    """Of a frame, what tells whose it is; ``data`` stays the bytes that came."""

    stream: str | None = None
    arg: dict[str, str] | None = None
    event: str | None = None
    action: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class _BinanceIds(msgspec.Struct):
    U: int
    u: int


class _OkxIds(msgspec.Struct, rename="camel"):
    seq_id: int
    prev_seq_id: int


# REST multiplies price and size, so they must be numbers.
_Decimal = Annotated[str, msgspec.Meta(pattern=r"^[0-9]+\.?[0-9]*$")]


class _BinanceTrade(msgspec.Struct):
    t: int
    p: _Decimal
    q: _Decimal
    T: int
    m: bool


class _BinanceAggregate(msgspec.Struct):
    a: int
    p: _Decimal
    q: _Decimal
    f: int
    l: int  # noqa: E741 the venue's name
    T: int
    m: bool


class _OkxTrade(msgspec.Struct, rename="camel"):
    trade_id: str
    px: _Decimal
    sz: _Decimal
    side: Literal["buy", "sell"]
    ts: str


class _Symbol(msgspec.Struct):
    symbol: str


class _InstId(msgspec.Struct, rename="camel"):
    inst_id: str


class _ExchangeInfo(msgspec.Struct):
    symbols: list[msgspec.Raw]


class _OkxAnswer(msgspec.Struct):
    data: msgspec.Raw


_decode_envelope = msgspec.json.Decoder(_Envelope).decode


@dataclass(frozen=True)
class PlayedFrame:
    """A recorded frame and the subscription that it belongs to."""

    venue: Venue
    key: str
    symbol: str
    text: str
    envelope: _Envelope

    @property
    def book_ids(self) -> tuple[int, int] | None:
        """The ids of a diff; None for what does not chain, or carries no ids."""
        try:
            if self.venue == "binance":
                diff = msgspec.json.decode(self.envelope.data, type=_BinanceIds)
                return diff.U, diff.u
            if self.envelope.action != "update":
                return None
            (books,) = msgspec.json.decode(self.envelope.data, type=list[_OkxIds])
        except (msgspec.DecodeError, ValueError):
            return None
        return (books.prev_seq_id, books.seq_id) if books.prev_seq_id != books.seq_id else None

    def render(self, style: Style) -> str:
        """Return the frame as it came; for a bare /ws connection what lay inside its wrapper."""
        if self.venue == "binance" and not style.combined and self.envelope.data:
            return _text(self.envelope.data)
        return self.text


def played_frame(text: str) -> PlayedFrame | None:
    """Return a recorded frame with its subscription; None for acks, pongs and what names none."""
    try:
        envelope = _decode_envelope(text)
    except msgspec.DecodeError:
        envelope = _envelope_of_broken(text)
    if envelope.stream is not None:
        symbol = envelope.stream.partition("@")[0].upper()
        return PlayedFrame("binance", envelope.stream, symbol, text, envelope)
    if envelope.arg is not None and envelope.event is None:
        channel, inst_id = envelope.arg.get("channel", ""), envelope.arg.get("instId", "")
        return PlayedFrame("okx", subscription(channel, inst_id), inst_id, text, envelope)
    return None


def _envelope_of_broken(text: str) -> _Envelope:
    """Return what the beginning of a frame tells that is no JSON: it was recorded, so it is played."""
    if match := _STREAM.match(text):
        return _Envelope(stream=match[1])
    if match := _ARG.match(text):
        return _Envelope(arg={"channel": match[1], "instId": match[2]})
    return _Envelope()


@dataclass
class Recording:
    """What the captures hold of one venue.

    ``snapshots``: symbol -> (ts_recv, body) in order; ``rows``: symbol -> its JSON object in the
    venue's list of instruments, recorded or derived.
    """

    venue: Venue
    files: list[Path] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    symbols: dict[str, None] = field(default_factory=dict)
    snapshots: dict[str, list[tuple[int, str]]] = field(default_factory=lambda: defaultdict(list))
    rows: dict[str, str] = field(default_factory=dict)

    def frames(self) -> Iterator[tuple[int, PlayedFrame]]:
        """Yield this venue's frames with their time of reception, file by file."""
        for path in self.files:
            for line in read_capture(path):
                if isinstance(line, Frame):
                    frame = played_frame(line.text)
                    if frame is not None and frame.venue == self.venue:
                        yield line.ts_recv, frame


def read_recordings(captures: Sequence[Path]) -> dict[Venue, Recording]:
    """Return what the captures hold, by venue; DatasetError when nothing in them can be played."""
    recordings: dict[Venue, Recording] = {}
    for path in [file for capture in captures for file in capture_files(capture)]:
        _index(path, recordings)
    if not recordings:
        names = ", ".join(str(path) for path in captures)
        raise DatasetError(f"no frame in {names} names its stream; nothing can be played")
    for recording in recordings.values():
        missing = [symbol for symbol in recording.symbols if symbol not in recording.rows]
        if missing:
            _derive_rows(recording, missing)
    return recordings


def _index(path: Path, recordings: dict[Venue, Recording]) -> None:
    bodies: list[RestBody] = []
    symbols: dict[Venue, dict[str, None]] = defaultdict(dict)
    unplayed = 0
    for line in read_capture(path):
        if isinstance(line, RestBody):
            bodies.append(line)
            continue
        frame = played_frame(line.text)
        if frame is None:
            unplayed += 1
            continue
        recording = recordings.setdefault(frame.venue, Recording(frame.venue))
        recording.keys.add(frame.key)
        symbols[frame.venue][frame.symbol] = None
    for venue, seen in symbols.items():
        recordings[venue].files.append(path)
        recordings[venue].symbols |= seen
    for body in bodies:
        _index_rest(path, body, recordings, list(symbols["binance"]))
    if unplayed:
        _log.info("%s: %d frames (acks, pongs) belong to no stream and are not played", path, unplayed)


def _index_rest(path: Path, line: RestBody, recordings: dict[Venue, Recording], symbols: list[str]) -> None:
    """Keep what a REST answer tells; answers to other questions are passed over."""
    if line.url is None:
        if len(symbols) != 1:
            raise DatasetError(
                f"{path}: a REST snapshot does not say its symbol, and the file holds "
                f"{', '.join(symbols) or 'no stream'}; it must hold exactly one symbol"
            )
        recordings["binance"].snapshots[symbols[0]].append((line.ts_recv, line.body))
        return
    parts = urlsplit(line.url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    venue = _REST_VENUES.get(parts.path)
    if venue is None:
        return
    recording = recordings.setdefault(venue, Recording(venue))
    match parts.path:
        case "/api/v3/depth":
            recording.snapshots[query["symbol"]].append((line.ts_recv, line.body))
        case "/api/v3/exchangeInfo":
            for row in msgspec.json.decode(line.body, type=_ExchangeInfo).symbols:
                recording.rows[msgspec.json.decode(row, type=_Symbol).symbol] = _text(row)
        case "/api/v5/market/books":
            data = msgspec.json.decode(line.body, type=_OkxAnswer).data
            recording.snapshots[query["instId"]].append((line.ts_recv, _text(data)))
        case "/api/v5/public/instruments":
            data = msgspec.json.decode(line.body, type=_OkxAnswer).data
            for row in msgspec.json.decode(data, type=list[msgspec.Raw]):
                recording.rows[msgspec.json.decode(row, type=_InstId).inst_id] = _text(row)


def _text(raw: msgspec.Raw) -> str:
    return bytes(raw).decode()


def _derive_rows(recording: Recording, symbols: list[str]) -> None:
    """Make the instruments that no answer tells: steps are the greatest common divisors seen."""
    steps = {symbol: [0, 0] for symbol in symbols}
    for _, frame in recording.frames():
        if frame.symbol in steps:
            _narrow(steps[frame.symbol], frame.text)
    for symbol, bodies in recording.snapshots.items():
        for _, body in bodies:
            if symbol in steps:
                _narrow(steps[symbol], body)
    for code, (symbol, (tick, lot)) in enumerate(steps.items(), 1):
        base, quote = _currencies(recording.venue, symbol)
        instrument = Instrument(recording.venue, symbol, base, quote, tick or 1, lot or 1)
        if recording.venue == "binance":
            recording.rows[symbol] = symbol_row(instrument)
        else:
            recording.rows[symbol] = instrument_row(instrument, code, _okx_type(symbol))


def _narrow(steps: list[int], text: str) -> None:
    prices, sizes = set(_PRICE.findall(text)), set(_SIZE.findall(text))
    for price, size in _LEVEL.findall(text):
        prices.add(price)
        sizes.add(size)
    steps[0] = math.gcd(steps[0], *map(e8, prices))
    steps[1] = math.gcd(steps[1], *map(e8, sizes))


def _currencies(venue: Venue, symbol: str) -> tuple[str, str]:
    if venue == "okx":
        base, quote = symbol.split("-")[:2]
        return base, quote
    for quote in _QUOTES:
        if symbol.endswith(quote) and symbol != quote:
            return symbol.removesuffix(quote), quote
    return symbol, ""


def _okx_type(inst_id: str) -> str:
    parts = inst_id.split("-")
    if len(parts) == 2:
        return "SPOT"
    return "SWAP" if parts[2] == "SWAP" else "FUTURES"


class Playback:
    """One venue's recording on its way out; it starts when somebody subscribes to anything."""

    def __init__(self, recording: Recording, pace: float) -> None:
        self.recording = recording
        self.finished = False
        self._pace = pace
        self._frames = recording.frames()
        self._next = next(self._frames, None)
        self._first_ns = self._next[0] if self._next else 0
        self._position_ns = 0
        self._started_ns: int | None = None
        self._trades: defaultdict[str, Tape[TapeTrade]] = defaultdict(Tape)
        self._aggregates: defaultdict[str, Tape[TapeAggregate]] = defaultdict(Tape)

    @property
    def offered(self) -> set[str]:
        """The subscriptions that the recording can serve."""
        return self.recording.keys

    def greet(self, key: str, now_ns: int) -> list[Message]:
        """Begin, unless it has begun; a newcomer gets nothing that was not recorded."""
        if self._started_ns is None:
            self._started_ns = now_ns
        return []

    def due(self, now_ns: int) -> Iterator[Message]:
        """Yield the frames whose time has come, a bounded number at once."""
        return islice(self._due(now_ns), _FRAMES_AT_ONCE)

    def _due(self, now_ns: int) -> Iterator[Message]:
        if self._started_ns is None:
            return
        reached_ns = self._first_ns + (now_ns - self._started_ns) * self._pace
        while self._next is not None and self._next[0] <= reached_ns:
            self._position_ns, frame = self._next
            self._next = next(self._frames, None)
            self._remember(frame)
            yield frame
        self.finished = self._next is None

    def step_clock(self, by_ns: int) -> None:
        """Refuse: what was recorded stays as it is."""
        raise UsageError("a playback's stamps are as recorded: clock_step needs a live market")

    def reset_ids(self, symbol: str | None, by: int) -> None:
        """Refuse: what was recorded stays as it is."""
        raise UsageError("a playback's ids are as recorded: id_reset needs a live market")

    def snapshot(self, symbol: str) -> str | None:
        """Return the last snapshot at or before the position, else the first, else None."""
        bodies = self.recording.snapshots.get(symbol)
        if not bodies:
            return None
        passed = [body for ts_recv, body in bodies if ts_recv <= self._position_ns]
        return passed[-1] if passed else bodies[0][1]

    def _remember(self, frame: PlayedFrame) -> None:
        """Keep the trades of a frame for REST; a frame that cannot be read tells none."""
        try:
            if frame.key.endswith("@trade"):
                trade = msgspec.json.decode(frame.envelope.data, type=_BinanceTrade)
                entry = TapeTrade(trade.t, whole_ns(trade.T)[0], trade.p, trade.q, _taker(trade.m))
                self._trades[frame.symbol].add(entry)
            elif frame.key.endswith("@aggTrade"):
                agg = msgspec.json.decode(frame.envelope.data, type=_BinanceAggregate)
                self._aggregates[frame.symbol].add(
                    TapeAggregate(agg.a, whole_ns(agg.T)[0], agg.p, agg.q, _taker(agg.m), agg.f, agg.l)
                )
            elif frame.key.startswith("trades"):
                for row in msgspec.json.decode(frame.envelope.data, type=list[_OkxTrade]):
                    ts_event = int(row.ts) * NS_PER_MS
                    told = TapeTrade(int(row.trade_id), ts_event, row.px, row.sz, row.side)
                    self._trades[frame.symbol].add(told)
        except (msgspec.DecodeError, ValueError):
            return

    # What the venues' REST asks for; a recording tells one venue, so one of these pairs is used.

    def symbol_rows(self) -> Mapping[str, str]:
        """Return symbol -> its JSON object in exchangeInfo."""
        return self.recording.rows

    def depth(self, symbol: str, limit: int) -> str | None:
        """Return the recorded answer, whatever limit is asked for now."""
        return self.snapshot(symbol)

    def instrument_rows(self) -> Mapping[str, str]:
        """Return instrument id -> its JSON object in the instruments answer."""
        return self.recording.rows

    def depth_data(self, inst_id: str, size: int, now_ns: int) -> str | None:
        """Return the recorded data, whatever size is asked for now."""
        return self.snapshot(inst_id)

    def trades(self, symbol: str) -> Tape[TapeTrade]:
        """Return the trades played so far; of OKX as aggregated as they were recorded."""
        return self._trades[symbol]

    def aggregates(self, symbol: str) -> Tape[TapeAggregate]:
        """Return the aggregated trades played so far; none when that stream was not recorded."""
        return self._aggregates[symbol]


def _taker(buyer_is_maker: bool) -> Literal["buy", "sell"]:
    return "sell" if buyer_is_maker else "buy"
