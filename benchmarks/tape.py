"""Real-looking Binance frames without an end: a capture whose ids go on when it is played again.

A lap of the tape is the capture, and one more depth frame that turns its last book back into its first,
so that the book at any position is known and no client sees a hole, however long the tape is played.
Pure, but for `read_tape`.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

SYMBOL = "BTCUSDT"
BOOK, TRADE = "book", "trade"

_ID = re.compile(rb'"([UutET])":(\d+)')
_LEVELS = re.compile(rb'"([ba])":(\[(?:\["[^"]*","[^"]*"\],?)*\])')
_AGGREGATE = (
    b'{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":%%(E)d,"s":"BTCUSDT","a":%%(t)d,"p":"%s",'
    b'"q":"%s","f":%%(t)d,"l":%%(t)d,"T":%%(T)d,"m":%s,"M":true}}'
)

_WRAPPED = b'{"stream":"'

Side = dict[str, str]


class Frame(NamedTuple):
    """A frame to be filled in: ids grow by the lap, times are those of its sending."""

    stream: str
    template: bytes
    ids: dict[bytes, int]
    counter: str
    """Which ids it carries: BOOK or TRADE."""


class Book(NamedTuple):
    """Price to size, as the venue writes them."""

    bids: Side
    asks: Side
    last_id: int

    def best(self, levels: int) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """Return the best levels of each side, best first."""
        bids = sorted(self.bids.items(), key=lambda level: -float(level[0]))
        asks = sorted(self.asks.items(), key=lambda level: float(level[0]))
        return bids[:levels], asks[:levels]


@dataclass(frozen=True)
class Tape:
    """Frames in their order, and the book before the first of them."""

    frames: Sequence[Frame]
    start: Book
    book_step: int
    """What a lap adds to the ids of book messages."""
    trade_step: int

    def select(self, streams: Iterable[str]) -> Tape:
        """Return the tape of some streams only, such as ``depth@100ms``; ValueError: one is not on it."""
        wanted = set(streams)
        missing = wanted - {frame.stream for frame in self.frames}
        if missing:
            raise ValueError(f"no frame of {', '.join(sorted(missing))} is on the tape")
        kept = [frame for frame in self.frames if frame.stream in wanted]
        return Tape(kept, self.start, self.book_step, self.trade_step)

    def stream(self, position: int) -> str:
        """Return the stream of the frame at ``position``."""
        return self.frames[position % len(self.frames)].stream

    def render(self, position: int, now: int) -> bytes:
        """Return the frame at ``position``, as sent at ``now`` in the client's unit of time."""
        lap, index = divmod(position, len(self.frames))
        frame = self.frames[index]
        shift = lap * (self.book_step if frame.counter == BOOK else self.trade_step)
        values = {name: value + shift for name, value in frame.ids.items()}
        values[b"E"] = values[b"T"] = now
        return frame.template % values

    def book(self, position: int) -> Book:
        """Return the book after all frames before ``position``."""
        lap, index = divmod(position, len(self.frames))
        bids, asks, last_id = dict(self.start.bids), dict(self.start.asks), self.start.last_id
        for frame in self.frames[:index]:
            if frame.stream.startswith("depth"):
                last_id = frame.ids[b"u"]
                for side, name in ((bids, "b"), (asks, "a")):
                    _apply(side, _data(frame)[name])
        return Book(bids, asks, last_id + lap * self.book_step)


def read_tape(paths: Sequence[Path]) -> Tape:
    """Return the tape of captures in the format of hftbacktest's collector; they are one stream.

    OSError: a file cannot be read. ValueError: there is no snapshot, or no depth frame that continues it.
    """
    payloads = [line.partition(b" ")[2].rstrip() for path in paths for line in _lines(path)]
    return make_tape(payloads)


