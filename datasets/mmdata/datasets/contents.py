"""`mmdata ls`: what a dataset holds, from names and footers; no table is read but `events`, to see holes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.layout import NO_SYMBOL, Part, encode_symbol, list_parts
from mmdata.datasets.market import is_gap, read_part, times
from mmdata.datasets.schema import TABLES
from mmdata.datasets.stores import (
    ObjectPath,
    Place,
    Root,
    date_folders,
    read_footer,
    root_of,
    size_of,
)
from mmdata.datasets.times import iso
from mmdata.datasets.writing import written_from

_CERTIFICATES, _CERTIFICATE = "certificates", "certificate.json"
_GROUP = 16  # files at once: handing over each by itself costs as much as its footer
_THREADS_LOCAL, _THREADS_REMOTE = 4, 32  # a footer here is work, there it is waiting


@dataclass(slots=True)
class Day:
    """A UTC date of a symbol."""

    date: str
    rows: dict[str, int] = field(default_factory=dict)
    """By table, narrow and wide together."""
    files: int = 0
    bytes: int = 0
    certified: bool = False
    open: bool = False
    """A recorder still writes it."""


@dataclass(slots=True)
class Holding:
    """What a dataset holds of one symbol."""

    exchange: str
    symbol: str
    days: list[Day] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    """In the order in which they are read."""
    begin: int | None = None
    """The first ``ts_recv``, ns."""
    end: int | None = None
    """The last one."""
    coverage: float | None = None
    """Share of the recorded time in which the book is proven; None: there is no book."""
    coverage_from: Literal["certificates", "events"] | None = None

    @property
    def rows(self) -> dict[str, int]:
        """Rows by table, in the order of the schema."""
        tables = {table: sum(day.rows.get(table, 0) for day in self.days) for table in TABLES}
        return {table: rows for table, rows in tables.items() if rows}

    @property
    def bytes(self) -> int:
        """Bytes of all its files."""
        return sum(day.bytes for day in self.days)

    @property
    def files(self) -> int:
        """How many files it has."""
        return sum(day.files for day in self.days)

    def to_json_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "exchange": self.exchange,
            "symbol": self.symbol,
            "begin": None if self.begin is None else iso(self.begin),
            "end": None if self.end is None else iso(self.end),
            "sessions": self.sessions,
            "rows": self.rows,
            "files": self.files,
            "bytes": self.bytes,
            "coverage": self.coverage,
            "coverage_from": self.coverage_from,
            "certified": all(day.certified for day in self.days),
            "open": any(day.open for day in self.days),
            "days": [
                {name: getattr(day, name) for name in ("date", "rows", "files", "bytes", "certified", "open")}
                for day in self.days
            ],
        }


@dataclass(slots=True)
class Catalog:
    """What a dataset holds."""

    root: str
    symbols: list[Holding]
    unreadable: list[str]
    """Files whose footer could not be read, a sentence each; their rows are not counted."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return the catalog as plain values."""
        return {
            "schema": 1,
            "root": self.root,
            "symbols": [holding.to_json_dict() for holding in self.symbols],
            "unreadable": self.unreadable,
        }


def catalog(root: Root, *, exchange: str | None = None, symbol: str | None = None) -> Catalog:
    """Return what the dataset at ``root`` holds: all of it, or of an exchange, of a symbol.

    Symbols are in order of their names; rows of an exchange that concern no single symbol are its symbol
    ``_``. Coverage is what the certificates say where every day of the symbol has one; else the time from
    each `synced` of its book to the next `gap`, by that from the first message of each session to the last.

    UsageError: there is no such folder. DiskError: the object store cannot be listed. A file that cannot be
    read is told in the answer.
    """
    place = root_of(root)
    if not place.exists() and not isinstance(place, ObjectPath):
        raise UsageError(f"{place}: there is no such folder; name the dataset's")
    parts = [part for table in TABLES for part in list_parts(place, table, exchange=exchange, symbol=symbol)]
    files = list(dict.fromkeys(part.path for part in parts))
    threads = _THREADS_REMOTE if isinstance(place, ObjectPath) else _THREADS_LOCAL
    with ThreadPoolExecutor(threads) as pool:
        groups = [files[at : at + _GROUP] for at in range(0, len(files), _GROUP)]
        read = pool.map(lambda group: [_footer(path) for path in group], groups)
        footers = dict(zip(files, chain.from_iterable(read), strict=True))
        unreadable = [f"{path}: {found}" for path, found in footers.items() if isinstance(found, str)]
        own: dict[tuple[str, str], list[Part]] = {}
        for part in parts:
            own.setdefault((part.partition.exchange, part.partition.symbol), []).append(part)
        held = [*pool.map(lambda pair: _holding(place, pair, own[pair], footers), sorted(own))]
    return Catalog(str(place), held, unreadable)


@dataclass(frozen=True, slots=True)
class _Footer:
    rows: int
    bytes: int
    last: int
    """The latest ``ts_recv``, ns."""


def _footer(path: Path) -> _Footer | str:
    try:
        footer = read_footer(path)
        column = footer.schema.names.index("ts_recv")
        groups = (footer.row_group(at).column(column).statistics for at in range(footer.num_row_groups))
        return _Footer(footer.num_rows, size_of(path), max(int(stats.max_raw) for stats in groups))
    except FileNotFoundError:
        return "was replaced, or removed, while it was looked at"
    except (pa.ArrowInvalid, OSError, ValueError, AttributeError) as error:
        return f"its footer cannot be read ({error})"


