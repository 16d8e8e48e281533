"""What ingest made of each capture: kept from the moment that its rows are published until it is certified.

``<root>/.accounts/<exchange>/<session>/<n>.json``: one file a segment (an import of other captures is one
segment), written before the capture is put away, removed when every day that it tells of has a certificate
that holds it. A file there is therefore what certification has to do, whatever was killed when: ingesting a
segment again writes the same file again.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from mmdata.datasets.disk import make_folder, refusal, sync_folder
from mmdata.datasets.errors import DatasetError, DiskError
from mmdata.datasets.layout import STAGING

ACCOUNTS = ".accounts"


class Lines(msgspec.Struct, omit_defaults=True):
    """What the lines of a capture with receive times of one UTC date were."""

    lines: int = 0
    decoded: int = 0
    control: int = 0
    untabled: dict[str, int] = {}
    """Frames of channels that no table holds, by channel."""
    quarantined: int = 0
    sent: int = 0
    rest: int = 0
    events: int = 0
    repeats: int = 0
    """Messages among the decoded that another connection had brought before; they make no rows."""

    def accounted(self) -> int:
        """Return the second sum: it must be ``lines``."""
        kinds = (self.decoded, self.control, self.quarantined, self.sent, self.rest, self.events)
        return sum(kinds) + sum(self.untabled.values())


class DayAccount(msgspec.Struct, omit_defaults=True):
    """What one UTC date of a segment came to."""

    lines: Lines
    rows: dict[str, dict[str, int]] = {}
    """Rows decoded less repeats, by symbol and table."""


class Account(msgspec.Struct):
    """What ingest made of one segment."""

    exchange: str
    session: str
    segment: int
    days: dict[str, DayAccount]
    """By UTC date."""


def account_path(root: Path, account: Account) -> Path:
    """Return where an account waits for certification."""
    return root / ACCOUNTS / account.exchange / account.session / f"{account.segment:06d}.json"


def write_account(root: Path, account: Account) -> Path:
    """Keep an account until it is certified. DiskError: it cannot be written."""
    path = account_path(root, account)
    put(root, path, msgspec.json.encode(account, order="sorted"))
    return path


def read_accounts(
    root: Path, exchange: str | None = None, sessions: Collection[str] | None = None
) -> Iterator[tuple[Path, Account]]:
    """Yield the accounts that wait for certification, in order of their names.

    DatasetError: one cannot be read.
    """
    for path in sorted((root / ACCOUNTS).glob(f"{exchange or '*'}/*/*.json")):
        if sessions is not None and path.parent.name not in sessions:
            continue
        try:
            yield path, msgspec.json.decode(path.read_bytes(), type=Account)
        except msgspec.MsgspecError as error:
            raise DatasetError(
                f"{path}: is no account of an ingest ({error}); ingesting its capture again writes it anew"
            ) from error


def put(root: Path, path: Path, data: bytes) -> None:
    """Let a file of ``data`` appear under its name at once, replacing another. DiskError: it cannot."""
    staged = root / STAGING / f"{uuid.uuid4().hex}{path.suffix}"
    try:
        make_folder(staged.parent)
        with staged.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        make_folder(path.parent)
        staged.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise DiskError(f"{path}: could not be written ({refusal(error)}); what was there stays") from error


def take_away(path: Path) -> None:
    """Remove a certified account, and folders that are empty then."""
    path.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):
        try:
            folder.rmdir()
        except OSError:
            return  # others wait there
