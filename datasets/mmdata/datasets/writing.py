"""Which days are open: a recorder still writes them, so they are neither compacted nor verified."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from mmdata.datasets.layout import CAPTURES, first_date, list_parts
from mmdata.datasets.locks import RECORDER_LOCK, holder
from mmdata.datasets.schema import TABLES

_PENDING = (".open", ".cap")


def written_from(root: Path, exchange: str) -> tuple[str, str] | None:
    """Return the first date that a recorder of ``exchange`` still writes, and who it is; None: there is none.

    That is today, or the last date of a session of which captures are not ingested yet.
    """
    folder = root / CAPTURES / exchange
    who = holder(folder / RECORDER_LOCK)
    if who is None:
        return None
    sessions = {path.parent.name for path in folder.glob("*/*") if path.suffix in _PENDING}
    return min(
        [f"{datetime.now(UTC):%Y-%m-%d}", *(_last_date(root, exchange, name) for name in sessions)]
    ), who


def _last_date(root: Path, exchange: str, session: str) -> str:
    since = first_date(session)
    dates = (
        part.partition.date
        for table in TABLES
        for part in list_parts(root, table, exchange=exchange, since=since, session=session)
        if part.session == session
    )
    return max(dates, default=since)
