"""Removing days that are older than a job keeps: whole partitions, and captures that nothing is left of.

First a plan, which only looks; then its carrying out. Call both with the exchanges' locks held, or the
plan alone. What is not ingested is never part of a plan, and neither are other symbols.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from mmdata.datasets.disk import make_folder, sync_folder
from mmdata.datasets.errors import DatasetError, DiskError
from mmdata.datasets.layout import CAPTURES, NO_SYMBOL, STAGING, sessions_in
from mmdata.datasets.locks import symbol_lock
from mmdata.recorder.capture import KEPT
from mmdata.recorder.config import Job

_REMOVED = "removed-"


class Plan(NamedTuple):
    """What is to be removed: folders of partitions, and folders of sessions' kept captures."""

    partitions: list[Path]
    captures: list[Path]


def plan(job: Job, today: date) -> Plan:
    """Return what of the job's symbols is more than ``retain_days`` older than ``today``, a UTC date."""
    if job.retain_days is None:
        return Plan([], [])
    root, first_kept = Path(job.root), str(today - timedelta(days=job.retain_days))
    partitions: list[Path] = []
    captures: list[Path] = []
    for venue in job.venues:
        old = [path for path in _partitions(root, venue.exchange) if _date(path) < first_kept]
        chosen = [path for path in old if _symbol(path) in venue.symbols]
        # Rows of no single symbol go with the last symbol of their day.
        shared = {_date(path) for path in old if _symbol(path) not in (*venue.symbols, NO_SYMBOL)}
        chosen += [path for path in old if _symbol(path) == NO_SYMBOL and _date(path) not in shared]
        partitions += sorted(chosen)
        captures += _captures(root, venue.exchange, first_kept, removed={*chosen})
    return Plan(partitions, captures)


def carry_out(job: Job, found: Plan) -> None:
    """Remove what ``found`` names, each folder at once. DiskError: one cannot be removed; the rest stays."""
    staging = Path(job.root) / STAGING
    try:
        for leftover in staging.glob(f"{_REMOVED}*"):  # a kill came between
            shutil.rmtree(leftover)
        for folder in found.partitions:
            exchange = folder.parent.parent.name.removeprefix("exchange=")
            with symbol_lock(Path(job.root), exchange, _symbol(folder)):
                _remove(folder, staging)
        for folder in found.captures:
            _remove(folder, staging)
    except OSError as error:
        raise DiskError(
            f"{error.filename or job.root}: cannot be removed ({error.strerror}); it is kept"
        ) from error


def _remove(folder: Path, staging: Path) -> None:
    """Remove a folder: away under its name first, so that a reader, or a kill, never meets half of it."""
    make_folder(staging)
    away = folder.rename(staging / f"{_REMOVED}{secrets.token_hex(8)}")
    sync_folder(folder.parent)
    shutil.rmtree(away)
    with contextlib.suppress(OSError):  # the symbol has other days
        folder.parent.rmdir()


def describe(found: Plan) -> str:
    """Return a plan in words."""
    days = sorted({_date(path) for path in found.partitions})
    span = f" of {days[0]} to {days[-1]}" if days else ""
    return f"{len(found.partitions)} partitions{span}, {len(found.captures)} sessions' captures"


def today_utc() -> date:
    """Return the date that partitions of rows received now have."""
    return datetime.now(UTC).date()


def _partitions(root: Path, exchange: str) -> Iterator[Path]:
    """Yield the folders of every table's dates of ``exchange``."""
    for of_exchange in root.glob(f"[!.]*/exchange={exchange}"):
        yield from of_exchange.glob("symbol=*/date=*")


def _date(partition: Path) -> str:
    return partition.name.removeprefix("date=")


def _symbol(partition: Path) -> str:
    return unquote(partition.parent.name.removeprefix("symbol="))


def _captures(root: Path, exchange: str, first_kept: str, removed: set[Path]) -> list[Path]:
    """Return the sessions begun before ``first_kept`` of which no row is left, and all is ingested."""
    begun_before = first_kept.replace("-", "")
    sessions = root.glob(f"{CAPTURES}/{exchange}/[0-9]*")
    old = [path for path in sessions if path.name[:8] < begun_before]
    if not old:
        return []
    kept = [path for path in _partitions(root, exchange) if path not in removed]
    try:
        held = {
            name for partition in kept for part in partition.glob("*.parquet") for name in sessions_in(part)
        }
    except DatasetError:
        return []  # whose rows a damaged file holds is unknown: their captures may be all that is left
    return sorted(
        session
        for session in old
        if all(path.name.endswith(KEPT) for path in session.iterdir()) and session.name not in held
    )
