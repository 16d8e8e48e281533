"""Defects of files: what they hold cannot be read, is no table of ours, or lies in a wrong place."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.datasets.certificate import certify
from mmdata.datasets.layout import Part, Partition, list_parts, part_name
from mmdata.sandbox.defects.ground import FEW, NoPlaceError, Sheet, Site, write
from mmdata.sandbox.defects.kinds import EVERYTHING, Where, at_row, kind

_FOOTER = 8
"""Bytes behind the footer: its length, and the magic."""


def _below(site: Site, path: Path) -> str:
    return str(path.relative_to(site.root))


def _at_file(site: Site, part: Part) -> Where:
    return {"table": part.partition.table, "file": _below(site, part.path)}


def _replace(path: Path, data: bytes) -> None:
    """Put bytes in place of a file as a new file, so that a hard link elsewhere stays what it was."""
    path.unlink()
    path.write_bytes(data)


def _is_readable(path: Path) -> bool:
    try:
        pq.read_table(path, partitioning=None).validate(full=True)
    except (pa.ArrowInvalid, OSError):
        return False
    return True


@kind("file", touches=EVERYTHING)
def file_empty(site: Site) -> Where:
    """A part has no byte in it."""
    part = site.part_of()
    _replace(part.path, b"")
    return _at_file(site, part)


@kind("file", touches=EVERYTHING)
def file_truncated(site: Site) -> Where:
    """A part ends too early: a write or a copy was cut off."""
    part = site.part_of()
    data = part.path.read_bytes()
    _replace(part.path, data[: site.rng.randrange(1, len(data))])
    return _at_file(site, part)


@kind("file", touches=EVERYTHING)
def file_page_damaged(site: Site) -> Where:
    """Bytes within a column's data are others, so that it cannot be decoded."""
    part = site.part_of()
    data = part.path.read_bytes()
    group = pq.read_metadata(part.path).row_group(0)
    columns = site.shuffled(range(group.num_columns))
    for column in columns:
        chunk = group.column(column)
        # The head of the chunk's first page says how long it is: nothing of it can be decoded then.
        begin = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
        _replace(
            part.path,
            data[:begin] + bytes(255 - byte for byte in data[begin : begin + 8]) + data[begin + 8 :],
        )
        if not _is_readable(part.path):
            return _at_file(site, part)
    _replace(part.path, data)
    raise NoPlaceError


@kind("file", touches=EVERYTHING)
def file_footer_damaged(site: Site) -> Where:
    """The footer, which says where everything lies, is damaged."""
    part = site.part_of()
    data = bytearray(part.path.read_bytes())
    length = int.from_bytes(data[-_FOOTER:-4], "little")
    begin = len(data) - _FOOTER - length
    for at in range(begin, begin + 16):
        data[at] ^= 0xFF
    _replace(part.path, bytes(data))
    return _at_file(site, part)


# --- the schema


def _rewrite(part: Part, rows: pa.Table) -> None:
    write(part.path, rows.replace_schema_metadata(pq.read_schema(part.path).metadata))


def _rows(part: Part) -> pa.Table:
    return pq.read_table(part.path, partitioning=None)


@kind("schema", touches=EVERYTHING)
def column_missing(site: Site) -> Where:
    """A column of the table is not there."""
    part = site.part_of()
    rows = _rows(part)
    _rewrite(part, rows.drop_columns([site.pick(rows.column_names)]))
    return _at_file(site, part)


@kind("schema", touches=EVERYTHING)
def column_extra(site: Site) -> Where:
    """There is a column that no table of ours has."""
    part = site.part_of()
    rows = _rows(part)
    _rewrite(part, rows.append_column("index", pa.array(range(rows.num_rows), pa.int64())))
    return _at_file(site, part)


def _cast(part: Part, column: str, kind: pa.DataType) -> None:
    rows = _rows(part)
    at = rows.column_names.index(column)
    values = rows[column].cast(pa.float64() if pa.types.is_floating(kind) else kind, safe=False)
    _rewrite(part, rows.set_column(at, pa.field(column, kind, rows.schema.field(at).nullable), values))


@kind("schema", touches=EVERYTHING)
def column_float_price(site: Site) -> Where:
    """Prices went through floating point on their way."""
    part = site.part_of()
    _cast(part, "bid_price" if part.partition.table == "bbo" else "price", pa.float64())
    return _at_file(site, part)


@kind("schema", touches=EVERYTHING)
def column_time_micros(site: Site) -> Where:
    """Times are in microseconds, not nanoseconds."""
    part = site.part_of()
    _cast(part, "ts_recv", pa.timestamp("us", tz="UTC"))
    return _at_file(site, part)


@kind("schema", touches=EVERYTHING)
def column_null(site: Site) -> Where:
    """A column that must be filled may be null, and is null in a row."""
    part = site.part_of()
    rows = _rows(part)
    column = site.pick(["frame", "session", "ts_recv"])
    at = rows.column_names.index(column)
    values = rows[column].to_pylist() if column != "ts_recv" else rows[column].cast(pa.int64()).to_pylist()
    values[site.rng.randrange(len(values))] = None
    kind = rows.schema.field(at).type
    _rewrite(part, rows.set_column(at, pa.field(column, kind, nullable=True), pa.array(values, kind)))
    return _at_file(site, part)


# --- names and places

_FOREIGN = ("notes.txt", "part-00000.parquet", "_SUCCESS", "20261121-depth.csv", ".part-00000.crc")


