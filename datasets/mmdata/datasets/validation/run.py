"""`mmdata validate`: the dataset as a whole, each exchange, then each symbol."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import TypeVar

from mmdata.datasets.certificate.derive import Day
from mmdata.datasets.certificate.store import read_certificate
from mmdata.datasets.chain import CHAINS
from mmdata.datasets.errors import DatasetError, ReplacedError, UsageError
from mmdata.datasets.layout import CAPTURES, list_symbols
from mmdata.datasets.stores import Place as Store
from mmdata.datasets.stores import Root, children, root_of
from mmdata.datasets.validation._kernels import warm_up
from mmdata.datasets.validation.conclude import Conclusion
from mmdata.datasets.validation.files import foreign_files
from mmdata.datasets.validation.findings import Findings, Place
from mmdata.datasets.validation.report import DayReport, Finding, SymbolReport, ValidationReport
from mmdata.datasets.validation.symbol import SymbolStream
from mmdata.datasets.validation.thresholds import Thresholds
from mmdata.datasets.validation.venue import VenueFacts

T = TypeVar("T")

_ATTEMPTS = 5
"""At what is being compacted meanwhile."""


def validate(
    root: Root,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    thresholds: Thresholds | None = None,
    progress: Callable[[str], None] | None = None,
) -> ValidationReport:
    """Check what is published in the dataset at ``root``, all of it or one exchange, symbol, UTC date.

    Streams it: memory does not grow with the days. Damaged files become findings, and what they held is left
    out of the other checks. ``progress`` is called with the name of each symbol when its turn comes.
    ``root`` may be ``s3://bucket/prefix``. UsageError: there is nothing to check, or ``date`` is none.
    """
    place = root_of(root)
    own_thresholds = thresholds or Thresholds()
    if date is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise UsageError(f"date {date!r} is none, expected YYYY-MM-DD, a UTC date")
    pairs = [
        pair
        for pair in list_symbols(place)
        if exchange in (None, pair[0]) and symbol in (None, pair[1]) and pair[0] in CHAINS
    ]
    if not pairs:
        have = ", ".join(f"{e} {s}" for e, s in list_symbols(place)) or "nothing"
        asked = " ".join(name for name in (exchange, symbol) if name) or "any symbol"
        raise UsageError(f"{place}: nothing of {asked} to validate; it holds {have}")
    Thread(target=warm_up).start()  # while footers and events are read
    report = ValidationReport(str(place))
    report.findings += _strangers(place, exchange, own_thresholds)
    venues: dict[str, VenueFacts] = {}
    recorded = {folder.name for folder in children(place / CAPTURES) if exchange in (None, folder.name)}
    for name in sorted({pair[0] for pair in pairs} | recorded):
        venues[name] = _again(partial(VenueFacts, place, name, date, own_thresholds))
        venues[name].check()
        report.findings += venues[name].findings
    for own_exchange, own_symbol in pairs:
        if progress is not None:
            progress(f"{own_exchange} {own_symbol}")
        figures, findings = _again(
            partial(_check, place, own_exchange, own_symbol, date, venues[own_exchange], own_thresholds)
        )
        report.findings += findings
        if figures is not None:
            report.symbols.append(figures)
    return report


def derive_day(
    root: Root, exchange: str, symbol: str, date: str, *, thresholds: Thresholds | None = None
) -> tuple[DayReport, list[Finding]]:
    """Return the figures of one symbol and UTC date as its files tell them, and what was found there.

    UsageError: nothing of it is there.
    """
    report = validate(root, exchange=exchange, symbol=symbol, date=date, thresholds=thresholds)
    days = [day for own in report.symbols for day in own.days]
    if not days:
        raise UsageError(f"{root_of(root)}: nothing of {exchange} {symbol} on {date}")
    return days[0], report.findings


def _check(
    root: Store,
    exchange: str,
    symbol: str,
    date: str | None,
    venue: VenueFacts,
    thresholds: Thresholds,
) -> tuple[SymbolReport | None, list[Finding]]:
    stream = SymbolStream(root, exchange, symbol, date, venue, thresholds)
    is_there = any(date in own.rows if date else own.rows for own in stream.surveys.values())
    if not is_there and not [*stream.findings]:
        return None, []  # nothing on this date
    try:
        stream.run()
    except ReplacedError:
        raise
    except DatasetError as error:
        stream.findings.add("error", "load", str(error))
        return SymbolReport(exchange, symbol), [*stream.findings]
    figures = Conclusion(stream).report()
    for day in figures.days:
        _check_accounts(root, exchange, symbol, day, stream)
    return figures, [*stream.findings]


def _check_accounts(root: Store, exchange: str, symbol: str, day: DayReport, stream: SymbolStream) -> None:
    """Compare a day's rows with those that its certificate, if it has one, accounts for.

    Of a table in which something else is wrong, or was told already, nothing is added.
    """
    findings = stream.findings
    wrong = {finding.table for finding in findings if finding.severity == "error"} | stream.damaged
    try:
        facts = read_certificate(root, Day(exchange, symbol, day.date))
    except DatasetError as error:
        findings.add("error", "accounting", str(error))
        return
    for table, of_table in (facts or {"tables": {}})["tables"].items():
        expected, found = of_table["rows"], day.rows.get(table, 0)
        if expected != found and table not in wrong and not day.is_open:
            findings.add(
                "error",
                "accounting",
                f"{table} of {day.date} has {found} rows, its certificate accounts for {expected}: rows were "
                "lost or added since; `mmdata verify` tells which file",
                count=abs(expected - found),
                table=table,
            )


def _strangers(root: Store, exchange: str | None, thresholds: Thresholds) -> list[Finding]:
    findings: dict[str, Findings] = {}
    for path in foreign_files(root, exchange):
        found = re.search(r"/exchange=([^/]*)/symbol=([^/]*)/", str(path))
        own_exchange, own_symbol = found.groups() if found else ("_", "_")
        own = findings.setdefault(
            f"{own_exchange} {own_symbol}", Findings(own_exchange, own_symbol, thresholds.most_findings)
        )
        own.add(
            "error",
            "name",
            f"{path}: is no part of a table by its name or place: readers that take all files below a table "
            f"fail on it, or read what is not ours; move it away",
            Place(file=str(path)),
        )
    return [finding for own in findings.values() for finding in own]


def _again(work: Callable[[], T]) -> T:
    """Do ``work``, anew when a file was replaced under it: a day was compacted meanwhile."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ReplacedError):
            return work()
    return work()
