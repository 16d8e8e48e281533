"""Columns that were decoded once, kept beside the dataset as memory-mapped arrays.

Decoding Parquet takes some fifty times as long as playing it; the second time a recording is looked at, its
arrays are mapped instead. ``<root>/.cache/columns/<exchange>/<symbol>/<key>/`` holds ``arrays`` (one behind
the other, from multiples of 64 bytes) and ``facts.json`` (their names, types, places, and the rest). The
key is a hash over the bytes of every file that the arrays were made of and over the code that made them,
so that nothing stale is ever found. The folder may be deleted at any time.

``MMDATA_COLUMN_CACHE`` says how much may be kept in a dataset (``20GiB`` where it says nothing, ``0``: none);
what was used longest ago goes first. Nothing is kept of recordings of less than 8 MiB, where the disk would
be left with less than 4 GiB, or in a folder that cannot be written.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from mmdata.datasets.errors import UsageError
from mmdata.datasets.jit import source_digest
from mmdata.datasets.stores import sha256_of
from mmdata.datasets.units import size_bytes

COLUMN_CACHE = Path(".cache/columns")
"""Below the root of a dataset."""
LIMIT = "MMDATA_COLUMN_CACHE"
LEAST_BYTES = 8 << 20
_LEAST_FREE = 4 << 30  # twice what recorders warn at
_DEFAULT_LIMIT = 20 << 30
_ALIGNMENT = 64
_NEW, _STALE_S = ".new-", 3600.0
_log = logging.getLogger(__name__)

Array = NDArray[Any]


class _Place(msgspec.Struct):
    """Where in the file an array lies."""

    name: str
    dtype: str
    length: int
    offset: int


class _Facts(msgspec.Struct):
    arrays: list[_Place]
    bytes: int
    crc32: int
    rest: dict[str, Any]


def limit() -> int:
    """Return how many bytes may be kept in a dataset. UsageError: `LIMIT` is no size."""
    told = os.environ.get(LIMIT)
    if told is None:
        return _DEFAULT_LIMIT
    try:
        return 0 if told == "0" else size_bytes(told)
    except ValueError as error:
        raise UsageError(
            f"{LIMIT} was {told!r}, expected a size such as 20GiB, or 0 to keep no columns"
        ) from error


class Entry:
    """What is kept, or may be, of a recording that was decoded from ``files`` by the code of ``modules``.

    ``told`` is what else the arrays hang on. ReplacedError: a file is gone. DatasetError: it cannot be read.
    """

    def __init__(
        self,
        root: Path,
        exchange: str,
        symbol: str,
        files: Sequence[Path],
        told: Iterable[object],
        modules: Sequence[ModuleType],
    ) -> None:
        self._base = root / COLUMN_CACHE
        key = hashlib.sha256(source_digest((sys.modules[__name__], *modules)).encode())
        with ThreadPoolExecutor(2) as pool:
            for path, digest in zip(files, pool.map(sha256_of, files), strict=True):
                key.update(f"{path.relative_to(root)}\0{digest}\0".encode())
        for one in told:
            key.update(f"{one!r}\0".encode())
        name = quote(symbol, safe="")
        self._folder = self._base / exchange / name / key.hexdigest()[:32]

    def find(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Return the arrays by name, and the rest of the facts; None: they are not kept, or damaged.

        The arrays are mapped; writing to one changes no file.
        """
        try:
            facts = msgspec.json.decode((self._folder / "facts.json").read_bytes(), type=_Facts)
            data = np.memmap(self._folder / "arrays", np.uint8, mode="c")
            if len(data) != facts.bytes or isal_zlib.crc32(data) != facts.crc32:
                raise ValueError("its bytes are not those that were written")
            found = {
                own.name: data[own.offset : own.offset + own.length * np.dtype(own.dtype).itemsize].view(
                    own.dtype
                )
                for own in facts.arrays
            }
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, msgspec.MsgspecError) as error:
            _log.warning("%s: is not used (%s); its recording is decoded again", self._folder, error)
            shutil.rmtree(self._folder, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):  # somebody else's folder: it is as if it had not been used
            os.utime(self._folder)
        return found, facts.rest

    def keep(self, arrays: Mapping[str, Array], rest: Mapping[str, Any]) -> None:
        """Keep arrays of one dimension, and facts that JSON can hold; others go where there is no room."""
        size = sum(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays.values())
        most = limit()
        if size > most:
            return
        made = self._base / f"{_NEW}{uuid.uuid4().hex}"
        try:
            made.mkdir(parents=True)
            if shutil.disk_usage(made).free - size < _LEAST_FREE:
                made.rmdir()
                return
            _write(made, arrays, rest)
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            made.rename(self._folder)
        except OSError as error:
            # Another process was faster, or nothing can be written here: the next one decodes again.
            _log.info("%s: columns are not kept (%s)", self._folder, error)
            shutil.rmtree(made, ignore_errors=True)
            return
        self._make_room(most)

    def _make_room(self, most: int) -> None:
        """Remove what was used longest ago, down to ``most`` in all; and what a dead process left."""
        for left in self._base.glob(f"{_NEW}*"):
            with contextlib.suppress(OSError):  # another process has just renamed it
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left, ignore_errors=True)
        kept = []
        for facts in self._base.glob("*/*/*/facts.json"):
            with contextlib.suppress(OSError):  # another process has just removed it
                folder = facts.parent
                size = sum(path.stat().st_size for path in folder.iterdir())
                kept.append((folder == self._folder, folder.stat().st_mtime_ns, size, folder))
        total = sum(size for _, _, size, _ in kept)
        for own, _, size, folder in sorted(kept):
            if total <= most or own:
                break
            shutil.rmtree(folder, ignore_errors=True)
            total -= size


def _write(folder: Path, arrays: Mapping[str, Array], rest: Mapping[str, Any]) -> None:
    places, at, crc = [], 0, 0
    with (folder / "arrays").open("xb") as file:
        for name, array in arrays.items():
            data = np.ascontiguousarray(array).view(np.uint8).data
            padding = bytes(-len(data) % _ALIGNMENT)
            places.append(_Place(name, array.dtype.str, len(array), at))
            for piece in (data, padding):
                file.write(piece)
                crc = isal_zlib.crc32(piece, crc)
                at += len(piece)
    facts = _Facts(places, at, crc, dict(rest))
    (folder / "facts.json").write_bytes(msgspec.json.encode(facts))
