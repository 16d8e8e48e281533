"""A symbol as Tardis CSV: what the proven book is made of, in the order in which it may be known.

A reader of the format replaces its book at ``is_snapshot`` and else sets levels; it knows no ids. So a book
that is spliced from a REST snapshot and the stream is told as that: the snapshot when the message came that
made it valid, then the messages that waited for it. What belongs to no proven book is left out. Messages
without ids are told as they came.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets._kernel import (
    BOOK_ID,
    DIFF,
    GAP,
    GAP_OPEN,
    PENDING,
    REPLACE,
    SESSION,
    SNAPSHOT,
    SPLICE,
    SUSPENDED,
    VALID,
    Columns,
)
from mmdata.datasets.book import Book
from mmdata.datasets.chain import CHAINS, CONTINUES, NO_ID, REPEAT, ChainRule, bridges, classify
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.output import Output
from mmdata.datasets.formats.plain import text_of
from mmdata.datasets.formats.rows import Flags, Ints
from mmdata.datasets.formats.tardis import DEPTH, QUOTES, TRADES, book_columns
from mmdata.datasets.layout import Part, date_name, encode_symbol, list_parts
from mmdata.datasets.market import FRAME_BITS, NO_TIME, ids, read_part, session_order, times
from mmdata.datasets.schema import EXACT_TABLES, arrow_schema

_ALWAYS = (-(2**62), 2**62)
_DAY_US = 86_400 * 1_000_000
_CHUNK_ROWS = 1 << 18
_BOOK_LEVELS = 25
_CELLS = tuple(
    (side, at, what) for at in range(_BOOK_LEVELS) for side in ("ask", "bid") for what in ("price", "size")
)


def write(
    root: Path, out: Output, exchange: str, symbol: str, start: int | None, end: int | None
) -> dict[str, Any]:
    """Write what was received of one symbol in ``[start, end)`` (ns, None: open), a file a kind and UTC day.

    ``<exchange>_<kind>_<date>_<symbol>.csv.gz``, as Tardis names them. Returns what there is to say of it.
    The rows of the symbol are in memory at once. UsageError: Tardis has no name for the exchange.
    """
    told = _exchange_of(exchange, symbol)
    tables = {
        table: list_parts(root, table, exchange=exchange, symbol=symbol)
        for table in ("depth", "snapshots", "events", "trades", "bbo")
    }
    sessions = session_order(tables)
    span = (_ALWAYS[0] if start is None else start, _ALWAYS[1] if end is None else end)
    kinds = {
        "incremental_book_L2": _book_rows(tables, sessions, CHAINS[exchange], span),
        "trades": _trade_rows(tables["trades"], sessions, span),
        "quotes": _quote_rows(tables["bbo"], sessions, span),
        "book_snapshot_25": _audit_rows(tables["snapshots"], sessions, span),
    }
    for kind, rows in kinds.items():
        whole = rows.select(pl.lit(told).alias("exchange"), pl.lit(symbol).alias("symbol"), pl.all())
        _write_days(whole, out, f"{told}_{kind}", encode_symbol(symbol))
    return {}


def _exchange_of(exchange: str, symbol: str) -> str:
    if exchange == "okx":
        kind = symbol.rpartition("-")[2]
        return "okex-swap" if kind == "SWAP" else "okex-futures" if kind.isdigit() else "okex"
    names = {"binance": "binance", "binance-usdm": "binance-futures"}
    if exchange not in names:
        raise UsageError(f"exchange {exchange!r} has no name at Tardis, expected one of {', '.join(CHAINS)}")
    return names[exchange]


def _write_days(rows: pl.DataFrame, out: Output, name: str, symbol: str) -> None:
    """Write a file for each UTC date of arrival; one whose date comes again goes on in its file."""
    days = (rows["local_timestamp"] // _DAY_US).to_numpy()
    for day in np.unique(days).tolist():
        own = rows.filter(pl.Series(days == day))
        file_name = f"{name}_{date_name(day * _DAY_US * 1_000)}_{symbol}.csv.gz"
        # The same rows make the same bytes: neither a name nor a time stands in the file.
        with (
            out.path(file_name).open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as file,
        ):
            for at in range(0, len(own), _CHUNK_ROWS):
                text = own.slice(at, _CHUNK_ROWS).write_csv(include_header=at == 0, quote_style="never")
                file.write(text.encode())
        out.count(file_name, len(own))


# --- tables


def _read(parts: Sequence[Part], table: str, sessions: Sequence[str]) -> tuple[pa.Table, Ints]:
    """Return the rows of a table in order, decimals wide, and each one's place in the order of everything."""
    schema = arrow_schema(table, wide=table in EXACT_TABLES)
    rows = pa.concat_tables([schema.empty_table(), *(read_part(part).cast(schema) for part in parts)])
    index = pc.index_in(rows["session"], value_set=pa.array(sessions, pa.string()))
    place = (np.asarray(index.to_numpy(), np.int64) << FRAME_BITS) | np.asarray(rows["frame"].to_numpy())
    order = np.argsort(place, kind="stable")
    if (np.diff(order) < 0).any():
        rows = rows.take(pa.array(order))
    return rows.combine_chunks(), place[order]


