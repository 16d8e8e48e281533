"""`mmdata verify`: derive the certificates again, and name every difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mmdata.datasets.certificate.accounts import ACCOUNTS, Account, DayAccount, Lines
from mmdata.datasets.certificate.canonical import Facts, derived
from mmdata.datasets.certificate.certifying import account_lines, in_order, list_days, unbalanced
from mmdata.datasets.certificate.derive import (
    Day,
    derive,
    folder_tables,
    list_files,
)
from mmdata.datasets.certificate.store import (
    CERTIFICATE,
    CERTIFICATES,
    NEXT,
    certificate_path,
    files_of,
    list_certified,
    read_certificate,
    read_next,
)
from mmdata.datasets.errors import DatasetError, MmdataError, ReplacedError, UsageError
from mmdata.datasets.layout import NO_SYMBOL, list_parts
from mmdata.datasets.schema import EXACT_TABLES
from mmdata.datasets.stores import local_root, sha256_of
from mmdata.datasets.writing import written_from

_ATTEMPTS = 5  # at a day that is compacted meanwhile
_NO_LINES = Lines()

Recount = Callable[[Path, str, str, int], Account | None]
"""Account of a segment (root, exchange, session, number) from its kept capture; None: none was kept."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as a certificate says; or that no certificate speaks of."""

    exchange: str
    symbol: str
    date: str
    field: str
    """Where in the certificate, as ``tables.depth.rows``; or the file, below the root."""
    expected: Any
    found: Any
    sentence: str


@dataclass
class VerifyReport:
    """What a verification found."""

    root: Path
    verified: list[Day] = field(default_factory=list)
    """Days that were derived again and are as their certificates say."""
    differences: list[Difference] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    """Days that are open, a sentence each."""
    notes: list[str] = field(default_factory=list)
    rows: int = 0
    """Rows of the days that are as their certificates say."""
    recounted: int = 0
    """Segments that were counted again from their kept captures."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "schema": 1,
            "root": str(self.root),
            "verified": [day._asdict() for day in self.verified],
            "rows": self.rows,
            "recounted_segments": self.recounted,
            "differences": [asdict(found) for found in self.differences],
            "skipped": self.skipped,
            "notes": self.notes,
        }

    def exit_code(self) -> int:
        """Return 1 for any difference, else 0."""
        return DatasetError.exit_code if self.differences else 0


def verify(
    root: Path,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    recount: Recount | None = None,
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Compare the dataset at ``root``, or a part of it, with its certificates; nothing is changed.

    Every file's bytes, then everything that a certificate says, derived again from the rows. ``recount``
    counts the lines of a kept capture again; without it, only sums are compared. Days that a recorder still
    writes are left. UsageError: there is no such dataset, nothing in it, ``date`` is none, or it lies in
    an object store.
    """
    root = local_root(root, "a verification")
    days = {*list_days(root, exchange=exchange, symbol=symbol, date=date)}
    days |= {
        day
        for name in (CERTIFICATE, NEXT)
        for day in list_certified(root, name)
        if exchange in (None, day.exchange) and symbol in (None, day.symbol) and date in (None, day.date)
    }
    if not days:
        raise UsageError(f"{root}: nothing of what is asked for lies there; nothing was verified")
    report = VerifyReport(root)
    written = {name: written_from(root, name) for name in sorted({day.exchange for day in days})}
    counts = _Recounts(root, recount)
    for day in sorted(days, key=in_order):
        recorder = written[day.exchange]
        if recorder is not None and day.date >= recorder[0]:
            report.skipped.append(f"{day}: is open, being recorded by {recorder[1]}; it was not verified")
            continue
        if progress is not None:
            progress(str(day))
        _verify_day(root, day, counts, report)
    if (exchange, symbol, date) == (None, None, None):
        report.differences += _strangers(root)
    _note_waiting(root, written, report)
    counts.note(report)
    return report


def _verify_day(root: Path, day: Day, counts: _Recounts, report: VerifyReport) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            found, facts = _differences(root, day, counts)
        except ReplacedError as error:
            if attempt == _ATTEMPTS:
                report.differences.append(_difference(day, "files", None, None, str(error)))
            continue
        report.differences += found
        if not found and facts is not None:
            report.verified.append(day)
            report.rows += sum(table["rows"] for table in facts["tables"].values())
        return


def _difference(day: Day, place: str, expected: Any, found: Any, sentence: str) -> Difference:
    return Difference(*day, place, expected, found, f"{day}: {sentence}")


def _differences(root: Path, day: Day, counts: _Recounts) -> tuple[list[Difference], Facts | None]:
    """Return what differs on a day, and its certificate. ReplacedError: it was compacted meanwhile."""
    try:
        certificate, coming = read_certificate(root, day), read_next(root, day)
    except DatasetError as error:
        return [_difference(day, CERTIFICATE, "a certificate as it was made", None, str(error))], None
    paths = list_files(root, day)
    if coming is not None and all(name in paths for name in files_of(coming)):
        certificate = coming  # a kill came between swapping the files and the certificates
    if certificate is None:
        sentence = (
            f"no certificate: nothing vouches for the {len(paths)} files that are there; `mmdata certify` "
            f"makes one"
        )
        place = str(certificate_path(root, day).relative_to(root))
        return [_difference(day, place, "a certificate", None, sentence)], None
    digests = {}
    found = []
    expected = files_of(certificate)
    for name, path in paths.items():
        if name not in expected:
            if _is_superseded(root, day, path):
                continue
            sentence = f"{name} is not in the certificate: it came later, or is not ours"
            found.append(_difference(day, name, None, path.stat().st_size, sentence))
            continue
        digests[name] = sha256_of(path)
        found += _other_bytes(day, name, expected[name], path.stat().st_size, digests[name])
    for name in expected:
        if name not in paths:
            found.append(_difference(day, name, expected[name]["sha256"], None, f"{name} is missing"))
    if found:
        return found, certificate  # what is derived from other files would differ in everything
    try:
        facts = derive(root, day, digests)
    except ReplacedError:
        raise
    except DatasetError as error:
        return [_difference(day, "tables", "rows that can be read", None, str(error))], certificate
    facts["accounting"] = certificate.get("accounting")
    for place, was, now in _compare(derived(certificate), facts):
        sentence = f"{place} is {_short(was)} in the certificate, and {_short(now)} as derived from the files"
        found.append(_difference(day, place, was, now, sentence))
    if not found:
        found += [_difference(day, "accounting", None, None, said) for said in unbalanced(certificate)]
        found += counts.compare(day, certificate)
    return found, certificate


