"""Where a dataset keeps its files: names of partitions and parts, and the order they are read in.

``<root>/<table>/exchange=<id>/symbol=<symbol>/date=<UTC date>/<first ts_recv>-<session>-<n>.parquet``
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from mmdata.datasets.errors import DatasetError

NO_SYMBOL = "_"
"""The symbol of rows that concern no single one."""
STAGING = ".staging"
CAPTURES = ".captures"
WIDE_SUFFIX = "-wide"

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
    """One published file: which rows it holds is told by its name."""

    partition: Partition
    start: str
    session: str
    n: int
    path: Path


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
    root: Path,
    table: str,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    since: str = "",
    session: str | None = None,
) -> list[Part]:
    """Return the published parts of ``table``, narrow and wide, in the order that they are read.

    Parts of one session follow their number; sessions follow the earliest start among their parts (the
    ids of imported sessions are hashes and say nothing about time). ``since`` leaves out earlier dates. An
    empty list: nothing is there.
    """
    parts = [
        part
        for wide in (False, True)
        for folder in _partitions(
            root / (table + (WIDE_SUFFIX if wide else "")), exchange, symbol, date, since
        )
        for part in _parts(table, wide, folder, session)
    ]
    begun: dict[str, str] = {}
    for part in parts:
        begun[part.session] = min(begun.get(part.session, part.start), part.start)
    return sorted(parts, key=lambda part: (begun[part.session], part.session, part.n, part.path))


def _partitions(
    base: Path, exchange: str | None, symbol: str | None, date: str | None, since: str
) -> Iterator[Path]:
    """Yield the folders of a table's dates; without a pattern, so that no name is taken for one."""
    for of_exchange in _children(base, "exchange=", exchange):
        encoded = None if symbol is None else encode_symbol(symbol)
        for of_symbol in _children(of_exchange, "symbol=", encoded):
            for of_date in _children(of_symbol, "date=", date):
                if of_date.name.removeprefix("date=") >= since:
                    yield of_date


def _children(folder: Path, key: str, value: str | None) -> Iterable[Path]:
    if value is not None:
        child = folder / f"{key}{value}"
        return (child,) if child.is_dir() else ()
    try:
        return [child for child in folder.iterdir() if child.name.startswith(key)]
    except FileNotFoundError:
        return ()


def _parts(table: str, wide: bool, folder: Path, session: str | None) -> Iterator[Part]:
    for path in folder.iterdir():
        if path.suffix == ".parquet" and (session is None or f"-{session}-" in path.name):
            yield _part(table, wide, path)


def list_symbols(root: Path) -> list[tuple[str, str]]:
    """Return the (exchange, symbol) pairs that the dataset holds rows of, in order of their names."""
    found = {
        (folder.parent.name.removeprefix("exchange="), unquote(folder.name.removeprefix("symbol=")))
        for folder in root.glob("[!.]*/exchange=*/symbol=*")
    }
    return sorted(pair for pair in found if pair[1] != NO_SYMBOL)


def _part(table: str, wide: bool, path: Path) -> Part:
    match = _PART.fullmatch(path.name)
    if match is None:
        raise DatasetError(
            f"{path}: the name is not <first ts_recv>-<session>-<n>.parquet, so the place of its rows is "
            f"unknown; only mmdata publishes below a table: move the file away"
        )
    exchange, symbol, date = (parent.name.partition("=")[2] for parent in reversed(path.parents[:3]))
    partition = Partition(table, wide, exchange, unquote(symbol), date)
    return Part(partition, match["start"], match["session"], int(match["n"]), path)
