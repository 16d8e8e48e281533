"""`books`: the best levels of a rebuilt book as Polars frames, where they changed or at moments."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Literal, get_args

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets._kernel import (
    CURSOR_SIZE,
    EVENT,
    FRAMES,
    FULL,
    LATEST,
    NEXT,
    NO_PRICE,
    SESSION,
    STARTED,
    Columns,
    Frames,
    run_frames,
    run_moments,
)
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.errors import UsageError
from mmdata.datasets.grid import LOT, TICK, Step
from mmdata.datasets.market import NO_TIME, Grid, again_if_replaced, time_array
from mmdata.datasets.messages import Batch, Feed, Messages, open_messages
from mmdata.datasets.prices import Prices, hand_out, require_known, steps_in_force
from mmdata.datasets.reading import chosen_parts
from mmdata.datasets.stores import Place, Root, root_of
from mmdata.datasets.times import NEVER, Moment, interval_ns, span, to_ns

Ints = NDArray[np.int64]
Layout = Literal["long", "wide"]
Moments = Sequence[Moment] | NDArray[np.int64] | NDArray[np.datetime64] | pl.Series
"""Moments one by one; whole numbers are ns since the epoch, times without a zone UTC."""
_ROOM = 1 << 15  # books in the arrays that the kernel fills
_SIDES = ("bid", "ask")


def books(
    root: Root,
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
    depth: int = 10,
    every: str | float | None = None,
    layout: Layout = "wide",
    prices: Prices = "decimal",
) -> pl.DataFrame:
    """Return the best ``depth`` levels of the rebuilt book in ``[start, end)``, by ``ts_recv``.

    Without ``every`` a book for each message that changed one of them; with it (``"100ms"``, or seconds)
    one at each whole multiple of it, as the book was known then. ``ts_event`` and ``last_id`` are those of
    the last message in the book.

    ``layout="wide"``: a row a book, with ``bid_price_0``, ``bid_size_0``, ``ask_price_0``, ``ask_size_0``,
    ``bid_price_1`` and so on, null where a side has fewer levels. ``"long"``: a row a level, with ``side``,
    ``level`` (0 is the best), ``price``, ``size``; bids first.

    Where the book is not proven there are no books. The moment at which it ceased to be is one row without
    levels and with ``valid`` false (with ``every``, the first multiple after it), so that a join to the
    last book before some time finds out; ``filter("valid")`` leaves these rows out. The book is built from
    before ``start``, so that it is right there. Sessions that overlap in time come one after the other.

    ``prices`` are as in `scan`. All books are held in memory: `iter_books` yields them in pieces.
    UsageError: nothing of the symbol is there; an argument is wrong. DatasetError: a file is damaged.
    """
    told = functools.partial(
        iter_books,
        root,
        exchange=exchange,
        symbol=symbol,
        start=start,
        end=end,
        depth=depth,
        every=every,
        layout=layout,
        prices=prices,
    )
    return again_if_replaced(lambda: pl.concat(told()))


def iter_books(
    root: Root,
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
    depth: int = 10,
    every: str | float | None = None,
    layout: Layout = "wide",
    prices: Prices = "decimal",
) -> Iterator[pl.DataFrame]:
    """Yield what `books` returns in pieces, the first of which may be empty; memory does not grow with time.

    Errors of the arguments are raised by the call. ReplacedError, while it runs: a day was compacted
    meanwhile; begin again.
    """
    step = 0 if every is None else interval_ns(every)
    begin, stop = span(start, end)
    messages, shape = _opened(root_of(root), exchange, symbol, begin, stop, depth, layout, prices)
    return _told(iter(messages), Feed(messages), _Teller(depth, begin, stop, step), shape)


def books_at(
    root: Root,
    times: Moments,
    *,
    exchange: str,
    symbol: str,
    depth: int = 10,
    layout: Layout = "wide",
    prices: Prices = "decimal",
) -> pl.DataFrame:
    """Return the best ``depth`` levels of the rebuilt book as it was known at each of ``times``.

    A book holds the messages received up to its moment (``ts_recv``, by the recorder's clock), none later.
    One row each (``layout="long"``: at least one), in the order of ``times``, columns as in `books`,
    ``ts_recv`` being the moment asked for. Where the book was not proven then, and before and after all that
    was recorded, ``valid`` is false and there are no levels. The rows of all moments are held in memory,
    what is read is streamed.

    UsageError: nothing of the symbol is there; a time cannot be read; an argument is wrong. DatasetError: a
    file is damaged.
    """
    moments, place = np.unique(_in_ns(times), return_inverse=True)
    begin, stop = (int(moments[0]), int(moments[-1]) + 1) if len(moments) else (0, 1)

    def told() -> pl.DataFrame:
        messages, shape = _opened(root_of(root), exchange, symbol, begin, stop, depth, layout, prices)
        teller = _Teller(depth, begin, stop, 0, moments)
        return pl.concat(_told(iter(messages), Feed(messages), teller, shape))

    rows = again_if_replaced(told)
    when = rows["ts_recv"].to_physical().to_numpy()
    begins = np.searchsorted(when, moments)
    counts = np.searchsorted(when, moments, side="right") - begins
    before = np.cumsum(counts[place]) - counts[place]
    return rows[np.repeat(begins[place] - before, counts[place]) + np.arange(counts[place].sum())]


def _opened(
    place: Place,
    exchange: str,
    symbol: str,
    begin: int | None,
    stop: int | None,
    depth: int,
    layout: Layout,
    prices: Prices,
) -> tuple[Messages, _Shape]:
    """Return the messages of a time, and what their books are made to look like."""
    require_known(prices)
    if layout not in get_args(Layout):
        raise UsageError(f"layout={layout!r} is not known, expected one of {', '.join(get_args(Layout))}")
    if depth < 1:
        raise UsageError(f"depth={depth} is no number of levels, expected at least 1")
    steps: dict[Step, Decimal] = {}
    if prices == "ticks":
        parts = chosen_parts(place, "depth", exchange, symbol, begin, stop)
        steps = steps_in_force(place, exchange, symbol, begin, stop, parts)
    messages = open_messages(place, exchange, symbol, start=begin, end=stop)
    assert messages.grid is not None
    return messages, _Shape(depth, layout, prices, steps, messages.grid, messages.wide)


class _Shape:
    """How frames of the kernel become frames of Polars."""

    def __init__(
        self, depth: int, layout: Layout, prices: Prices, steps: dict[Step, Decimal], grid: Grid, wide: bool
    ) -> None:
        self._depth, self._layout, self._prices, self._steps = depth, layout, prices, steps
        self._grid, self._wide = grid, wide

    def frame(self, told: Frames, count: int) -> pl.DataFrame:
        """Return the first ``count`` frames."""
        levels = told.levels[:count]
        # Copies: the kernel fills the same arrays again, and Arrow takes them as they are.
        head = {
            "ts_recv": _times(told.time[:count].copy()),
            "ts_event": _times(told.event[:count].copy()),
            "last_id": _nullable(told.book_id[:count].copy(), NO_ID),
            "valid": pl.Series(told.valid[:count].copy()),
        }
        if self._layout == "wide":
            return pl.DataFrame(head | self._wide_columns(levels))
        here = levels[..., 0] != NO_PRICE
        here[~here.any(axis=(1, 2)), 0, 0] = True  # the row of a book without levels
        at, side, level = np.nonzero(here)
        chosen = levels[at, side, level]
        null = chosen[:, 0] == NO_PRICE
        words = pl.Series(np.where(null, -1, side)).replace_strict(
            [-1, 0, 1], [None, *_SIDES], return_dtype=pl.String
        )
        return pl.DataFrame(
            {name: column.gather(at) for name, column in head.items()}
            | {
                "side": words,
                "level": pl.from_arrow(pa.array(level.astype(np.int32), mask=null)),
                "price": self._column(chosen[:, 0], null, TICK),
                "size": self._column(chosen[:, 1], null, LOT),
            }
        )

    def _wide_columns(self, levels: Ints) -> dict[str, pl.Series]:
        columns: dict[str, pl.Series] = {}
        for level in range(self._depth):
            for at, side in enumerate(_SIDES):
                null = levels[:, at, level, 0] == NO_PRICE
                columns[f"{side}_price_{level}"] = self._column(levels[:, at, level, 0], null, TICK)
                columns[f"{side}_size_{level}"] = self._column(levels[:, at, level, 1], null, LOT)
        return columns

    def _column(
        self,
        multiples: Ints,
        null: NDArray[np.bool_],
        of: Step,
    ) -> pl.Series:
        unit = (self._grid.tick if of == TICK else self._grid.lot).size
        return hand_out(multiples, unit, null, self._prices, of=of, step=self._steps.get(of), wide=self._wide)


class _Teller:
    """The kernel's arrays and where it stands."""

    def __init__(
        self, depth: int, begin: int | None, stop: int | None, every: int, moments: Ints | None = None
    ) -> None:
        """``moments``, ascending, are those at which books are wanted; None: see `run_frames`."""
        room = _ROOM
        self.frames = Frames(
            time=np.empty(room, np.int64),
            event=np.empty(room, np.int64),
            book_id=np.empty(room, np.int64),
            valid=np.empty(room, np.bool_),
            levels=np.empty((room, 2, depth, 2), np.int64),
        )
        self._last = np.empty((2, depth, 2), np.int64)
        self.every, self._stop, self.moments = every, stop, moments
        self._start = NO_PRICE if begin is None else begin
        self.cursor = np.zeros(CURSOR_SIZE, np.int64)
        self.cursor[[LATEST, EVENT]] = NO_PRICE
        self.cursor[STARTED] = begin is None
        if moments is None:
            self.cursor[NEXT] = NO_PRICE if begin is None or not every else -(-begin // every) * every

    def tell(self, feed: Feed, batch: Batch) -> Iterator[int]:
        """Take a batch into the book; yield how many frames there are: when the arrays are full, and last."""
        batch, at = feed.take(batch)
        book = feed.book
        assert book is not None
        while True:
            told = (batch.columns, batch.ts_recv, batch.ts_event, at)
            known = (book.arrays, book.state, self.cursor)
            if self.moments is None:
                at = run_frames(*told, self._start, self.every, *known, self._last, self.frames)
            else:
                at = run_moments(*told, self.moments, *known, self.frames)
            if book.state[FULL]:
                book.grow()
                continue
            yield int(self.cursor[FRAMES])
            self.cursor[FRAMES] = 0
            if at == len(batch.order):
                return

    def rest(self, *, more: bool) -> Iterator[Batch]:
        """Yield messages at which what is left is told: up to the end asked for, if ``more`` came."""
        if self.every or self.moments is not None:
            yield self._end(self._stop if more and self._stop is not None else NO_TIME)
        if self.moments is not None:
            yield self._end(NEVER)

    @staticmethod
    def _end(time: int) -> Batch:
        one = np.array([NO_ID])
        none = np.empty(0, np.int64)
        columns = Columns(
            np.array([SESSION], np.uint8),
            one,
            one,
            one,
            np.zeros(2, np.int64),
            none.astype(np.int8),
            none,
            none,
        )
        return Batch(columns, np.zeros(1, np.int64), np.array([time]), np.array([NO_TIME]))


def _told(batches: Iterator[Batch], feed: Feed, teller: _Teller, shape: _Shape) -> Iterator[pl.DataFrame]:
    yield shape.frame(teller.frames, 0)
    more = False
    for batch in batches:
        for count in teller.tell(feed, batch):
            if count:
                yield shape.frame(teller.frames, count)
        more = batch.more
    for batch in teller.rest(more=more):
        for count in teller.tell(feed, batch):
            if count:
                yield shape.frame(teller.frames, count)


def _in_ns(times: Moments) -> Ints:
    """Return moments as ns since the epoch. UsageError: one cannot be read, or is none."""
    if isinstance(times, pl.Series):
        if times.null_count():
            raise UsageError(f"times: {times.null_count()} of {len(times)} are null, expected moments")
        if times.dtype.is_temporal():
            times = times.cast(pl.Datetime("ns")).to_physical()
        return np.asarray(times.cast(pl.Int64).to_numpy(), np.int64)
    if isinstance(times, np.ndarray):
        if times.dtype.kind == "M":
            times = times.astype("datetime64[ns]")
            if np.isnat(times).any():
                raise UsageError(
                    f"times: {np.isnat(times).sum()} of {len(times)} are no time, expected moments"
                )
        elif times.dtype.kind not in "iu":
            raise UsageError(f"times: an array of {times.dtype}, expected whole ns or datetime64")
        return times.astype(np.int64)
    return np.array([to_ns(moment) for moment in times], np.int64)


def _nullable(values: Ints, none: int) -> pl.Series:
    series = pl.from_arrow(pa.array(values, mask=values == none))
    assert isinstance(series, pl.Series)
    return series


def _times(values: Ints) -> pl.Series:
    series = pl.from_arrow(time_array(values))
    assert isinstance(series, pl.Series)
    return series
