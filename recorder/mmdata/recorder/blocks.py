"""Blocks of a file, cut where lines end, and read one ahead of whoever works on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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


def ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield blocks, the next of which is read (and unpacked) meanwhile, in a thread."""
    with ThreadPoolExecutor(1) as aside:
        coming = aside.submit(next, blocks, None)
        while (block := coming.result()) is not None:
            coming = aside.submit(next, blocks, None)
            yield block