def _stamps(rows: pa.Table, recv: Ints | None = None) -> dict[str, Ints]:
    """Return ``timestamp`` and ``local_timestamp`` in µs; where the venue sent no time, both are ours."""
    received = (times(rows["ts_recv"]) if recv is None else recv) // 1_000
    event = times(rows["ts_event"])
    return {"timestamp": np.where(event == NO_TIME, received, event // 1_000), "local_timestamp": received}


def _inside(rows: pa.Table, span: tuple[int, int]) -> Flags:
    received = times(rows["ts_recv"])
    return np.asarray((received >= span[0]) & (received < span[1]))


def _trade_rows(parts: Sequence[Part], sessions: Sequence[str], span: tuple[int, int]) -> pl.DataFrame:
    """Return single trades, or aggregates where there are none; nothing that was asked for later."""
    rows, _ = _read(parts, "trades", sessions)
    kinds = pc.unique(rows["kind"]).to_pylist()
    chosen = pc.and_(
        pc.equal(rows["origin"], "stream"), pc.equal(rows["kind"], "trade" if "trade" in kinds else "agg")
    )
    rows = rows.filter(pc.and_(chosen, pa.array(_inside(rows, span))))
    return pl.DataFrame(
        {
            **_stamps(rows),
            "id": pl.Series(rows["trade_id"]),
            "side": pl.Series(rows["side"]),
            "price": text_of(rows["price"]),
            "amount": text_of(rows["size"]),
        }
    ).select(TRADES[2:])


def _quote_rows(parts: Sequence[Part], sessions: Sequence[str], span: tuple[int, int]) -> pl.DataFrame:
    rows, _ = _read(parts, "bbo", sessions)
    rows = rows.filter(pa.array(_inside(rows, span)))
    names = {
        f"{side}_{what}": ours
        for side in ("bid", "ask")
        for what, ours in (("price", "price"), ("amount", "size"))
    }
    cells = {name: text_of(rows[f"{name[:3]}_{ours}"]) for name, ours in names.items()}
    return pl.DataFrame({**_stamps(rows), **cells}).select(QUOTES[2:])


def _audit_rows(parts: Sequence[Part], sessions: Sequence[str], span: tuple[int, int]) -> pl.DataFrame:
    """Return the best 25 levels of each audit, one row each."""
    rows, place = _read(parts, "snapshots", sessions)
    chosen = pc.equal(rows["reason"], "audit").to_numpy() & _inside(rows, span)
    rows, place = rows.filter(pa.array(chosen)), place[chosen]
    begins = np.flatnonzero(np.append(True, place[1:] != place[:-1])) if len(place) else place
    book = np.cumsum(np.append(True, place[1:] != place[:-1])[: len(place)]) - 1
    columns = {}
    level, side = rows["level"], rows["side"]
    for name, at, what in _CELLS:
        here = pc.fill_null(pc.and_(pc.equal(level, at), pc.equal(side, name)), False).to_numpy()
        row = np.full(len(begins), -1)
        row[book[here]] = np.flatnonzero(here)
        values = rows[what].take(pa.array(row, mask=row < 0))
        columns[f"{name}s[{at}].{'price' if what == 'price' else 'amount'}"] = text_of(values)
    heads = rows.take(pa.array(begins))
    return pl.DataFrame({**_stamps(heads), **columns}).select(book_columns(_BOOK_LEVELS)[2:])


# --- the book


@dataclass(frozen=True)
class _Messages:
    """Book messages and marks in order; the levels of each are rows of ``levels``."""

    columns: Columns
    """Ids and kinds; no levels."""
    first_row: Ints
    last_row: Ints
    """(n,) rows of each in ``levels``; equal where there is none."""
    ts_recv: Ints
    levels: pa.Table


def _book_rows(
    tables: dict[str, list[Part]], sessions: Sequence[str], chain: ChainRule, span: tuple[int, int]
) -> pl.DataFrame:
    messages = _messages(tables, sessions)
    told = np.array(_applied(messages.columns, chain), np.int64).reshape(-1, 2)
    what, when = told[:, 0], messages.ts_recv[told[:, 1]] if len(told) else told[:, 0]
    counts = messages.last_row[what] - messages.first_row[what]
    ends = np.cumsum(counts)
    rows = np.repeat(messages.first_row[what] - (ends - counts), counts) + np.arange(int(counts.sum()))
    levels = messages.levels.take(pa.array(rows))
    recv = np.repeat(when, counts)
    frame = pl.DataFrame(
        {
            **_stamps(levels, recv),
            "is_snapshot": np.repeat(messages.columns.kind[what] != DIFF, counts),
            "side": pl.Series(levels["side"]),
            "price": text_of(levels["price"]),
            "amount": text_of(levels["size"]),
        }
    ).select(DEPTH[2:])
    inside = (recv >= span[0]) & (recv < span[1])
    before = recv < span[0]
    if not before.any():
        return frame.filter(pl.Series(inside))
    begun = _book_at(frame.filter(pl.Series(before)), span[0] // 1_000, chain)
    return pl.concat([begun, frame.filter(pl.Series(inside))])


def _book_at(before: pl.DataFrame, moment: int, chain: ChainRule) -> pl.DataFrame:
    """Return the book that some rows leave, as a snapshot at a moment (µs)."""
    snapshots = before["is_snapshot"]
    starts = (snapshots & ~snapshots.shift(1, fill_value=False)).arg_true()
    if starts.is_empty():
        return before.clear()
    last = before.slice(int(starts[-1]))
    book = last.group_by("side", "price", maintain_order=True).last().filter(pl.col("amount") != "0")
    book = book.with_columns(
        pl.lit(moment).alias("timestamp"),
        pl.lit(moment).alias("local_timestamp"),
        pl.lit(True).alias("is_snapshot"),
        pl.col("price").cast(pl.Decimal(38, 18)).alias("value"),
    )
    limit = chain.max_depth or len(book)
    bids = book.filter(pl.col("side") == "bid").sort("value", descending=True).head(limit)
    asks = book.filter(pl.col("side") == "ask").sort("value").head(limit)
    return pl.concat([bids, asks]).select(before.columns)


def _messages(tables: dict[str, list[Part]], sessions: Sequence[str]) -> _Messages:
    depth, depth_place = _read(tables["depth"], "depth", sessions)
    books, book_place = _read(tables["snapshots"], "snapshots", sessions)
    wanted = pc.not_equal(books["reason"], "audit").to_numpy()
    books, book_place = books.filter(pa.array(wanted)), book_place[wanted]
    events, event_place = _read(tables["events"], "events", sessions)
    is_gap = pc.fill_null(
        pc.and_(pc.equal(events["kind"], "gap"), pc.equal(events["channel"], "depth")), False
    )
    events, event_place = events.filter(is_gap), event_place[is_gap.to_numpy()]

    ends = np.flatnonzero(depth["is_last"].to_numpy()) + 1
    heads = depth.take(pa.array(ends - 1))
    starts = np.append(0, ends[:-1]) if len(ends) else ends
    begins = np.flatnonzero(np.append(True, book_place[1:] != book_place[:-1])[: len(book_place)])
    stops = np.append(begins[1:], len(book_place)) if len(begins) else begins
    book_heads = books.take(pa.array(begins))
    offset = depth.num_rows
    none = np.zeros(len(events), np.int64)
    marks = np.arange(len(sessions), dtype=np.int64) << FRAME_BITS
    no_ids = [np.full(n, NO_ID) for n in (len(sessions), len(events), len(begins))]
    kind = (
        np.full(len(sessions), SESSION),
        np.where(heads["is_snapshot"].to_numpy(), REPLACE, DIFF),
        np.full(len(begins), SPLICE),
        np.where(pc.is_valid(events["next_id"]).to_numpy(), GAP, GAP_OPEN),
    )
    order = np.concatenate((marks, depth_place[ends - 1], book_place[begins], event_place))
    rank = np.lexsort((np.repeat([0, 1, 1, 2], [len(own) for own in kind]), order))

    def ranked(*pieces: Ints) -> Ints:
        return np.concatenate(pieces)[rank].astype(np.int64)

    columns = Columns(
        kind=np.concatenate(kind)[rank].astype(np.uint8),
        first_id=ranked(no_ids[0], ids(heads["first_id"]), no_ids[2], no_ids[1]),
        last_id=ranked(no_ids[0], ids(heads["last_id"]), ids(book_heads["last_id"]), no_ids[1]),
        prev_id=ranked(no_ids[0], ids(heads["prev_id"]), no_ids[2], no_ids[1]),
        start=np.zeros(len(rank) + 1, np.int64),
        side=np.empty(0, np.int8),
        price=np.empty(0, np.int64),
        size=np.empty(0, np.int64),
    )
    names = ["ts_event", "side", "price", "size"]
    levels = pa.concat_tables([depth.select(names), books.select(names)]).combine_chunks()
    empty = pc.is_null(levels["price"]).to_numpy()
    first_row = ranked(0 * marks, starts, begins + offset, none)
    last_row = ranked(0 * marks, ends, stops + offset, none)
    has_none = np.append(empty, True)[first_row] & (last_row - first_row == 1)
    return _Messages(
        columns,
        first_row,
        np.where(has_none, first_row, last_row),
        ranked(0 * marks, times(heads["ts_recv"]), times(book_heads["ts_recv"]), times(events["ts_recv"])),
        levels,
    )


def _applied(columns: Columns, chain: ChainRule) -> list[tuple[int, int]]:
    """Return the messages that the proven book is made of, each with the message at which it may be known."""
    told: list[tuple[int, int]] = []
    book = Book(columns, chain)
    state = book.state
    kinds, last_ids = columns.kind.tolist(), columns.last_id.tolist()
    for at, kind in enumerate(kinds):
        was_valid = bool(state[VALID]) or bool(state[SUSPENDED])
        book_id, pending = int(state[BOOK_ID]), int(state[PENDING])
        snapshot = at if kind == SPLICE else int(state[SNAPSHOT])
        book.step(at)
        if kind == REPLACE or (kind == DIFF and last_ids[at] == NO_ID):
            told.append((at, at))
        elif was_valid:
            if kind == DIFF and state[VALID] and state[BOOK_ID] != book_id:
                told.append((at, at))
        elif state[VALID]:
            waiting = range(at if pending < 0 else pending, at + 1)
            told += [
                (message, at) for message in (snapshot, *_beyond(columns, chain.rule, snapshot, waiting))
            ]
    return told


def _beyond(columns: Columns, rule: int, snapshot: int, waiting: Sequence[int]) -> Iterator[int]:
    """Yield the waiting messages that a book takes which starts from a snapshot."""
    book_id = int(columns.last_id[snapshot])
    started = False
    for at in waiting:
        if columns.kind[at] != DIFF:
            continue
        chained = (int(columns.first_id[at]), int(columns.last_id[at]), int(columns.prev_id[at]))
        verdict = (classify if started else bridges)(rule, book_id, *chained)
        if verdict == REPEAT:
            continue
        assert verdict == CONTINUES  # the book is valid
        yield at
        book_id, started = chained[1], True
