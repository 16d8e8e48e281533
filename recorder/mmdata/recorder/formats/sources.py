"""Lines of source files, compressed or not, with what is torn at the end told apart."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from isal import isal_zlib

from mmdata.datasets.ahead import ahead
from mmdata.recorder.blocks import SIZE, WholeLines

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PACKED = 1 << 16  # compressed bytes
_GZIP_MEMBER = 31  # window bits, as zlib counts them: gzip's header and check sum
_DAMAGED = cast("type[Exception]", isal_zlib.error)  # its stub says an exception, not a kind of one
_UNREADABLE = (EOFError, OSError, _DAMAGED, zlib.error)
"""What unpacking raises where a file ends early or is damaged."""


@dataclass
class Lines:
    """The lines of one file; ``torn`` is set when the iterator is done."""

    path: Path
    torn: str | None = None
    """What is torn at the end, in words; None when the file ends with a whole line."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield whole lines with their ends, many at once."""
        lines = WholeLines(self._blocks())
        yield from ahead(iter(lines))
        if lines.rest and self.torn is None:
            self.torn = f"the last line has no end ({lines.rest} bytes)"

    def _blocks(self) -> Iterator[bytes]:
        with self.path.open("rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            if magic[:2] != _GZIP and magic != _ZSTD:
                while block := raw.read(SIZE):
                    yield block
                return
        try:
            yield from self._unpacked(magic)
        except _UNREADABLE as error:
            # What could be unpacked is used; the collector was killed, or the copy was cut short.
            self.torn = f"the compressed file ends early or is damaged ({error})"

    def _unpacked(self, magic: bytes) -> Iterator[bytes]:
        if magic == _ZSTD:
            import pyarrow as pa

            with pa.input_stream(str(self.path), compression="zstd") as stream:
                while block := bytes(stream.read(SIZE)):
                    yield block
            return
        yield from _gathered(self._gunzipped())

    def _gunzipped(self) -> Iterator[bytes]:
        given = 0
        try:
            with self.path.open("rb") as file:
                for piece in _members(iter(lambda: file.read(_PACKED), b"")):
                    yield piece
                    given += len(piece)
        except _UNREADABLE:
            # Python's own gzip is slower, and gives more of what comes before the damage.
            with gzip.open(self.path, "rb") as file:
                while piece := file.read1(_PACKED):
                    if given < len(piece):
                        yield piece[given:]
                    given = max(given - len(piece), 0)


def _members(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what gzip members, one behind the other, hold, as far as it can be unpacked."""
    member = isal_zlib.decompressobj(_GZIP_MEMBER)
    is_begun = False
    for block in blocks:
        while block := block if is_begun else block.lstrip(b"\0"):  # padding may stand between members
            yield member.decompress(block)
            is_begun = not member.eof
            block = member.unused_data
            if member.eof:
                member = isal_zlib.decompressobj(_GZIP_MEMBER)
    if is_begun:
        raise EOFError("the last member has no end")


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield small pieces as blocks; what came before an error is yielded before it is raised."""
    gathered: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            gathered.append(piece)
            size += len(piece)
            if size >= SIZE:
                yield b"".join(gathered)
                gathered.clear()
                size = 0
    except _UNREADABLE:
        yield b"".join(gathered)
        raise
    yield b"".join(gathered)