@kind("name", touches=EVERYTHING)  # nothing lists the files of its market any more
def foreign_file(site: Site) -> Where:
    """A file that is no part of ours lies below a table."""
    part = site.part_of()
    path = part.path.with_name(site.pick(_FOREIGN))
    path.write_bytes(part.path.read_bytes() if path.suffix == ".parquet" else b"not ours\n")
    return {"file": _below(site, path)}


@kind("name", touches=EVERYTHING)  # nothing lists the files of its market any more
def file_misplaced(site: Site) -> Where:
    """A part lies one folder too high, beside the dates."""
    part = site.part_of()
    path = part.path.parents[1] / part.path.name
    path.write_bytes(part.path.read_bytes())
    return {"file": _below(site, path)}


@kind("partition", touches=EVERYTHING)
def part_of_other_date(site: Site) -> Where:
    """A part lies below another date than its rows have."""
    part = site.part_of(("trades", "bbo"))
    own = part.partition
    day = str(date.fromisoformat(own.date) + timedelta(days=site.rng.choice([-3, -2, 2, 3])))
    folder = site.root / Partition(own.table, own.wide, own.exchange, own.symbol, day).folder
    folder.mkdir(parents=True)
    rows = pq.read_metadata(part.path).num_rows
    path = part.path.rename(folder / part.path.name)
    if not any(part.path.parent.iterdir()):
        part.path.parent.rmdir()
    return {"table": own.table, "file": _below(site, path), "count": rows}


def _restate(part: Part, key: str, value: str) -> None:
    rows = _rows(part)
    facts = dict(rows.schema.metadata)
    facts[f"mmdata.{key}".encode()] = value.encode()
    write(part.path, rows.replace_schema_metadata(facts))


@kind("partition", touches=EVERYTHING)
def part_of_other_symbol(site: Site) -> Where:
    """A part says of itself that it is of another symbol."""
    part = site.part_of()
    _restate(part, "symbol", "LTCUSDT")
    return _at_file(site, part)


@kind("partition", touches=EVERYTHING)
def part_of_other_exchange(site: Site) -> Where:
    """A part says of itself that it is of another exchange."""
    part = site.part_of()
    _restate(part, "exchange", "kraken")
    return _at_file(site, part)


@kind("partition", touches=EVERYTHING)
def row_of_other_date(site: Site) -> Where:
    """Rows from the other side of midnight lie in a part of the wrong date."""
    table = site.pick(["bbo", "trades"])
    sheet = site.filled(table)
    for part in range(1, len(sheet.parts)):
        before, own = sheet.parts[part - 1], sheet.parts[part]
        rows = (sheet.part == part).nonzero()[0].tolist()
        if before.session != own.session or before.partition.date == own.partition.date or len(rows) < 3:
            continue
        moved = rows[: site.rng.randrange(1, min(3, len(rows)))]
        sheet.part[moved] = part - 1
        where = at_row(sheet.at(moved[0]), sheet.row(moved[0]), count=len(moved), table=table)
        sheet.save()
        return where
    raise NoPlaceError


@kind("order", touches=EVERYTHING)
def part_twice(site: Site) -> Where:
    """The same rows stand in two parts."""
    part = site.part_of()
    rows = _rows(part)
    table = part.partition.table
    parts = list_parts(site.root, table, exchange=site.exchange, session=part.session)
    name = part_name(rows["ts_recv"][0].value, part.session, max(own.n for own in parts) + 1)
    path = part.path.with_name(name)
    path.write_bytes(part.path.read_bytes())
    return {"table": table, "file": _below(site, path)}


@kind("accounting", touches=EVERYTHING)  # its certificate counts the rows of all tables
def rows_lost(site: Site) -> Where:
    """Rows of a channel without ids are gone since the day was certified."""
    sheet = site.filled("bbo")
    frames = sheet.ints("frame")
    day = sheet.parts[int(sheet.part[site.rng.randrange(len(sheet))])].partition.date
    of_day = [row for row, part in enumerate(sheet.part) if sheet.parts[part].partition.date == day]
    if len(of_day) < FEW:
        raise NoPlaceError
    begin = site.rng.randrange(1, len(of_day) - 4)
    lost = of_day[begin : begin + site.rng.randrange(1, 4)]
    certify(site.root, exchange=site.exchange, symbol=site.symbol, date=day)
    sheet.drop(np.flatnonzero(np.isin(frames, frames[lost])).tolist())
    sheet.save()
    return {"table": "bbo", "count": len(lost)}


@kind("chain", touches=EVERYTHING)
def part_lost(site: Site) -> Where:
    """A whole part of `depth` is gone."""
    sheet, messages = site.depth, site.messages
    if (sheet.ints("last_id") < 0).any():
        raise NoPlaceError  # without ids nobody can tell
    number = int(site.pick(range(1, len(sheet.parts) - 1)))
    after = int((sheet.part == number + 1).nonzero()[0][0])
    gone = int((sheet.part == number).nonzero()[0][0])
    if sheet.ints("ts_recv")[after] - sheet.ints("ts_recv")[gone - 1] > 55_000_000_000:
        raise NoPlaceError  # that would be silence, too
    message = int((messages.start == after).nonzero()[0][0])
    where = at_row(sheet.at(after), sheet.row(after), table="depth", id=int(messages.last_id[message]))
    sheet.parts[number].path.unlink()
    return where


@kind("partition", touches=EVERYTHING)
def row_of_other_session(site: Site) -> Where:
    """A row names another session than its part."""
    sheet: Sheet = site.filled(site.pick(["bbo", "trades"]))
    row = site.rng.randrange(1, len(sheet))
    file, number = sheet.at(row)
    sheet.set("session", {row: "20200101T000000Z-abcdef"})
    sheet.save()
    return {"table": sheet.table, "file": file, "row": number}
