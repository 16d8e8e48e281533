"""`mmdata export`: a dataset, or some of it, in another format."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.output import Written, output
from mmdata.datasets.layout import NO_SYMBOL, list_partitions
from mmdata.datasets.schema import TABLES
from mmdata.datasets.stores import local_root
from mmdata.datasets.times import Moment, iso, to_ns

FORMATS: Final = {
    "csv": "mmdata.datasets.formats.plain_csv",
    "hftbacktest": "mmdata.datasets.formats.hftbacktest",
    "nautilus": "mmdata.datasets.formats.nautilus",
    "tardis": "mmdata.datasets.formats.tardis_export",
}
"""Formats that can be written, and the module whose ``write`` does it: all load when they are used."""
_LOSSLESS = ("csv",)
"""They hold every table, so also rows that concern no single symbol."""


@dataclass
class ExportReport:
    """What an export did."""

    format: str
    out: Path
    files: list[Written] = field(default_factory=list)
    symbols: list[dict[str, Any]] = field(default_factory=list)
    """A symbol each: what its user has to know, such as tick, lot, and what was done to the clocks."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return the answer for machines."""
        return {
            "schema": 1,
            "format": self.format,
            "out": str(self.out),
            "files": [
                {"path": str(file.path), "rows": file.rows, "bytes": file.bytes} for file in self.files
            ],
            "symbols": self.symbols,
        }


def export(
    root: str | os.PathLike[str],
    format: str,  # noqa: A002 its name on the command line
    out: str | os.PathLike[str],
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write what was received in ``[start, end)`` of the dataset at ``root`` into the folder ``out``.

    All symbols, or those of ``exchange`` and of ``symbol``. The files appear together when all are written;
    none is overwritten. ``progress`` is called with a line for each symbol. A day is never held as a whole.

    UsageError: an unknown format, a package that it needs is not installed, nothing to export, a file that
    is there already, a value that the format cannot hold, ``out`` in an object store. DatasetError: a file is
    damaged. DiskError: ``out`` cannot be written.
    """
    if format not in FORMATS:
        raise UsageError(f"format {format!r} is not known, expected one of {', '.join(FORMATS)}")
    begin = None if start is None else to_ns(start)
    until = None if end is None else to_ns(end, end=True)
    if begin is not None and until is not None and begin >= until:
        raise UsageError(f"nothing lies between start {iso(begin)} and end {iso(until)}: end comes first")
    source, target = Path(root), local_root(out, "an export")
    chosen = _chosen(source, exchange, symbol, every_table=format in _LOSSLESS)
    if not chosen:
        of = " ".join(filter(None, (exchange, symbol))) or "any symbol"
        raise UsageError(f"{source}: holds nothing of {of}; nothing was exported")
    write = import_module(FORMATS[format]).write
    report = ExportReport(format, target)
    with output(target, report.files) as made:
        for own, name in chosen:
            if progress is not None:
                progress(f"exporting {own} {name} ...")
            facts = write(source, made, own, name, begin, until)
            if facts:
                report.symbols.append(facts)
    if not report.files:
        first = "its beginning" if begin is None else iso(begin)
        last = "its end" if until is None else iso(until)
        raise UsageError(
            f"{source}: nothing that {format} holds was received between {first} and {last}; nothing was "
            f"exported"
        )
    return report


def _chosen(
    root: Path, exchange: str | None, symbol: str | None, *, every_table: bool
) -> list[tuple[str, str]]:
    """Return (exchange, symbol) of what there is to export, in order of their names."""
    found = {
        (partition.exchange, partition.symbol)
        for table in (TABLES if every_table else ("depth", "trades"))
        for partition in list_partitions(root, table, exchange=exchange, symbol=symbol)
    }
    return sorted(pair for pair in found if every_table or pair[1] != NO_SYMBOL)
