"""`mmdata validate`: which checks are run on what; the dataset as a whole, then each symbol."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from mmdata.datasets.chain import CHAINS
from mmdata.datasets.errors import UsageError
from mmdata.datasets.layout import CAPTURES, NO_SYMBOL, list_parts, list_symbols
from mmdata.datasets.market import read_part
from mmdata.datasets.schema import TABLES
from mmdata.datasets.times import to_ns
from mmdata.datasets.validation.files import check_files, rows_of
from mmdata.datasets.validation.report import Finding, ValidationReport
from mmdata.datasets.validation.symbol import SymbolChecks


def validate(
    root: Path,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Check what is published in the dataset at ``root``, all of it or one exchange, symbol, UTC date.

    Damaged files become findings, and what they held is left out of the other checks. ``progress`` is
    called with the name of each symbol when its turn comes. UsageError: there is nothing to check, or
    ``date`` is none.
    """
    if date is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise UsageError(f"date {date!r} is none, expected YYYY-MM-DD, a UTC date")
    day = None if date is None else (to_ns(date), to_ns(date, end=True))
    pairs = [
        pair
        for pair in list_symbols(root)
        if exchange in (None, pair[0]) and symbol in (None, pair[1]) and pair[0] in CHAINS
    ]
    if not pairs:
        have = ", ".join(f"{e} {s}" for e, s in list_symbols(root)) or "nothing"
        asked = " ".join(name for name in (exchange, symbol) if name) or "any symbol"
        raise UsageError(f"{root}: nothing of {asked} to validate; it holds {have}")
    report = ValidationReport(str(root))
    for name in dict.fromkeys(pair[0] for pair in pairs):
        _check_exchange(root, name, date, report)
    for own_exchange, own_symbol in pairs:
        if progress is not None:
            progress(f"{own_exchange} {own_symbol}")
        SymbolChecks(root, own_exchange, own_symbol, date, day, report).run()
    _name_pending(root, report)
    return report


def _check_exchange(root: Path, exchange: str, date: str | None, report: ValidationReport) -> None:
    """Check the rows that concern no single symbol: their files, quarantine, torn ends."""
    sound = True
    for table in TABLES:
        found = [*check_files(list_parts(root, table, exchange=exchange, symbol=NO_SYMBOL, date=date))]
        report.findings += found
        sound = sound and not found
    if not sound:
        return
    rows = sum(
        rows_of(part)
        for part in list_parts(root, "quarantine", exchange=exchange, symbol=NO_SYMBOL, date=date)
    )
    if rows:
        sentence = (
            f"{rows} frames of {exchange} could not be decoded and lie in the table quarantine: what they "
            f"said is missing from the other tables"
        )
        report.findings.append(Finding("warning", "quarantine", exchange, NO_SYMBOL, rows, sentence))
    for part in list_parts(root, "events", exchange=exchange, symbol=NO_SYMBOL, date=date):
        for row in read_part(part, ("kind", "frame", "detail")).to_pylist():
            if row["kind"] == "torn":
                sentence = (
                    f"the recording of {exchange} ends torn ({row['detail']}): what was written last is cut "
                    f"off, all before it is kept"
                )
                finding = Finding(
                    "warning", "torn", exchange, NO_SYMBOL, 1, sentence, part.session, row["frame"]
                )
                report.findings.append(finding)


def _name_pending(root: Path, report: ValidationReport) -> None:
    for folder in sorted(root.glob(f"{CAPTURES}/*")):
        waiting = sorted([*folder.glob("*/*.open"), *folder.glob("*/*.cap")])
        if waiting:
            sentence = (
                f"{len(waiting)} capture segments are not ingested yet (first: {waiting[0]}): a recorder is "
                f"running, or died; `mmdata recover` ingests what a dead one left"
            )
            finding = Finding("info", "pending", folder.name, NO_SYMBOL, len(waiting), sentence)
            report.findings.append(finding)
