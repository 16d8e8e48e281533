"""Tardis CSV: `incremental_book_L2`, `trades`, `book_snapshot_25` (and `_5`), `quotes`; reader and names.

Times are microseconds since the epoch, ``amount`` is absolute and 0 removes a level. Where the venue sent no
time, Tardis repeats ``local_timestamp``: equal times are read as none. There are no ids of book messages:
the book rests on Tardis' word that between two snapshots (``is_snapshot``) nothing is missing.

Source: docs.tardis.dev, "Downloadable CSV files, Data Types", read in November 2026.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.rows import Batch, Cells, Channel, Flags, Ints, every_row, joined, runs_of
from mmdata.datasets.formats.sources import Blocks
from mmdata.datasets.schema import TIME

EXCHANGES: Mapping[str, str] = {
    "binance": "binance",
    "binance-futures": "binance-usdm",
    "okex": "okx",
    "okex-swap": "okx",
    "okex-futures": "okx",
}
"""Tardis' names of exchanges, and ours."""
KEY = ("exchange", "symbol", "timestamp", "local_timestamp")
DEPTH = (*KEY, "is_snapshot", "side", "price", "amount")
TRADES = (*KEY, "id", "side", "price", "amount")
QUOTES = (*KEY, "ask_amount", "ask_price", "bid_price", "bid_amount")
if TYPE_CHECKING:
    from mmdata.datasets.formats.output import Output

_SIDES: tuple[tuple[str, str], ...] = (("bid", "bids"), ("ask", "asks"))


def book_columns(levels: int) -> tuple[str, ...]:
    """Return the columns of `book_snapshot_<levels>`."""
    cells = (
        (side, at, what) for at in range(levels) for side in ("asks", "bids") for what in ("price", "amount")
    )
    return (*KEY, *(f"{side}[{at}].{what}" for side, at, what in cells))


_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("incremental_book_L2", DEPTH),
    ("trades", TRADES),
    ("quotes", QUOTES),
    ("book_snapshot_25", book_columns(25)),
    ("book_snapshot_5", book_columns(5)),
)


def channels(
    sources: Sequence[Path], exchange: str | None, symbol: str | None
) -> tuple[str, list[Channel], list[Blocks]]:
    """Return exchange and channels of some files, one of each kind of data, and the files as they are read.

    UsageError: a file is of no such kind, or they are of several exchanges.
    """
    opened = [Blocks(path) for path in sources]
    heads = [_head(path) for path in sources]
    found = {name for _, name in heads if name is not None}
    if exchange is not None:
        found.add(exchange)
    if len(found) != 1:
        told = " and ".join(sorted(found)) or "no exchange that we know"
        raise UsageError(
            f"the files are of {told}, expected one exchange; import the files of each by themselves"
        )
    [own] = found
    kinds = [kind for kind, _ in heads]
    made = []
    for kind in dict.fromkeys(kinds):
        files = [blocks for blocks, of in zip(opened, kinds, strict=True) if of == kind]
        # Beside the changes of the book a snapshot is there to compare with; alone it is the book.
        audit = kind.startswith("book_snapshot") and "incremental_book_L2" in kinds
        made.append(_channel(kind, files, own, audit=audit))
    return own, made, opened


def _head(path: Path) -> tuple[str, str | None]:
    """Return which kind of data a file holds, and the exchange of its first row of one that we know."""
    lines = (line for _, block in Blocks(path) for line in block.splitlines())
    header = _cells(next(lines, b""))
    for kind, columns in _KINDS:
        if {*columns} <= {*header}:
            return kind, next((EXCHANGES[name] for name, *_ in map(_cells, lines) if name in EXCHANGES), None)
    raise UsageError(
        f"{path}: its first line is {','.join(header)[:120]!r}, expected the columns of one of "
        f"{', '.join(kind for kind, _ in _KINDS)}; nothing was imported"
    )


def _cells(line: bytes) -> list[str]:
    return line.decode(errors="replace").strip().split(",")