def _holding(
    root: Place, pair: tuple[str, str], parts: Sequence[Part], footers: dict[Path, _Footer | str]
) -> Holding:
    exchange, symbol = pair
    held = Holding(exchange, symbol)
    days: dict[str, Day] = {}
    counted: set[Path] = set()
    begun: dict[str, str] = {}
    for part in parts:
        begun[part.session] = min(begun.get(part.session, part.start), part.start)
        day = days.setdefault(part.partition.date, Day(part.partition.date))
        footer = footers[part.path]
        if isinstance(footer, str):
            continue
        rows = footer.rows if part.rows is None else part.rows
        day.rows[part.partition.table] = day.rows.get(part.partition.table, 0) + rows
        held.end = footer.last if held.end is None else max(held.end, footer.last)
        if part.path not in counted:
            counted.add(part.path)
            day.files += 1
            day.bytes += footer.bytes
    held.sessions = sorted(begun, key=lambda session: (begun[session], session))
    held.begin = min(map(_start_ns, parts), default=None)
    held.days = sorted(days.values(), key=lambda day: day.date)
    _mark_open(root, held)
    certificates = _mark_certified(root, held)
    if symbol != NO_SYMBOL:
        _cover(held, parts, footers, certificates)
    return held


def _start_ns(part: Part) -> int:
    """Return the first ``ts_recv`` that a part's name tells."""
    digits = "".join(filter(str.isdigit, part.start))
    whole = np.datetime64(
        f"{digits[:4]}-{digits[4:6]}-{digits[6:8]}T{digits[8:10]}:{digits[10:12]}:{digits[12:14]}", "ns"
    )
    return int(whole.astype(np.int64)) + int(digits[14:])


def _mark_open(root: Place, held: Holding) -> None:
    if isinstance(root, ObjectPath):
        return  # nobody records there
    recorder = written_from(root, held.exchange)
    for day in held.days:
        day.open = recorder is not None and day.date >= recorder[0]


class _Coverage(msgspec.Struct):
    window_ns: int
    proven_ns: int


class _Certificate(msgspec.Struct):
    """What is read of a certificate here."""

    coverage: _Coverage | None = None


def _mark_certified(root: Place, held: Holding) -> list[_Coverage]:
    """Mark the days that have a certificate; return what those say of coverage."""
    certified: dict[str, Place] = {
        folder.path.name.removeprefix("date="): folder.path / _CERTIFICATE
        for folder in date_folders(root / _CERTIFICATES, held.exchange, encode_symbol(held.symbol), None)
    }
    told: list[_Coverage] = []
    for day in held.days:
        path = certified.get(day.date)
        if path is None or not path.exists():
            continue
        day.certified = True
        try:
            certificate = msgspec.json.decode(path.read_bytes(), type=_Certificate)
        except msgspec.MsgspecError:
            continue  # `verify` says what is wrong with it
        if certificate.coverage is not None:
            told.append(certificate.coverage)
    return told


def _cover(
    held: Holding,
    parts: Iterable[Part],
    footers: dict[Path, _Footer | str],
    certificates: Sequence[_Coverage],
) -> None:
    """Set the coverage of a symbol with a book."""
    window = sum(told.window_ns for told in certificates)
    if window and len(certificates) == len(held.days):
        held.coverage = sum(told.proven_ns for told in certificates) / window
        held.coverage_from = "certificates"
        return
    spans: dict[str, tuple[int, int]] = {}
    for part in parts:
        footer = footers[part.path]
        if part.partition.table == "depth" and isinstance(footer, _Footer):
            first, last = spans.get(part.session, (_start_ns(part), footer.last))
            spans[part.session] = min(first, _start_ns(part)), max(last, footer.last)
    if not spans:
        return
    proven = recorded = 0
    events = [part for part in parts if part.partition.table == "events"]
    begins = sorted(first for first, _ in spans.values())
    for session, (first, last) in spans.items():
        # A compacted file tells when the last of its sessions ended.
        last = min([last, *(begin for begin in begins if begin > first)])
        own = [part for part in events if part.session == session]
        end, valid = _valid_ns(own, first, last)
        proven += valid
        recorded += max(end - first, 0)
    held.coverage = proven / recorded if recorded else 0.0
    held.coverage_from = "events"


def _valid_ns(events: Sequence[Part], first: int, last: int) -> tuple[int, int]:
    """Return when a session's book ended, and for how many ns the events say that it was valid."""
    tables = []
    for part in events:
        try:
            tables.append(read_part(part, ["ts_recv", "kind", "channel", "detail"]))
        except DatasetError:
            continue  # told as unreadable
    if not tables:
        return last, 0
    rows = pa.concat_tables(tables)
    ended = rows.filter(pc.equal(rows["kind"], "session_end"))
    if ended.num_rows:
        last = min(last, int(times(ended["ts_recv"]).max()))
    turns = pc.or_(pc.equal(rows["kind"], "synced"), is_gap(rows))
    rows = rows.filter(pc.and_(turns, pc.equal(rows["channel"], "depth")))
    when = np.clip(times(rows["ts_recv"]), first, last)
    valid = pc.equal(rows["kind"], "synced").to_numpy()
    until = np.concatenate((when[1:], [last]))
    return last, int(np.maximum(until - when, 0)[valid].sum())