def _is_superseded(root: Path, day: Day, path: Path) -> bool:
    """Tell whether a file is a narrow part that a wide one holds: a compaction was killed before it went."""
    table = path.relative_to(root).parts[0]
    if table not in EXACT_TABLES or path.suffix != ".parquet":
        return False
    try:
        parts = list_parts(root, table, exchange=day.exchange, symbol=day.symbol, date=day.date)
    except DatasetError:
        return False  # no name of ours
    return path not in {part.path for part in parts}


def _other_bytes(day: Day, name: str, file: Facts, size: int, digest: str) -> list[Difference]:
    if size != file["bytes"]:
        sentence = f"{name} has {size} bytes, expected {file['bytes']}"
        return [_difference(day, name, file["bytes"], size, sentence)]
    if digest != file["sha256"]:
        sentence = f"{name} has other bytes: its sha256 is {digest}, expected {file['sha256']}"
        return [_difference(day, name, file["sha256"], digest, sentence)]
    return []


def _compare(was: Any, now: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the places where two facts differ, and both values."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            yield from _compare(was.get(key), now.get(key), f"{place}.{key}" if place else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for at, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _compare(one, other, f"{place}[{at}]")
    elif was != now or type(was) is not type(now):
        yield place, was, now


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class _Recounts:
    """Counts kept captures again, each once though several symbols ask for it."""

    def __init__(self, root: Path, recount: Recount | None) -> None:
        self._root = root
        self._recount = recount
        self._counted: set[tuple[str, str, int]] = set()
        self._missing: set[tuple[str, str, int]] = set()
        self._cache: dict[tuple[str, str, int], Account | None] = {}

    def compare(self, day: Day, certificate: Facts) -> Iterator[Difference]:
        """Yield where the certificate's accounting is not what the captures say."""
        for own in certificate["accounting"]:
            place = f"accounting.{own['session']}.{own['segment']}"
            try:
                account = self._of(day.exchange, own["session"], own["segment"])
            except MmdataError as error:
                yield _difference(day, place, "a capture that can be counted", None, str(error))
                continue
            if account is None:
                continue
            told = account.days.get(day.date, DayAccount(_NO_LINES))
            now = {
                "lines": account_lines(told.lines) if day.symbol == NO_SYMBOL else None,
                "rows": dict(told.rows.get(day.symbol, {})),
            }
            for where, was, found in _compare({key: own[key] for key in now}, now, place):
                sentence = (
                    f"{where} is {_short(was)} in the certificate, and {_short(found)} as counted in the "
                    f"capture"
                )
                yield _difference(day, where, was, found, sentence)

    def _of(self, exchange: str, session: str, segment: int) -> Account | None:
        if self._recount is None:
            return None
        key = (exchange, session, segment)
        if key not in self._cache:
            self._cache[key] = self._recount(self._root, exchange, session, segment)
        found = self._cache[key]
        (self._missing if found is None else self._counted).add(key)
        return found

    def note(self, report: VerifyReport) -> None:
        """Tell how much was counted, and of how much the captures were not kept."""
        report.recounted = len(self._counted)
        if self._missing:
            report.notes.append(
                f"the captures of {len(self._missing)} segments were not kept (or were never ours): their "
                f"accounting is compared with the rows that are there, and cannot be counted again"
            )


def _strangers(root: Path) -> Iterator[Difference]:
    """Yield the files below the tables and the certificates that lie where nothing of ours does."""
    for top in (*folder_tables(), CERTIFICATES):
        for path in sorted((root / top).rglob("*")):
            if path.is_dir() or _has_place(root, path):
                continue
            name = str(path.relative_to(root))
            sentence = f"{name} is not ours: only mmdata writes below {top}/"
            yield Difference("", "", "", name, None, path.stat().st_size, sentence)


def _has_place(root: Path, path: Path) -> bool:
    """Tell whether a file lies where a day's files, or its certificate, do; then its day tells of it."""
    parts = path.relative_to(root).parts
    keyed = [part.partition("=")[0] for part in parts[1:-1]] == ["exchange", "symbol", "date"]
    return keyed and (parts[0] != CERTIFICATES or parts[-1] in (CERTIFICATE, NEXT))


def _note_waiting(root: Path, written: Mapping[str, object], report: VerifyReport) -> None:
    for exchange, recorder in written.items():
        waiting = len([*(root / ACCOUNTS / exchange).glob("*/*.json")])
        if waiting and recorder is None:
            report.notes.append(
                f"{waiting} segments of {exchange} are ingested and not certified yet: their recorder died; "
                f"`mmdata recover` certifies them"
            )
