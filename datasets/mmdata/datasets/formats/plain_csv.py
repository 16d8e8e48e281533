"""Plain CSV: a file a table, symbol and UTC day, with every column of the table; nothing is lost.

``<out>/<exchange>/orderbook_ws_depth_<SYMBOL>_<YYYYMMDD>.csv`` and so on, see `PREFIXES`. Prices and sizes
are in fixed decimals, 8 or 18 digits behind the point; times are ns since the epoch, UTC; a missing value
is empty, an empty text ``""``. Rows stand in the order of everything.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from mmdata.datasets.certificate.certifying import certify_days, list_days
from mmdata.datasets.chain import CHAINS
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.formats.output import Output
from mmdata.datasets.layout import NO_SYMBOL, Part, Partition, encode_symbol, list_parts
from mmdata.datasets.locks import session_lock, symbol_lock
from mmdata.datasets.market import reading
from mmdata.datasets.published import Published, by_date
from mmdata.datasets.schema import EXACT_TABLES, arrow_schema, exact_columns
from mmdata.datasets.stretches import row_groups
from mmdata.datasets.version import version

PREFIXES: Final[Mapping[str, str]] = {
    "depth": "orderbook_ws_depth",
    "snapshots": "orderbook_rest_snapshot",
    "trades": "trades_ws",
    "bbo": "bbo_ws",
    "events": "events",
    "instruments": "instruments",
    "quarantine": "quarantine",
}
"""How the names of a table's files begin."""
_NAME = re.compile(rf"(?P<prefix>{'|'.join(PREFIXES.values())})_(?P<symbol>.+)_(?P<date>\d{{8}})\.csv")
_BLOCK = 16 << 20
_PART_ROWS = 1 << 20
_NARROW_DIGITS = 8
_FRACTION = re.compile(rb"(?:^|,)-?\d+\.(\d+)")


def file_name(table: str, symbol: str, date: str) -> str:
    """Return the name of a file; what a path cannot hold of a symbol is percent-encoded.

    >>> file_name("depth", "BTCUSDT", "2026-11-21")
    'orderbook_ws_depth_BTCUSDT_20261121.csv'
    """
    return f"{PREFIXES[table]}_{encode_symbol(symbol)}_{date.replace('-', '')}.csv"


def write(
    root: Path, out: Output, exchange: str, symbol: str, start: int | None, end: int | None
) -> dict[str, Any]:
    """Write all tables of one symbol, rows received in ``[start, end)`` (ns, None: open), a file a day.

    Returns what there is to say of it: nothing. DatasetError: a file is damaged, or was replaced meanwhile.
    """
    for table in PREFIXES:
        days: dict[str, list[Part]] = {}
        for part in list_parts(root, table, exchange=exchange, symbol=symbol):
            days.setdefault(part.partition.date, []).append(part)
        for date, parts in days.items():
            _write_day(parts, out, f"{exchange}/{file_name(table, symbol, date)}", table, start, end)
    return {}


def _write_day(
    parts: Sequence[Part], out: Output, name: str, table: str, start: int | None, end: int | None
) -> None:
    import polars as pl

    schema = arrow_schema(table, wide=any(part.partition.wide for part in parts))
    count = 0
    for part in parts:
        with reading(part):
            for group in row_groups(part):
                rows = _received(group.select(schema.names).cast(schema), start, end)
                if not rows.num_rows:
                    continue
                frame = pl.from_arrow(_times_as_numbers(rows))
                assert isinstance(frame, pl.DataFrame)
                path = out.path(name)
                with path.open("ab") as file:
                    frame.write_csv(file, include_header=count == 0)
                count += rows.num_rows
    if count:
        out.count(name, count)


def _received(rows: pa.Table, start: int | None, end: int | None) -> pa.Table:
    received = rows["ts_recv"].cast(pa.int64())
    if start is not None:
        rows = rows.filter(pc.greater_equal(received, start))
        received = rows["ts_recv"].cast(pa.int64())
    return rows if end is None else rows.filter(pc.less(received, end))


