"""What really happened, written as it happens, so that a test compares instead of hoping.

A folder of JSON lines, one file per kind. Every line is whole on disk before the frame that it tells
of goes to the socket: whatever a client received is here, whenever the sandbox dies.

sandbox.json    options and instruments
frames.jsonl    every frame sent, in order
dropped.jsonl   frames withheld from everybody by ``drop``
faults.jsonl    what the faults of a script did
received.jsonl  what clients sent
rest.jsonl      REST answers
orders.jsonl    each order's life
books.jsonl     the engine's own book at each book message (OKX: best 400 levels a side)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from mmdata.datasets.errors import DiskError, UsageError
from mmdata.sandbox.faults.record import FaultRecord

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from mmdata.sandbox.engine import LevelView, Order, Side
    from mmdata.sandbox.instruments import Instrument
    from mmdata.sandbox.market import Event
    from mmdata.sandbox.options import SandboxOptions


class SentFrame(msgspec.Struct, frozen=True):
    """One frame handed to a socket, exactly; ``ts`` in ns."""

    ts: int
    venue: str
    conn: int
    path: str
    frame: str


class DroppedFrame(msgspec.Struct, frozen=True):
    """One frame withheld from everybody.

    ``first_id``, ``last_id``: Binance ``U``, ``u``; OKX ``prevSeqId``, ``seqId``.
    """

    ts: int
    venue: str
    key: str
    first_id: int
    last_id: int
    frame: str


class ReceivedText(msgspec.Struct, frozen=True):
    """What a client sent."""

    ts: int
    venue: str
    conn: int
    text: str


class RestAnswer(msgspec.Struct, frozen=True):
    """One REST request (path and query) and its answer."""

    ts: int
    venue: str
    target: str
    status: int
    body: str


class OrderEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step in the life of an order that rests: added, cancelled, filled (wholly or in part).

    ``qty_lots``: what came to rest, was taken off, was executed. Orders that rested when the sandbox
    began are told as added then, oldest first at each price. Of a fill, ``side`` is the resting
    order's, ``taker_id`` the incoming order, which itself appears only if something of it rests.
    """

    ts: int
    venue: str
    symbol: str
    event: Literal["add", "cancel", "fill"]
    order_id: int
    side: Literal["bid", "ask"]
    px_ticks: int
    qty_lots: int
    trade_id: int | None = None
    taker_id: int | None = None


class BookTruth(msgspec.Struct, frozen=True):
    """The engine's book when its last change had the id ``last_id``.

    Levels best first: price, size, number of orders; decimals as the venue writes them.
    """

    ts: int
    venue: str
    symbol: str
    last_id: int
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]


_FILES: dict[type[msgspec.Struct], str] = {
    SentFrame: "frames.jsonl",
    DroppedFrame: "dropped.jsonl",
    FaultRecord: "faults.jsonl",
    ReceivedText: "received.jsonl",
    RestAnswer: "rest.jsonl",
    OrderEvent: "orders.jsonl",
    BookTruth: "books.jsonl",
}
_SETTINGS = "sandbox.json"


