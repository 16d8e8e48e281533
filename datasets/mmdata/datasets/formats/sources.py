"""Files of other people's tables, in blocks of whole lines: plain, gzip, or members of a zip or tar.gz.

What is torn at a file's end is told apart; a file's checksum is compared where it lies beside it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmdata.datasets.errors import UsageError

_GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_READ = 1 << 20
_CACHED = 1 << 18  # small enough to stay in the processor's caches
_BLOCK = 4 << 20
_DAMAGED = (EOFError, OSError, zlib.error, zipfile.BadZipFile, tarfile.TarError)


@dataclass
class Blocks:
    """The text of a file as blocks of whole lines, a member of an archive after the other.

    ``torn`` is set when the iterator is done: what is torn at the end, in words; None for a whole file. The
    last line of a whole file needs no end.
    """

    path: Path
    torn: str | None = None

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name of the member (of a plain file: its own) and a block of its lines."""
        try:
            with contextlib.ExitStack() as stack:
                for name, file in _members(self.path, stack):
                    yield from ((name, block) for block in _whole_lines(file))
        except _DAMAGED as error:
            # What could be unpacked is used: the copy was cut short, or its writer was killed.
            self.torn = f"the file ends early or is damaged ({error})"


def _members(path: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, IO[bytes]]]:
    raw = stack.enter_context(path.open("rb"))
    magic = raw.read(4)
    raw.seek(0)
    if magic == _ZIP:
        archive = stack.enter_context(zipfile.ZipFile(raw))
        for info in archive.infolist():
            if not info.is_dir():
                yield info.filename, stack.enter_context(archive.open(info))
    elif magic[:2] == _GZIP and path.name.endswith((".tar.gz", ".tgz")):
        tape = stack.enter_context(tarfile.open(fileobj=raw, mode="r|gz"))  # noqa: SIM115
        for member in tape:
            if member.isfile():
                file = tape.extractfile(member)
                assert file is not None
                yield member.name, file
    elif magic[:2] == _GZIP:
        yield path.name, stack.enter_context(gzip.open(raw))  # type: ignore[arg-type]  # noqa: SIM115
    else:
        yield path.name, raw


def _whole_lines(file: Any) -> Iterator[bytes]:
    """Yield the lines of a file in blocks; of a damaged one, what comes before the damage."""
    rest = b""
    while True:
        block, damage = _read(file)
        end = block.rfind(b"\n") + 1
        if end:
            yield rest + block[:end]
            rest = b""
        rest += block[end:]
        if damage is not None:
            raise damage
        if not block:
            break
    if rest:
        yield rest


def _read(file: Any) -> tuple[bytes, Exception | None]:
    """Read a block, less only at the end or before damage."""
    pieces: list[bytes] = []
    size = 0
    while size < _BLOCK:
        try:
            piece = file.read1(_READ)
        except _DAMAGED as error:
            return b"".join(pieces), error
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces), None


def fingerprint(sources: Sequence[Path]) -> str:
    """Return the first 12 hex digits of the sha256 over the sources' bytes, in order.

    UsageError: one of them is not there or cannot be read, or is not what the checksum beside it says.
    """
    digest = hashlib.sha256()
    block = memoryview(bytearray(_CACHED))
    for path in sources:
        told = _told_beside(path)
        own = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while size := file.readinto(block):
                    digest.update(block[:size])
                    if told is not None:
                        own.update(block[:size])
        except OSError as error:
            raise UsageError(f"{path}: cannot be read ({error.strerror}); nothing was imported") from error
        if told not in (None, own.hexdigest()):
            raise UsageError(
                f"{path}: its sha256 is {own.hexdigest()}, and {_beside(path).name} says "
                f"{told or 'nothing'}; it is not what was published: fetch it again; nothing was imported"
            )
    return digest.hexdigest()[:12]


def _told_beside(path: Path) -> str | None:
    """Return what the ``.CHECKSUM`` that Binance publishes beside a file says; None: there is none."""
    try:
        told = _beside(path).read_text(encoding="ascii", errors="replace").split()
    except FileNotFoundError:
        return None
    return told[0].lower() if told else ""


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.CHECKSUM")
