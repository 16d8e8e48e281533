"""Columns that were decoded once, kept beside the dataset as memory-mapped arrays, a session at a time.

Decoding Parquet takes some fifty times as long as playing it; the second time a session is looked at, its
arrays are mapped instead. ``<root>/.cache/columns/<exchange>/<symbol>/<key>/`` holds ``arrays`` (one behind
the other, from multiples of 64 bytes) and ``facts.json`` (their names, types, places, and the rest). The
key is a hash over the bytes of every file that has rows of the session, over which rows those are, and over
the code that made the arrays, so that nothing stale is ever found. The folder may be deleted at any time.

``MMDATA_COLUMN_CACHE`` says how much may be kept in a dataset (``20GiB`` where it says nothing, ``0``: none);
what was used longest ago goes first. Nothing is kept of sessions of less than 1 MiB, where the disk would
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
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
LEAST_BYTES = 1 << 20
"""What a session's files have; less is decoded within a tenth of a second."""
_LEAST_FREE = 4 << 30  # twice what recorders warn at
_DEFAULT_LIMIT = 20 << 30
_ALIGNMENT = 64
_NEW, _STALE_S = ".new-", 3600.0
_log = logging.getLogger(__name__)

Array = NDArray[Any]
_Read = TypeVar("_Read")


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


class _Sealed(msgspec.Struct):
    """What ``facts.json`` holds."""

    crc32: int
    facts: msgspec.Raw


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


class Shelf:
    """What is kept of one symbol's sessions, for one look at them, by the code of ``modules``.

    What a look has used makes no room for what comes later in it: else of a recording that is larger than
    what may be kept, each session would drive out the one that the next look begins with.
    """

    def __init__(self, root: Path, exchange: str, symbol: str, modules: Sequence[ModuleType]) -> None:
        self._root = root
        self.base = root / COLUMN_CACHE
        self.own = self.base / exchange / quote(symbol, safe="")
        self.used: set[Path] = set()
        self.full = False
        """Something found no room, or nothing can be written: nothing more is kept."""
        self._code = source_digest((sys.modules[__name__], *modules))

    def entries(self, wanted: Sequence[tuple[Sequence[Path], Sequence[object]]]) -> list[Entry]:
        """Return the entry of each session: of the files that hold it, and of what else its arrays hang on.

        ReplacedError: a file is gone. DatasetError: it cannot be read.
        """
        # A compacted file holds many sessions, and is hashed once.
        files = [*dict.fromkeys(path for own, _ in wanted for path in own)]
        with ThreadPoolExecutor(2) as pool:
            digests = dict(zip(files, pool.map(sha256_of, files), strict=True))
        return [self._entry({path: digests[path] for path in own}, told) for own, told in wanted]

    def _entry(self, digests: Mapping[Path, str], told: Sequence[object]) -> Entry:
        key = hashlib.sha256(self._code.encode())
        for path, digest in digests.items():
            key.update(f"{path.relative_to(self._root)}\0{digest}\0".encode())
        for one in told:
            key.update(f"{one!r}\0".encode())
        return Entry(self, self.own / key.hexdigest()[:32])

    def make_room(self, newest: Path, most: int) -> None:
        """Remove what was used longest ago, down to ``most`` in all; and what a dead process left.

        What this look used stays, even if ``newest`` has to go for it.
        """
        for left in self.base.glob(f"{_NEW}*"):
            with contextlib.suppress(OSError):  # another process has just renamed it
                if time.time() - left.stat().st_mtime > _STALE_S:
                    shutil.rmtree(left, ignore_errors=True)
        kept = []
        for folder in self.base.glob("*/*/*"):
            with contextlib.suppress(OSError):  # another process has just removed it
                size = sum(path.stat().st_size for path in folder.iterdir())
                kept.append((folder == newest, folder.stat().st_mtime_ns, size, folder))
        total = sum(size for _, _, size, _ in kept)
        for own, _, size, folder in sorted(kept):
            if total <= most:
                break
            if folder not in self.used:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size
                self.full |= own


class Entry:
    """What is kept, or may be, of one session."""

    def __init__(self, shelf: Shelf, folder: Path) -> None:
        self._shelf = shelf
        self._folder = folder

    @property
    def refused(self) -> bool:
        """Whether it will not be kept, since there is no room."""
        return self._shelf.full

    def rest(self) -> dict[str, Any] | None:
        """Return what was kept beside the arrays, which are not looked at; None: as `find` has it."""
        facts = self._attempt(self._facts)
        return None if facts is None else facts.rest

    def find(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Return the arrays by name, and the rest of the facts; None: they are not kept, or damaged.

        The arrays are mapped; writing to one changes no file.
        """
        return self._attempt(self._mapped)

    def _attempt(self, read: Callable[[], _Read]) -> _Read | None:
        try:
            found = read()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, msgspec.MsgspecError) as error:
            _log.warning("%s: is not used (%s); its session is decoded again", self._folder, error)
            shutil.rmtree(self._folder, ignore_errors=True)
            return None
        self._shelf.used.add(self._folder)
        with contextlib.suppress(OSError):  # somebody else's folder: it is as if it had not been used
            os.utime(self._folder)
        return found

    def _facts(self) -> _Facts:
        sealed = msgspec.json.decode((self._folder / "facts.json").read_bytes(), type=_Sealed)
        _check(isal_zlib.crc32(sealed.facts) == sealed.crc32)
        return msgspec.json.decode(sealed.facts, type=_Facts)

    def _mapped(self) -> tuple[dict[str, Array], dict[str, Any]]:
        facts = self._facts()
        _check((self._folder / "arrays").exists())
        data = np.memmap(self._folder / "arrays", np.uint8, mode="c")
        _check(len(data) == facts.bytes and isal_zlib.crc32(data) == facts.crc32)
        found = {
            own.name: data[own.offset : own.offset + own.length * np.dtype(own.dtype).itemsize].view(
                own.dtype
            )
            for own in facts.arrays
        }
        return found, facts.rest

    def keep(self, arrays: Mapping[str, Array], rest: Mapping[str, Any]) -> None:
        """Keep arrays of one dimension, and facts that JSON can hold; others go where there is no room."""
        size = sum(-(-array.nbytes // _ALIGNMENT) * _ALIGNMENT for array in arrays.values())
        most = limit()
        if size > most or self.refused:
            return
        made = self._shelf.base / f"{_NEW}{uuid.uuid4().hex}"
        try:
            made.mkdir(parents=True)
            if shutil.disk_usage(made).free - size < _LEAST_FREE:
                made.rmdir()
                self._shelf.full = True
                return
            _write(made, arrays, rest)
            self._shelf.own.mkdir(parents=True, exist_ok=True)
            if not (self._folder / "facts.json").exists():  # what is left of it would be in the way
                shutil.rmtree(self._folder, ignore_errors=True)
            made.rename(self._folder)
        except OSError as error:
            # Another process was faster, or nothing can be written here: the next one decodes again.
            self._shelf.full = not self._folder.exists()
            _log.info("%s: columns are not kept (%s)", self._folder, error)
            shutil.rmtree(made, ignore_errors=True)
            return
        self._shelf.make_room(self._folder, most)
        self._shelf.used.add(self._folder)


def _check(holds: bool) -> None:
    if not holds:
        raise ValueError("its bytes are not those that were written")


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
    facts = msgspec.json.encode(_Facts(places, at, crc, dict(rest)))
    sealed = _Sealed(isal_zlib.crc32(facts), msgspec.Raw(facts))
    (folder / "facts.json").write_bytes(msgspec.json.encode(sealed))
