"""OKX's public archive: order books of 400 levels (NDJSON in a tar.gz), and trades (CSV in a zip).

A book file is a line a message: ``{"instId":..,"action":"snapshot"|"update","ts":ms,"asks":[[price, size,
orders],..],"bids":..}``. It has no sequence ids: nothing proves that no message is missing, until the next
snapshot (about every quarter of an hour). A trade file names its columns, some in two languages
(``trade_id/..``); old ones have no instrument, then the file's name tells. Files are cut at days of UTC+8.
Nobody received these: ``ts_recv`` is the venue's time, and the session says so.

Source: OKX's historical-data page and files as public readers of them describe them, November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.rows import Bad, Batch, Cells, Channel, every_row, runs_of
from mmdata.datasets.formats.sources import Blocks
from mmdata.datasets.schema import NARROW, TIME, WIDE

EXCHANGE = "okx"
_TRADES_NAME = re.compile(r"(?P<symbol>.+)-(trades|aggtrades)-\d{4}-\d\d(-\d\d)?\.(zip|csv|csv\.gz)")
_BOOKS_NAME = re.compile(r".+-L2orderbook-\d+lv-.+\.(tar\.gz|data)", re.IGNORECASE)
_COLUMNS = ("trade_id", "side", "size", "price", "created_time")
_INSTRUMENT, _SOURCE = "instrument_name", "source"
_LATEST_MS = 2**63 // 1_000_000

_Level = tuple[str, str, str]


class _Book(msgspec.Struct):
    """A line of a book file."""

    instId: str  # noqa: N815 the venue's word
    action: str
    ts: str
    asks: list[_Level]
    bids: list[_Level]


_decoder = msgspec.json.Decoder(_Book)


def channels(
    sources: Sequence[Path], exchange: str | None, symbol: str | None
) -> tuple[str, list[Channel], list[Blocks]]:
    """Return exchange and channels of some files, and the files as they are read.

    UsageError: another exchange is asked for, or a file's name does not say what it holds.
    """
    if exchange not in (None, EXCHANGE):
        raise UsageError(f"exchange {exchange!r}: format okx-public is read for {EXCHANGE}")
    opened = [Blocks(path) for path in sources]
    books: list[Blocks] = []
    trades: list[tuple[Blocks, str]] = []
    for blocks in opened:
        if _BOOKS_NAME.fullmatch(blocks.path.name):
            books.append(blocks)
        elif found := _TRADES_NAME.fullmatch(blocks.path.name):
            trades.append((blocks, found["symbol"]))
        else:
            raise UsageError(
                f"{blocks.path}: the name does not say what it holds; expected one such as "
                f"BTC-USDT-L2orderbook-400lv-2025-08-01.tar.gz or BTC-USDT-trades-2025-08-01.zip; nothing "
                f"was imported"
            )
    made = []
    if trades:
        made.append(Channel("trades", _trade_batches(trades), every_row))
    if books:
        made.append(Channel("depth", _book_batches(books), runs_of("message")))
    return EXCHANGE, made, opened


def _trade_batches(files: Sequence[tuple[Blocks, str]]) -> Iterator[Batch]:
    for file, symbol in files:
        names: list[str] = []
        for _, whole in file:
            block = whole
            if not names:
                header, _, block = whole.partition(b"\n")
                names = [
                    name.partition(b"/")[0].decode(errors="replace").strip() for name in header.split(b",")
                ]
                missing = {*_COLUMNS} - {*names}
                if missing:
                    raise UsageError(
                        f"{file.path}: its first line lacks {' and '.join(sorted(missing))}: it names "
                        f"{', '.join(names)}; nothing more was imported"
                    )
            if block.strip():
                yield _trades(Cells(block, names, names), names, symbol)


def _trades(cells: Cells, names: Sequence[str], symbol: str) -> Batch:
    time = pa.array(cells.times("created_time")).cast(TIME)
    # Whether these ids leave out none is not documented: they claim nothing of a chain.
    nothing = pa.nulls(len(cells), pa.int64())
    return cells.batch(
        {
            "symbol": cells.text(_INSTRUMENT) if _INSTRUMENT in names else pa.repeat(symbol, len(cells)),
            "ts_recv": time,
            "ts_event": time,
            "kind": pa.repeat("trade", len(cells)),
            "origin": pa.repeat("stream", len(cells)),
            "trade_id": cells.ids("trade_id"),
            "first_trade_id": nothing,
            "last_trade_id": nothing,
            "side": cells.words("side", {word: word.lower() for word in ("buy", "sell", "BUY", "SELL")}),
            "price": cells.numbers("price"),
            "size": cells.numbers("size"),
            "flags": cells.text(_SOURCE) if _SOURCE in names else pa.nulls(len(cells), pa.string()),
        }
    )


def _book_batches(files: Sequence[Blocks]) -> Iterator[Batch]:
    number = 0
    for file in files:
        for _, block in file:
            batch, messages = _books(block.splitlines(), number)
            number += messages
            yield batch


def _books(lines: Sequence[bytes], number: int) -> tuple[Batch, int]:
    """Return the messages of some lines, the first of which has a number, and how many there are."""
    books: list[_Book] = []
    bad: list[tuple[int, bytes, str]] = []
    for line in lines:
        if not line.strip():
            continue
        try:
            books.append(_checked(_decoder.decode(line)))
        except (msgspec.MsgspecError, ValueError) as error:
            bad.append((len(books), line, f"cannot be decoded: {error}"))
    try:
        price, size = (_numbers([level[at] for level in _levels(books)]) for at in (0, 1))
    except pa.ArrowInvalid:
        if len(lines) == 1:
            raise
        return _one_by_one(lines, number)
    counts = np.array([[len(book.bids), len(book.asks)] for book in books], np.int64).reshape(-1, 2)
    levels = counts.sum(axis=1)
    rows = np.maximum(levels, 1)
    message = np.repeat(np.arange(len(books)), rows)
    kinds = np.repeat(np.tile(np.arange(3), len(books)), np.column_stack((counts, rows - levels)).ravel())
    none = kinds == 2
    place = pa.array(np.cumsum(~none) - 1, mask=none)
    of = pa.array(message)
    time = pa.array([int(book.ts) * 1_000_000 for book in books], pa.int64()).cast(TIME).take(of)
    table = pa.table(
        {
            "symbol": pa.array([book.instId for book in books], pa.string()).take(of),
            "ts_recv": time,
            "ts_event": time,
            "side": pa.array(["bid", "ask", None]).take(pa.array(kinds)),
            "price": price.take(place),
            "size": size.take(place),
            "orders": pa.array([int(level[2]) for level in _levels(books)], pa.int32()).take(place),
            "is_snapshot": pa.array([book.action == "snapshot" for book in books], pa.bool_()).take(of),
            "message": pa.array(message + number),
        }
    )
    starts = np.concatenate(([0], np.cumsum(rows)))
    told = [Bad(int(starts[at]), line.decode(errors="backslashreplace"), error) for at, line, error in bad]
    return Batch(table, told), len(books)


def _checked(book: _Book) -> _Book:
    """Refuse what has the form of a message and is none. ValueError: what is wrong."""
    if book.action not in ("snapshot", "update"):
        raise ValueError(f"action is {book.action!r}, expected snapshot or update")
    if not book.instId:
        raise ValueError("instId is empty")
    if not 0 < int(book.ts) < _LATEST_MS:
        raise ValueError(f"ts is {book.ts!r}, expected ms since the epoch")
    for _, _, orders in chain(book.bids, book.asks):
        if not 0 <= int(orders) < 2**31:
            raise ValueError(f"a level tells {orders!r} orders, expected a number of 32 bits")
    return book


def _levels(books: Sequence[_Book]) -> Iterator[_Level]:
    return chain.from_iterable(chain(book.bids, book.asks) for book in books)


def _numbers(values: Sequence[str]) -> pa.Array:
    """Return numbers as narrow decimals, or wide where one does not fit. ArrowInvalid: one is none."""
    strings = pa.array(values, pa.string())
    try:
        return strings.cast(NARROW)
    except pa.ArrowInvalid:
        return strings.cast(WIDE)


def _one_by_one(lines: Sequence[bytes], number: int) -> tuple[Batch, int]:
    """Read lines of which one has a number that no table holds: that one is told apart."""
    from mmdata.datasets.formats.rows import joined

    tables: list[pa.Table] = []
    bad: list[Bad] = []
    rows = messages = 0
    for line in lines:
        try:
            batch, found = _books([line], number + messages)
        except pa.ArrowInvalid as error:
            bad.append(Bad(rows, line.decode(errors="backslashreplace"), f"cannot be decoded: {error}"))
            continue
        bad += [told._replace(row=told.row + rows) for told in batch.bad]
        tables.append(batch.rows)
        rows += batch.rows.num_rows
        messages += found
    return Batch(joined(tables) if tables else pa.table({}), bad), messages
