"""Lines of source files, compressed or not, with what is torn at the end told apart."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 1 << 20


@dataclass
class Lines:
    """The lines of one file, without their ends; ``torn`` is set when the iterator is done."""

    path: Path
    torn: str | None = None
    """What is torn at the end, in words; None when the file ends with a whole line."""

    def __iter__(self) -> Iterator[bytes]:
        unfinished: list[bytes] = []  # joined once: a line may span many blocks
        for block in self._blocks():
            first, *more = block.split(b"\n")
            unfinished.append(first)
            if more:
                yield b"".join(unfinished)
                yield from more[:-1]
                unfinished = [more[-1]]
        rest = sum(map(len, unfinished))
        if rest and self.torn is None:
            self.torn = f"the last line has no end ({rest} bytes)"

    def _blocks(self) -> Iterator[bytes]:
        with self.path.open("rb") as raw:
            magic = raw.read(4)
            raw.seek(0)
            if magic[:2] != _GZIP and magic != _ZSTD:
                while block := raw.read(_BLOCK):
                    yield block
                return
        try:
            yield from self._unpacked(magic)
        except (EOFError, OSError, zlib.error) as error:
            # What could be unpacked is used; the collector was killed, or the copy was cut short.
            self.torn = f"the compressed file ends early or is damaged ({error})"

    def _unpacked(self, magic: bytes) -> Iterator[bytes]:
        if magic == _ZSTD:
            import pyarrow as pa

            with pa.input_stream(str(self.path), compression="zstd") as stream:
                while block := bytes(stream.read(_BLOCK)):
                    yield block
            return
        with gzip.open(self.path, "rb") as file:
            while block := file.read1(_BLOCK):
                yield block
