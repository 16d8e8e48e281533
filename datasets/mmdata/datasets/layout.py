"""Where a dataset keeps its files: names of partitions and parts, and the order they are read in.

``<root>/<table>/exchange=<id>/symbol=<symbol>/date=<UTC date>/<first ts_recv>-<session>-<n>.parquet``

A compacted file stands for several parts, with ``compacted`` in place of a session: it is listed as the
parts of its sessions, each with its stretch of rows, so that readers need not know of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import cast
from urllib.parse import quote, unquote

from mmdata.datasets.errors import DatasetError
from mmdata.datasets.stores import Folder, Place, Root, children, date_folders, root_of
from mmdata.datasets.stretches import COMPACTED, read_stretches

NO_SYMBOL = "_"
"""The symbol of rows that concern no single one."""
STAGING = ".staging"
CAPTURES = ".captures"
WIDE_SUFFIX = "-wide"

_ATTEMPTS = 10  # at a listing: each is spoilt by another folder that is replaced in just that moment
_PART = re.compile(r"(?P<start>\d{8}T\d{6}\.\d{9}Z)-(?P<session>.+)-(?P<n>\d{6})\.parquet")
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Partition:
    """One folder of a table: an exchange, a symbol, a UTC date of ``ts_recv``."""

    table: str
    wide: bool
    exchange: str
    symbol: str
    date: str

    @property
    def folder(self) -> Path:
        """The partition's folder, below the dataset's root."""
        name = self.table + (WIDE_SUFFIX if self.wide else "")
        symbol = encode_symbol(self.symbol)
        return Path(name, f"exchange={self.exchange}", f"symbol={symbol}", f"date={self.date}")


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one session in one published file: all of it, or a stretch of a compacted one."""

    partition: Partition
    start: str
    session: str
    n: int
    path: Path
    """Of a dataset in an object store an `ObjectPath`: `mmdata.datasets.stores` opens either."""
    offset: int = 0
    """The first of its rows in the file."""
    rows: int | None = None
    """How many rows of a compacted file; None: the whole of a file that is not compacted."""
    widened: bool = False
    """It lies in a wide file, and was published narrow."""


def is_part_name(name: str) -> bool:
    """Tell whether a file is named as a published part is."""
    return _PART.fullmatch(name) is not None


def is_compacted(path: Place) -> bool:
    """Tell by its name whether a file stands for several parts."""
    match = _PART.fullmatch(path.name)
    return match is not None and match["session"] == COMPACTED


def first_date(session: str) -> str:
    """Return the first UTC date that rows of ``session`` can have; empty where its name does not tell.

    A recording's rows cannot be older than its start, less a day: clocks step.
    """
    begun = re.match(r"(\d{4})(\d\d)(\d\d)T", session)
    return str(date(*map(int, begun.groups())) - timedelta(days=1)) if begun else ""


def encode_symbol(symbol: str) -> str:
    """Return ``symbol`` as a folder name: what a path cannot hold is percent-encoded.

    >>> encode_symbol("BTC-USDT-SWAP"), encode_symbol("币安/USDT")
    ('BTC-USDT-SWAP', '%E5%B8%81%E5%AE%89%2FUSDT')
    """
    return quote(symbol, safe="")


def time_name(ts_ns: int) -> str:
    """Return nanoseconds since the epoch as the name of a part begins.

    >>> time_name(1_795_248_000_123_456_789)
    '20261121T080000.123456789Z'
    """
    moment = datetime.fromtimestamp(ts_ns // _NS, UTC)
    return f"{moment:%Y%m%dT%H%M%S}.{ts_ns % _NS:09d}Z"


def date_name(ts_ns: int) -> str:
    """Return the UTC date of nanoseconds since the epoch, ``YYYY-MM-DD``."""
    return f"{datetime.fromtimestamp(ts_ns // _NS, UTC):%Y-%m-%d}"


def part_name(first_ts_recv: int, session: str, n: int) -> str:
    """Return the file name of part ``n`` (from 0) of ``session`` whose first row is at ``first_ts_recv``."""
    return f"{time_name(first_ts_recv)}-{session}-{n:06d}.parquet"


def list_parts(
    root: Root,
    table: str,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    since: str = "",
    session: str | None = None,
    foreign: list[Path] | None = None,
) -> list[Part]:
    """Return the published parts of ``table``, narrow and wide, in the order that they are read.

    Parts of one session follow their number; sessions follow the earliest start among their parts (the
    ids of imported sessions are hashes and say nothing about time). ``since`` leaves out earlier dates. An
    empty list: nothing is there.

    Neighbours in a compacted file are one part. A compacted file that is damaged is listed as a part of
    the session ``compacted``, whichever session is asked for. A file whose name is not ours is a
    DatasetError, or is added to ``foreign`` and left out.
    """
    for _ in range(_ATTEMPTS):
        try:
            parts = _listed(root, table, exchange, symbol, date, since, foreign)
            break
        except FileNotFoundError as error:  # a folder was replaced between listing and looking
            replaced = error
    else:
        raise DatasetError(
            f"{replaced.filename}: files are replaced as fast as they are listed, or the name leads nowhere; "
            f"nothing was read"
        ) from replaced
    begun: dict[str, str] = {}
    for part in parts:
        begun[part.session] = min(begun.get(part.session, part.start), part.start)
    ranked = sorted(
        parts, key=lambda part: (begun[part.session], part.session, part.n, part.path, part.offset)
    )
    return fused(part for part in ranked if session in (None, part.session) or part.session == COMPACTED)


def fused(parts: Iterable[Part], *, sessions: bool = False) -> list[Part]:
    """Join neighbours that follow one another in one file; with ``sessions`` across sessions too."""
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.rows is not None
            and part.rows is not None
            and (last.path, last.offset + last.rows) == (part.path, part.offset)
            and (sessions or last.session == part.session)
        ):
            joined[-1] = replace(last, start=min(last.start, part.start), rows=last.rows + part.rows)
        else:
            joined.append(part)
    return joined