def _times_as_numbers(rows: pa.Table) -> pa.Table:
    for at, column in enumerate(rows.schema):
        if pa.types.is_timestamp(column.type):
            rows = rows.set_column(at, column.name, rows[column.name].cast(pa.int64()))
    return rows


@dataclass(frozen=True, slots=True)
class Named:
    """What the name of a file says."""

    table: str
    symbol: str
    date: str


def named(path: Path) -> Named:
    """Read the name of a file. UsageError: it is none of ours."""
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise UsageError(
            f"{path}: the name does not tell table, symbol and day; expected such as "
            f"{file_name('depth', 'BTCUSDT', '2026-11-21')}; nothing was imported"
        )
    table = {prefix: table for table, prefix in PREFIXES.items()}[found["prefix"]]
    day = found["date"]
    return Named(table, unquote(found["symbol"]), f"{day[:4]}-{day[4:6]}-{day[6:]}")


def read(path: Path) -> Iterator[pa.Table]:
    """Yield the rows of a file, some at a time, as rows of its table: wide where it has 18 decimals.

    DatasetError: a value is not what the table holds, or a column is missing. UsageError: the name is not
    ours, or the file cannot be read.
    """
    table = named(path).table
    schema = arrow_schema(table, wide=_is_wide(path, table))
    types = {c.name: pa.int64() if pa.types.is_timestamp(c.type) else c.type for c in schema}
    try:
        with pa_csv.open_csv(
            path,
            read_options=pa_csv.ReadOptions(block_size=_BLOCK, use_threads=False),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=types,
                include_columns=schema.names,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        ) as reader:
            for batch in reader:
                rows = pa.Table.from_batches([batch])
                _refuse_nulls(path, rows, schema)
                yield rows.cast(schema)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DatasetError(f"{path}: is no {table} of schema version 1 ({error})") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error


def _refuse_nulls(path: Path, rows: pa.Table, schema: pa.Schema) -> None:
    for column in schema:
        if not column.nullable and rows[column.name].null_count:
            raise DatasetError(f"{path}: {column.name} is empty in a row, expected a value in each")


def _is_wide(path: Path, table: str) -> bool:
    """Tell by the first price or size in the file how many decimals all of them have."""
    if not exact_columns(table):
        return False
    try:
        with path.open("rb") as file:
            file.readline()
            for line in file:
                digits = [len(found) for found in _FRACTION.findall(line)]
                if digits:
                    return max(digits) > _NARROW_DIGITS
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})") from error
    return False


@dataclass
class CsvReport:
    """What an import of plain CSV did."""

    exchange: str
    sessions: set[str] = field(default_factory=set)
    rows: Counter[str] = field(default_factory=Counter)
    """Published, by table."""
    skipped: int = 0
    """Rows that were there already."""
    certified: int = 0
    """Days of a symbol that got a certificate, or another in place of the old."""
    warnings: list[str] = field(default_factory=list)
    gaps: int = 0
    """Holes that the events tell, of those published now."""
    quarantined: int = 0
    """None: a row that cannot be read is an error."""
    derived: dict[str, tuple[Decimal, Decimal]] = field(default_factory=dict)
    """None: the files hold the dataset's instruments."""

    @property
    def session(self) -> str:
        """The sessions that rows were published of."""
        return ", ".join(sorted(self.sessions))

    def accounting(self) -> list[tuple[str, int]]:
        """Return what became of the rows as (what, how many)."""
        return [
            *((f"rows in {table}", count) for table, count in sorted(self.rows.items())),
            ("rows that were there already", self.skipped),
        ]


