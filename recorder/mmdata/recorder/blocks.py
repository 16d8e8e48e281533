"""Blocks of a file, cut where lines end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

SIZE = 1 << 22
"""Bytes of a block: some thousand frames, so that what is done once a block costs nothing."""


@dataclass
class WholeLines:
    """What is read, as whole lines, many at once; ``rest`` is what is left behind the last line's end."""

    blocks: Iterable[bytes]
    rest: int = 0

    def __iter__(self) -> Iterator[bytes]:
        unfinished: list[bytes] = []  # joined once: a line may span many blocks
        for block in self.blocks:
            end = block.rfind(b"\n") + 1
            if end:
                yield b"".join((*unfinished, block[:end]))
                unfinished.clear()
            unfinished.append(block[end:])
        self.rest = sum(map(len, unfinished))