def list_partitions(
    root: Root,
    table: str,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
) -> list[Partition]:
    """Return the partitions of ``table`` that have a folder, narrow and wide."""
    return [
        _partition(table, wide, folder.path)
        for wide, folder in _folders(root, table, exchange, symbol, date, "")
    ]


def _listed(
    root: Root,
    table: str,
    exchange: str | None,
    symbol: str | None,
    date: str | None,
    since: str,
    foreign: list[Path] | None,
) -> list[Part]:
    """Return each part once. FileNotFoundError: a folder was replaced meanwhile.

    A narrow part that a wide compacted file holds as well is left out: it is on its way out.
    """
    parts = [
        part
        for wide, folder in _folders(root, table, exchange, symbol, date, since)
        for part in _parts(table, wide, folder, foreign)
    ]
    widened = {_identity(part) for part in parts if part.widened}
    return [part for part in parts if part.partition.wide or _identity(part) not in widened]


def _identity(part: Part) -> tuple[str, ...]:
    partition = part.partition
    return partition.exchange, partition.symbol, partition.date, part.start, part.session, str(part.n)


def _folders(
    root: Root, table: str, exchange: str | None, symbol: str | None, date: str | None, since: str
) -> Iterator[tuple[bool, Folder]]:
    """Yield the folders of a table's dates, narrow before wide, and whether each is wide.

    In that order, since narrow rows become wide ones, never the other way round.
    """
    encoded = None if symbol is None else encode_symbol(symbol)
    for wide in (False, True):
        top = root_of(root) / (table + (WIDE_SUFFIX if wide else ""))
        for folder in date_folders(top, exchange, encoded, date):
            if folder.path.name.removeprefix("date=") >= since:
                yield wide, folder


def _parts(table: str, wide: bool, folder: Folder, foreign: list[Path] | None) -> Iterator[Part]:
    for path in folder.parquet_files():
        if foreign is not None and not is_part_name(path.name):
            foreign.append(cast(Path, path))
            continue
        part = _part(table, wide, path)
        if part.session == COMPACTED:
            yield from _stretches(part)
        else:
            yield part


def _stretches(whole: Part) -> Iterator[Part]:
    try:
        stretches = read_stretches(whole.path)
    except DatasetError:
        yield whole  # whoever reads it says what is wrong with it
        return
    offset = 0
    for stretch in stretches:
        yield Part(
            whole.partition,
            stretch.start,
            stretch.session,
            stretch.n,
            whole.path,
            offset,
            stretch.rows,
            widened=whole.partition.wide and not stretch.wide,
        )
        offset += stretch.rows


def list_stretches(partition: Partition, path: Path) -> list[Part]:
    """Return what a compacted file holds, wherever it lies, as `list_parts` does once it is in its place."""
    return fused(_stretches(_part_of(partition, path)))


def sessions_in(path: Path) -> set[str]:
    """Return the sessions that a published file holds rows of. DatasetError: the file does not say."""
    match = _PART.fullmatch(path.name)
    if match is None:
        return set()
    if match["session"] != COMPACTED:
        return {match["session"]}
    return {stretch.session for stretch in read_stretches(path)}


def list_symbols(root: Root) -> list[tuple[str, str]]:
    """Return the (exchange, symbol) pairs that the dataset holds rows of, in order of their names."""
    found = {
        (of_exchange.name.removeprefix("exchange="), unquote(of_symbol.name.removeprefix("symbol=")))
        for table in children(root_of(root))
        if not table.name.startswith(".")
        for of_exchange in children(table)
        if of_exchange.name.startswith("exchange=")
        for of_symbol in children(of_exchange)
        if of_symbol.name.startswith("symbol=")
    }
    return sorted(pair for pair in found if pair[1] != NO_SYMBOL)


def _part(table: str, wide: bool, path: Place) -> Part:
    return _part_of(_partition(table, wide, path.parent), path)


def _part_of(partition: Partition, path: Place) -> Part:
    match = _PART.fullmatch(path.name)
    if match is None:
        raise DatasetError(
            f"{path}: the name is not <first ts_recv>-<session>-<n>.parquet, so the place of its rows is "
            f"unknown; only mmdata publishes below a table: move the file away"
        )
    return Part(partition, match["start"], match["session"], int(match["n"]), cast(Path, path))


def _partition(table: str, wide: bool, folder: Place) -> Partition:
    date, symbol, exchange = (
        path.name.partition("=")[2] for path in (folder, folder.parent, folder.parent.parent)
    )
    return Partition(table, wide, exchange, unquote(symbol), date)