def _channel(kind: str, files: Sequence[Blocks], exchange: str, *, audit: bool) -> Channel:
    if kind == "incremental_book_L2":
        batches = _batches(files, exchange, DEPTH, _depth)
        return Channel("depth", batches, runs_of("symbol", "ts_event", "ts_recv", "is_snapshot"))
    if kind == "trades":
        # OKX's stream aggregates, and Tardis does not keep over how many trades.
        is_chained = exchange != "okx"
        batches = _batches(files, exchange, TRADES, partial(_trades, kind="trade" if is_chained else "agg"))
        begins = runs_of("symbol", "ts_recv")
        return Channel("trades", batches, begins, chained="trade_id" if is_chained else None)
    if kind == "quotes":
        return Channel("bbo", _batches(files, exchange, QUOTES, _quotes), every_row)
    columns = book_columns(int(kind.rpartition("_")[2]))
    read = partial(_books, levels=(len(columns) - len(KEY)) // 4, numbers=count(), audit=audit)
    batches = _batches(files, exchange, columns, read)
    return Channel("snapshots" if audit else "depth", batches, runs_of("book"))


def _batches(
    files: Sequence[Blocks], exchange: str, columns: tuple[str, ...], read: Callable[[Cells], Batch]
) -> Iterator[Batch]:
    for file in files:
        names: list[str] = []
        for _, whole in file:
            block = whole
            if not names:
                header, _, block = whole.partition(b"\n")
                names = header.decode(errors="replace").strip().split(",")
            if block.strip():
                cells = Cells(block, names, columns)
                _refuse_others(cells, exchange)
                yield read(cells)


def _refuse_others(cells: Cells, exchange: str) -> None:
    own = [name for name, ours in EXCHANGES.items() if ours == exchange]
    others = pc.invert(pc.is_in(cells.text("exchange"), value_set=pa.array(own)))
    if pc.any(others).as_py():
        found = cells.text("exchange").filter(others)[0].as_py()
        flags = others.to_numpy(zero_copy_only=False)
        cells.refuse(flags, f"exchange is {found!r}, expected {' or '.join(own)}, as in the first row")
    cells.refuse(pc.equal(cells.text("symbol"), "").to_numpy(zero_copy_only=False), "symbol is empty")


def _key(cells: Cells) -> dict[str, pa.Array]:
    event, recv = cells.times("timestamp"), cells.times("local_timestamp")
    return {
        "symbol": cells.text("symbol"),
        "ts_recv": pa.array(recv).cast(TIME),
        "ts_event": pa.array(event, mask=event == recv).cast(TIME),
    }


def _depth(cells: Cells) -> Batch:
    return cells.batch(
        _key(cells)
        | {
            "is_snapshot": cells.words("is_snapshot", {"true": True, "false": False}),
            "side": cells.words("side", {"bid": "bid", "ask": "ask"}),
            "price": cells.numbers("price"),
            "size": cells.numbers("amount"),
        }
    )


def _trades(cells: Cells, *, kind: str) -> Batch:
    number = cells.ids("id")
    covered = number if kind == "trade" else pa.nulls(len(cells), pa.int64())
    return cells.batch(
        _key(cells)
        | {
            "kind": pa.repeat(kind, len(cells)),
            "origin": pa.repeat("stream", len(cells)),
            "trade_id": number,
            "first_trade_id": covered,
            "last_trade_id": covered,
            "side": cells.words("side", {"buy": "buy", "sell": "sell"}),
            "price": cells.numbers("price"),
            "size": cells.numbers("amount"),
        }
    )


def _quotes(cells: Cells) -> Batch:
    return cells.batch(
        _key(cells)
        | {
            f"{side}_{ours}": cells.numbers(f"{side}_{theirs}", empty=True)
            for side in ("bid", "ask")
            for ours, theirs in (("price", "price"), ("size", "amount"))
        }
    )


def _books(cells: Cells, *, levels: int, numbers: Iterator[int], audit: bool) -> Batch:
    """Return books as rows of levels, bids before asks; an empty one is a row of nulls."""
    places = [(side, name, at) for side, name in _SIDES for at in range(levels)]
    prices = [cells.numbers(f"{name}[{at}].price", empty=True) for _, name, at in places]
    sizes = [cells.numbers(f"{name}[{at}].amount", empty=True) for _, name, at in places]
    wide = cells.batch(_key(cells) | {f"price{i}": column for i, column in enumerate(prices)}
        | {f"size{i}": column for i, column in enumerate(sizes)})  # fmt: skip
    rows = wide.rows
    known, book, place = _levels_of(rows, len(places))
    price, size = (
        joined([pa.table({"v": rows[f"{what}{i}"]}) for i in range(len(places))])["v"].take(
            pa.array(place * rows.num_rows + book)
        )
        for what in ("price", "size")
    )
    side = pa.array([side for side, _, _ in places]).take(pa.array(place, mask=~known))
    first = next(numbers)
    told = {name: rows[name].take(pa.array(book)) for name in ("symbol", "ts_recv", "ts_event")}
    told |= {"side": side, "price": price, "size": size, "book": pa.array(book + (first << 32))}
    if audit:
        level = np.array([at for _, _, at in places], np.int32)[place]
        told |= {"level": pa.array(level, mask=~known), "reason": pa.repeat("audit", len(book))}
    else:
        told |= {"is_snapshot": pa.repeat(True, len(book))}
    starts = np.searchsorted(book, np.arange(rows.num_rows + 1))
    return Batch(pa.table(told), [line._replace(row=int(starts[line.row])) for line in wide.bad])


def _levels_of(rows: pa.Table, places: int) -> tuple[Flags, Ints, Ints]:
    """Return of each level that is there whether it is known, its book and its place in it."""
    valid = np.column_stack([pc.is_valid(rows[f"price{i}"]).to_numpy() for i in range(places)])
    shown = valid.copy()
    shown[~valid.any(axis=1), 0] = True
    book, place = np.nonzero(shown)
    return valid[book, place], book, place


def write(
    root: Path, out: Output, exchange: str, symbol: str, start: int | None, end: int | None
) -> dict[str, Any]:
    """Write a symbol as Tardis CSV; see `mmdata.datasets.formats.tardis_export.write`."""
    from mmdata.datasets.formats.tardis_export import write as run  # it loads Polars and the book kernel

    return run(root, out, exchange, symbol, start, end)
