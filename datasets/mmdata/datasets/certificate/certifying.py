"""Making certificates: derived from a day's files, put in the place of an older one that they bear out."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmdata.datasets.certificate.accounts import Account, Lines, read_accounts, take_away
from mmdata.datasets.certificate.canonical import MADE, Facts, derived, seal
from mmdata.datasets.certificate.derive import Day, derive, list_files
from mmdata.datasets.certificate.store import (
    files_of,
    list_certified,
    read_certificate,
    settle,
    write_certificate,
)
from mmdata.datasets.disk import refusal
from mmdata.datasets.errors import DatasetError, DiskError, ReplacedError, UsageError
from mmdata.datasets.layout import NO_SYMBOL, list_partitions, list_parts
from mmdata.datasets.locks import symbol_lock
from mmdata.datasets.schema import TABLES
from mmdata.datasets.stores import local_root
from mmdata.datasets.times import iso
from mmdata.datasets.version import version
from mmdata.datasets.writing import written_from

_ATTEMPTS = 3  # at a day that is written to meanwhile


@dataclass
class CertifyReport:
    """What a certification did."""

    root: Path
    done: list[Day] = field(default_factory=list)
    """Days with a new certificate, or another in place of the old."""
    left: int = 0
    """Days of which the certificate said already what there is."""
    skipped: list[str] = field(default_factory=list)
    """Days that are being written, a sentence each; a later run certifies them."""
    failures: list[str] = field(default_factory=list)
    """Days that cannot be certified, a sentence each; their certificates are left as they are."""
    warnings: list[str] = field(default_factory=list)

    def to_json_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "schema": 1,
            "root": str(self.root),
            "certified": [day._asdict() for day in self.done],
            "left": self.left,
            "skipped": self.skipped,
            "failures": self.failures,
            "warnings": self.warnings,
        }

    def exit_code(self) -> int:
        """Return 1 where a day could not be certified since a file is not what it should be, else 0."""
        return DatasetError.exit_code if self.failures else 0


def certify(
    root: Path,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> CertifyReport:
    """Make the certificates that are lacking in the dataset at ``root``, or in a part of it.

    These are of the days without any, and of those that something was ingested of since. A certificate
    that is there is never replaced by one that its files do not bear out. Days that a recorder still
    writes are left. UsageError: no such dataset, or in an object store; a date that is none. DiskError: the
    disk.
    """
    root = local_root(root, "a certificate")
    days = list_days(root, exchange=exchange, symbol=symbol, date=date)
    certified = {*list_certified(root)}
    waiting = _waiting(root, exchange, None)
    due = [day for day in days if day not in certified or day in waiting.days]
    due += [day for day in waiting.days if day not in days and _asked(day, exchange, symbol, date)]
    report = CertifyReport(root, left=len(days) - sum(day in days for day in due))
    since: dict[str, tuple[str, str] | None] = {}
    closed = []
    for day in due:
        if day.exchange not in since:
            since[day.exchange] = written_from(root, day.exchange)
        recorder = since[day.exchange]
        if recorder is not None and day.date >= recorder[0]:
            report.skipped.append(
                f"{day}: is being recorded, by {recorder[1]}; it is certified once it is over"
            )
        else:
            closed.append(day)
    _certify(root, closed, waiting, report, progress)
    return report


def certify_ingested(
    root: Path,
    exchange: str,
    *,
    sessions: Collection[str] | None = None,
    progress: Callable[[str], None] | None = None,
) -> CertifyReport:
    """Certify the days that something of ``exchange`` was ingested of since they were certified last.

    All of them, or those of some sessions: what a recording, a recovery and an import do at their end, when
    nobody else writes these sessions. DiskError: the disk; the accounts wait for the next time.
    """
    report = CertifyReport(root)
    waiting = _waiting(root, exchange, sessions)
    _certify(root, waiting.days, waiting, report, progress)
    return report


def certify_days(root: Path, days: Iterable[Day]) -> CertifyReport:
    """Certify days that rows were added to of which ingest gives no account. DiskError: the disk."""
    report = CertifyReport(root)
    _certify(root, days, _Waiting([], []), report, None)
    return report


def list_days(
    root: Path, *, exchange: str | None = None, symbol: str | None = None, date: str | None = None
) -> list[Day]:
    """Return the days that tables hold rows of, the oldest first. UsageError: no dataset, no date."""
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; name the dataset's")
    if date is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        raise UsageError(f"date {date!r} is none, expected YYYY-MM-DD, a UTC date")
    found = {
        Day(own.exchange, own.symbol, own.date)
        for table in TABLES
        for own in list_partitions(root, table, exchange=exchange, symbol=symbol, date=date)
    }
    return sorted(found, key=in_order)


def in_order(day: Day) -> tuple[str, str, str]:
    """Return what days are sorted by."""
    return day.date, day.exchange, day.symbol


def _asked(day: Day, exchange: str | None, symbol: str | None, date: str | None) -> bool:
    return exchange in (None, day.exchange) and symbol in (None, day.symbol) and date in (None, day.date)


@dataclass
class _Waiting:
    """The accounts that wait, and the days that they tell of."""

    accounts: list[tuple[Path, Account, list[Day]]]
    days: list[Day]


def _waiting(root: Path, exchange: str | None, sessions: Collection[str] | None) -> _Waiting:
    accounts = [
        (path, account, _days_of(root, account)) for path, account in read_accounts(root, exchange, sessions)
    ]
    return _Waiting(accounts, sorted({day for *_, days in accounts for day in days}, key=in_order))


def _days_of(root: Path, account: Account) -> list[Day]:
    """Return the days that a segment tells of: those with other rows of its session too.

    What it brought of no single symbol, such as the session's end, stands in the symbols' certificates.
    """
    found = {(symbol, date) for date, own in account.days.items() for symbol in (NO_SYMBOL, *own.rows)}
    found |= {
        (part.partition.symbol, date)
        for date in account.days
        for table in TABLES
        for part in list_parts(root, table, exchange=account.exchange, date=date, session=account.session)
    }
    return [Day(account.exchange, symbol, date) for symbol, date in sorted(found)]


def _certify(
    root: Path,
    days: Iterable[Day],
    waiting: _Waiting,
    report: CertifyReport,
    progress: Callable[[str], None] | None,
) -> None:
    """Certify days, then take the accounts away that stand in the certificates of all their days."""
    told: set[Day] = set()
    try:
        for day in days:
            if progress is not None:
                progress(str(day))
            try:
                changed = _certify_day(root, day, [account for _, account, _ in waiting.accounts], report)
            except ReplacedError as error:
                report.skipped.append(str(error))
            except DatasetError as error:
                report.failures.append(f"{day} is not certified: {error}")
            else:
                told.add(day)
                report.left += not changed
                report.done += [day] if changed else []
        for path, _, days_told in waiting.accounts:
            if told.issuperset(days_told):
                take_away(path)
    except OSError as error:
        raise DiskError(
            f"{error.filename or root}: certification ended here ({refusal(error)}); the next one goes on"
        ) from error


def _certify_day(root: Path, day: Day, accounts: Iterable[Account], report: CertifyReport) -> bool:
    """Make a day's certificate; tell whether another than before was needed.

    ReplacedError: it is written to, again and again. DatasetError: a file is damaged, or not the one that
    the old certificate names.
    """
    for _ in range(_ATTEMPTS):
        with symbol_lock(root, day.exchange, day.symbol):
            settle(root, day)
            before = _stamps(root, day)
            old = read_certificate(root, day)
        if not before and old is None and day.symbol != NO_SYMBOL:
            return False  # it was removed since it was ingested, as a day that is too old
        try:
            facts = derive(root, day)
        except ReplacedError:
            continue
        if _stamps(root, day) != before:
            continue
        _require_borne_out(day, old, facts)
        facts["accounting"] = _accounting(day, old, accounts)
        as_before = old is not None and derived(old) == facts
        if not as_before:
            with symbol_lock(root, day.exchange, day.symbol):
                if _stamps(root, day) != before or read_certificate(root, day) != old:
                    continue
                write_certificate(root, day, seal({**facts, MADE: _made()}))
        report.warnings += [f"{day}: {sentence}" for sentence in unbalanced(facts)]
        return not as_before
    raise ReplacedError(f"{day}: is written to; it is certified when that is over")


def _stamps(root: Path, day: Day) -> dict[str, tuple[int, int, int]]:
    """Return the files of a day, with what changes when they do."""
    found = {}
    for name, path in list_files(root, day).items():
        with contextlib.suppress(FileNotFoundError):  # it has just been replaced: that shows, too
            told = path.stat()
            found[name] = (told.st_ino, told.st_size, told.st_mtime_ns)
    return found


def _require_borne_out(day: Day, old: Facts | None, facts: Facts) -> None:
    """Raise DatasetError where the old certificate names a file that is gone or another now."""
    if old is None:
        return
    now = files_of(facts)
    for name, file in files_of(old).items():
        if now.get(name) != file:
            what = "is not there any more" if name not in now else "has other bytes now"
            raise DatasetError(
                f"{name} {what}, and the certificate of {day} names it; nothing was changed: see `mmdata "
                f"verify`; if that was meant, remove the certificate, then certify"
            )


def _accounting(day: Day, old: Facts | None, accounts: Iterable[Account]) -> list[Facts]:
    """Return what ingest said of the captures of a day: what was certified before, and what came since."""
    known = {(own["session"], own["segment"]): own for own in (old or {}).get("accounting", [])}
    for account in accounts:
        own = account.days.get(day.date) if account.exchange == day.exchange else None
        if own is None or (day.symbol != NO_SYMBOL and day.symbol not in own.rows):
            continue
        lines = account_lines(own.lines) if day.symbol == NO_SYMBOL else None
        known[account.session, account.segment] = {
            "session": account.session,
            "segment": account.segment,
            "lines": lines,
            "rows": dict(own.rows.get(day.symbol, {})),
        }
    return [known[key] for key in sorted(known)]


def account_lines(lines: Lines) -> Facts:
    """Return the lines of a segment as a certificate has them, with both sums."""
    return {
        "lines": lines.lines,
        "accounted": lines.accounted(),
        "decoded": lines.decoded,
        "control": lines.control,
        "untabled": dict(lines.untabled),
        "quarantined": lines.quarantined,
        "sent": lines.sent,
        "rest": lines.rest,
        "events": lines.events,
        "repeats": lines.repeats,
    }


def unbalanced(facts: Facts) -> list[str]:
    """Return, a sentence each, where the sums of the accounting are not equal.

    Lines read against lines accounted for; rows that were made of the captures against rows in the files, a
    session and table at a time, of sessions that ingest told of.
    """
    made: dict[tuple[str, str], int] = {}
    said = []
    for own in facts["accounting"]:
        lines = own["lines"]
        if lines is not None and lines["lines"] != lines["accounted"]:
            said.append(
                f"segment {own['segment']} of {own['session']}: {lines['lines']} lines were read and "
                f"{lines['accounted']} accounted for"
            )
        for table, rows in own["rows"].items():
            made[own["session"], table] = made.get((own["session"], table), 0) + rows
    told = {own["session"] for own in facts["accounting"]}
    found = {
        (own["session"], table): own["rows"]
        for table, facts_of_table in facts["tables"].items()
        for own in facts_of_table["sessions"]
        if own["session"] in told
    }
    for session, table in sorted({*made, *found}):
        rows, there = made.get((session, table), 0), found.get((session, table), 0)
        if rows != there:
            said.append(f"{rows} rows of {table} were made of session {session}, and {there} are there")
    return said


def _made() -> Facts:
    return {"version": version(), "host": socket.gethostname(), "at": iso(time.time_ns())}