def import_csv(
    sources: Sequence[Path], out: Path, *, exchange: str | None, symbol: str | None = None
) -> CsvReport:
    """Import files of plain CSV into the dataset at ``out``; sessions and frames stay what they are.

    ``exchange`` is needed where the file's folder is not called after one; ``symbol`` leaves out all others.
    Importing the same again changes nothing. The days are certified anew at the end.

    UsageError: a name that is not ours, an unknown exchange, a session that is being written by another
    process. DatasetError: a row is none of its table; earlier rows are there then. DiskError: ``out`` cannot
    be written.
    """
    files = [(path, named(path)) for path in sources]
    chosen = [(path, told) for path, told in files if symbol is None or told.symbol == symbol]
    reports = CsvReport(_exchange(sources, exchange))
    # A table's days in their order: later frames of a session are never published before earlier ones.
    for path, told in sorted(chosen, key=lambda pair: (pair[1].table, pair[1].symbol, pair[1].date)):
        for rows in _whole_messages(read(path)):
            for session, own in _by_session(rows):
                with session_lock(out, session, wait=False):
                    _publish(out, reports, told, session, own)
    _certify(out, reports, [told for _, told in chosen])
    return reports


def _certify(out: Path, report: CsvReport, files: Sequence[Named]) -> None:
    """Certify the days of some files; what a session notes of no symbol is in the others' certificates."""
    dates = {told.date for told in files}
    symbols = {told.symbol for told in files}
    found = list_days(out, exchange=report.exchange) if dates else []
    chosen = [day for day in found if day.date in dates and (NO_SYMBOL in symbols or day.symbol in symbols)]
    certified = certify_days(out, chosen)
    report.certified = len(certified.done)
    report.warnings += [*certified.warnings, *certified.skipped, *certified.failures]


def _exchange(sources: Sequence[Path], told: str | None) -> str:
    found = {told} if told is not None else {path.resolve().parent.name for path in sources}
    if len(found) != 1 or not found <= {*CHAINS}:
        raise UsageError(
            f"the files' folders do not tell one exchange ({', '.join(sorted(found))}): name it by "
            f"--exchange, one of {', '.join(CHAINS)}; nothing was imported"
        )
    return found.pop()


def _whole_messages(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield some million rows at a time, so that no frame of a session straddles two tables.

    What is published of a frame is all of it: the rest would be taken for there already.
    """
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) < _PART_ROWS:
            continue
        rows = pa.concat_tables(held).combine_chunks()
        frames, sessions = rows["frame"].to_numpy(), rows["session"].combine_chunks()
        changes = frames[1:] != frames[:-1]
        changes |= pc.not_equal(sessions[1:], sessions[:-1]).to_numpy(zero_copy_only=False)
        if changes.any():
            cut = int(np.flatnonzero(changes)[-1]) + 1
            yield rows.slice(0, cut)
            rows = rows.slice(cut)
        held = [rows]
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _by_session(rows: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Split rows where the session changes."""
    runs = pc.run_end_encode(rows["session"].combine_chunks())
    begin = 0
    for end, session in zip(runs.run_ends.to_pylist(), runs.values.to_pylist(), strict=True):
        yield session, rows.slice(begin, end - begin)
        begin = end


def _publish(out: Path, report: CsvReport, told: Named, session: str, rows: pa.Table) -> None:
    published = Published(out, report.exchange, session)
    wide = told.table in EXACT_TABLES and rows.schema == arrow_schema(told.table, wide=True)
    facts = {"version": version(), "source": "csv"}
    with symbol_lock(out, report.exchange, told.symbol):
        for date, part in by_date(rows):
            partition = Partition(told.table, wide, report.exchange, told.symbol, date)
            fresh = published.publish(partition, part, facts)
            report.skipped += part.num_rows - fresh
            if fresh:
                report.rows[told.table] += fresh
                report.sessions.add(session)
                if told.table == "events":
                    new = part.slice(part.num_rows - fresh)
                    report.gaps += pc.sum(pc.equal(new["kind"], "gap")).as_py()
