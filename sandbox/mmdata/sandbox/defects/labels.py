"""What was planted, and where: the labels, and the file in which they lie beside the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from mmdata.datasets.errors import DatasetError, DiskError

LABELS = "labels.json"
"""Name of the file with the labels, in the dataset's root (no table, so readers pass it by)."""

Severity = Literal["error", "warning", "info"]


class Label(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One planted defect, as the one finding that a validator must make of it.

    Place fields are None where they say nothing: a damaged file has no frame, a missing snapshot no row.
    """

    kind: str
    check: str
    """Name of the check that must find it."""
    severity: Severity
    exchange: str
    symbol: str
    """``_`` where the defect is of no single symbol."""
    count: int | None = None
    """How many rows, messages, ids ... as the check counts; None: not promised."""
    table: str | None = None
    file: str | None = None
    """Below the dataset's root."""
    row: int | None = None
    """Row of ``file``, from 0."""
    session: str | None = None
    frame: int | None = None
    id: int | None = None
    ts_recv: int | None = None
    """Ns since the epoch."""


class _File(msgspec.Struct):
    schema: int
    seed: int
    labels: list[Label]


def write_labels(root: Path, seed: int, labels: Sequence[Label]) -> None:
    """Write ``labels.json``."""
    data = msgspec.json.format(msgspec.json.encode(_File(1, seed, list(labels))), indent=1)
    (root / LABELS).write_bytes(data + b"\n")


def read_labels(root: Path) -> list[Label]:
    """Return the labels of a dataset. DiskError: it has none. DatasetError: they cannot be read."""
    path = root / LABELS
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File).labels
    except OSError as error:
        raise DiskError(
            f"{path}: cannot be read ({error.strerror}), expected the labels of defects"
        ) from error
    except msgspec.MsgspecError as error:
        raise DatasetError(f"{path}: holds no labels of defects: {error}") from error