def make_tape(payloads: Iterable[bytes]) -> Tape:
    """Return the tape of wrapped frames, and one bare REST snapshot among them."""
    payloads = list(payloads)
    snapshots = (payload for payload in payloads if payload.startswith(b'{"lastUpdateId"'))
    snapshot = json.loads(next(snapshots, b"null"))
    if snapshot is None:
        raise ValueError("the capture holds no snapshot, so no book can be told")
    frames = [frame for payload in payloads if payload.startswith(_WRAPPED) for frame in _frames(payload)]
    bids, asks, last_id = dict(snapshot["bids"]), dict(snapshot["asks"]), snapshot["lastUpdateId"]
    begin = 0
    for index, frame in enumerate(frames):
        if frame.stream.startswith("depth") and frame.ids[b"u"] > last_id:
            # The first that bridges the snapshot goes into the book: the next begins exactly behind it.
            for side, name in ((bids, "b"), (asks, "a")):
                _apply(side, _data(frame)[name])
            last_id, begin = frame.ids[b"u"], index + 1
            break
    else:
        raise ValueError(f"no depth frame continues the snapshot, whose id is {last_id}")
    start = Book(bids, asks, last_id)
    lap = Tape(frames[begin:], start, 0, 0)
    end = lap.book(len(lap.frames) - 1)  # the last frame may be a depth frame
    end = _after(end, lap.frames[-1])
    seam = _seam(end, start)
    trades = [frame.ids[b"t"] for frame in lap.frames if frame.counter == TRADE]
    trade_step = trades[-1] + 1 - trades[0] if trades else 0
    return Tape([*lap.frames, seam], start, seam.ids[b"u"] - start.last_id, trade_step)


def _lines(path: Path) -> Iterator[bytes]:
    content = path.read_bytes()
    yield from (gzip.decompress(content) if path.suffix == ".gz" else content).splitlines()


def _frames(payload: bytes) -> Iterator[Frame]:
    """Yield the frame of a payload; of a trade also the aggregate that holds it alone."""
    stream = payload[payload.index(b"@") + 1 : payload.index(b'","data"')].decode()
    ids = {name: int(value) for name, value in _ID.findall(payload) if name not in b"ET"}
    template = _ID.sub(rb'"\1":%(\1)d', payload.replace(b"%", b"%%"))
    yield Frame(stream, template, ids, TRADE if stream == "trade" else BOOK)
    if stream == "trade":
        data = json.loads(payload)["data"]
        maker = b"true" if data["m"] else b"false"
        aggregate = _AGGREGATE % (data["p"].encode(), data["q"].encode(), maker)
        yield Frame("aggTrade", aggregate, ids, TRADE)


def _data(frame: Frame) -> dict[str, list[list[str]]]:
    return {name.decode(): json.loads(levels) for name, levels in _LEVELS.findall(frame.template)}


def _apply(side: Side, levels: Iterable[Sequence[str]]) -> None:
    for price, size in levels:
        if float(size):
            side[price] = size
        else:
            side.pop(price, None)


def _after(book: Book, frame: Frame) -> Book:
    if not frame.stream.startswith("depth"):
        return book
    for side, name in ((book.bids, "b"), (book.asks, "a")):
        _apply(side, _data(frame)[name])
    return Book(book.bids, book.asks, frame.ids[b"u"])


def _seam(end: Book, start: Book) -> Frame:
    """Return the depth frame that turns the book ``end`` into ``start``."""
    first_id, last_id = end.last_id + 1, end.last_id + 2
    levels = [
        json.dumps(_difference(before, after), separators=(",", ":")).encode()
        for before, after in ((end.bids, start.bids), (end.asks, start.asks))
    ]
    template = (
        b'{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":%%(E)d,"s":"BTCUSDT",'
        b'"U":%%(U)d,"u":%%(u)d,"b":%s,"a":%s}}' % tuple(levels)
    )
    return Frame("depth@100ms", template, {b"U": first_id, b"u": last_id}, BOOK)


def _difference(before: Side, after: Side) -> list[tuple[str, str]]:
    gone = [(price, "0.00000000") for price in before if price not in after]
    return gone + [(price, size) for price, size in after.items() if before.get(price) != size]