class TruthWriter:
    """Writes one sandbox's truth into a folder; UsageError when another's lies there already."""

    def __init__(self, folder: Path, options: SandboxOptions, instruments: Iterable[Instrument]) -> None:
        settings = {
            "options": msgspec.json.decode(options.to_json()),
            "instruments": [asdict(instrument) for instrument in instruments],
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with (folder / _SETTINGS).open("xb") as file:
                file.write(msgspec.json.encode(settings))
            # Unbuffered: a line is with the system before the next statement runs.
            self._files = {kind: (folder / name).open("xb", buffering=0) for kind, name in _FILES.items()}
        except FileExistsError as error:
            raise UsageError(f"{folder} already holds a sandbox's truth; name an empty folder") from error
        except OSError as error:
            raise DiskError(f"the truth cannot be written to {folder}: {error}") from error
        self._encoder = msgspec.json.Encoder()

    def write(self, *records: msgspec.Struct) -> None:
        """Append records of one kind."""
        data = self._encoder.encode_lines(records)
        file = self._files[type(records[0])]
        written = file.write(data)
        if written != len(data):
            raise DiskError(f"the truth is torn: {file.name} took {written} of {len(data)} bytes")

    def opening(self, instrument: Instrument, orders: Iterable[Order], ts_ns: int) -> None:
        """Tell the orders that rest when the sandbox begins."""
        self.write(
            *(
                OrderEvent(
                    ts_ns,
                    instrument.venue,
                    instrument.symbol,
                    "add",
                    order.order_id,
                    order.side,
                    order.px_ticks,
                    order.left_lots,
                )
                for order in orders
            )
        )

    def orders(self, instrument: Instrument, events: Sequence[Event]) -> None:
        """Tell what events did to resting orders, in order."""
        records = [record for event in events for record in _steps(instrument, event)]
        if records:
            self.write(*records)

    def book(
        self,
        instrument: Instrument,
        last_id: int,
        bids: Iterable[LevelView],
        asks: Iterable[LevelView],
        ts_ns: int,
    ) -> None:
        """Tell the whole book, levels best first."""
        self.write(
            BookTruth(
                ts_ns,
                instrument.venue,
                instrument.symbol,
                last_id,
                _decimals(instrument, bids),
                _decimals(instrument, asks),
            )
        )

    def close(self) -> None:
        """Close the files; everything is in them already."""
        for file in self._files.values():
            file.close()


def _decimals(instrument: Instrument, views: Iterable[LevelView]) -> list[tuple[str, str, int]]:
    return [(instrument.price(view.px_ticks), instrument.size(view.qty_lots), view.orders) for view in views]


def _steps(instrument: Instrument, event: Event) -> Iterable[OrderEvent]:
    ts_event, outcome = event
    venue, symbol = instrument.venue, instrument.symbol
    for fill in outcome.fills:
        side: Side = "ask" if fill.taker == "buy" else "bid"
        yield OrderEvent(
            ts_event,
            venue,
            symbol,
            "fill",
            fill.maker_id,
            side,
            fill.px_ticks,
            fill.qty_lots,
            fill.trade_id,
            fill.taker_id,
        )
    if outcome.rested_lots or outcome.cancelled_lots:
        change = outcome.changes[-1]
        yield OrderEvent(
            ts_event,
            venue,
            symbol,
            "add" if outcome.rested_lots else "cancel",
            outcome.order_id,
            change.side,
            change.px_ticks,
            outcome.rested_lots or outcome.cancelled_lots,
        )


@dataclass(frozen=True)
class Truth:
    """Everything that one sandbox wrote, in the order in which it happened."""

    settings: Mapping[str, object]
    frames: list[SentFrame]
    dropped: list[DroppedFrame]
    received: list[ReceivedText]
    rest: list[RestAnswer]
    orders: list[OrderEvent]
    books: list[BookTruth]
    faults: list[FaultRecord]
    _by_id: dict[tuple[str, str, int], BookTruth] = field(default_factory=dict, repr=False)

    def book(self, venue: str, symbol: str, last_id: int) -> BookTruth:
        """Return the book whose last change had this id; KeyError when no message ended there."""
        if not self._by_id:
            self._by_id.update(((book.venue, book.symbol, book.last_id), book) for book in self.books)
        return self._by_id[venue, symbol, last_id]


def read_truth(folder: Path) -> Truth:
    """Return the truth that lies in a folder; DiskError when there is none.

    A last line without its end (the sandbox was killed while writing) is left out.
    """
    try:
        settings = msgspec.json.decode((folder / _SETTINGS).read_bytes(), type=dict[str, object])
        return Truth(
            settings,
            _read(folder, SentFrame),
            _read(folder, DroppedFrame),
            _read(folder, ReceivedText),
            _read(folder, RestAnswer),
            _read(folder, OrderEvent),
            _read(folder, BookTruth),
            _read(folder, FaultRecord),
        )
    except OSError as error:
        raise DiskError(f"no truth of a sandbox can be read in {folder}: {error}") from error


_Record = TypeVar("_Record", bound=msgspec.Struct)


def _read(folder: Path, kind: type[_Record]) -> list[_Record]:
    data = (folder / _FILES[kind]).read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    return msgspec.json.Decoder(kind).decode_lines(whole)
