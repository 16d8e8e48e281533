"""A few integers in shared memory: what the test build tells at once, and still tells when it is dead.

A store into a mapped file needs no system call and survives `kill -9` of whoever made it.
"""

from __future__ import annotations

import mmap
from pathlib import Path

VENUES = ("binance", "okx")
ROTATING, ROTATIONS, INGESTING, PUBLISHING, CLOCK_OFFSET_NS, CONNECTIONS = range(6)
"""Cells. Of what is under way, 1; how often it began; the wall clock's error; how many connections."""
_FIRST, _MOST = 8, 24  # each connection has two cells: its venue's index, and its frames
_SIZE = 8 * (_FIRST + 2 * _MOST)


class Board:
    """The cells; the file is made, or opened where it is there."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            if path.stat().st_size == 0:
                file.write(bytes(_SIZE))
                file.flush()
            self._map = mmap.mmap(file.fileno(), _SIZE)
        self.cells = memoryview(self._map).cast("q")

    def new_connection(self, venue: str) -> int:
        """Return the cell that counts the frames of a new connection."""
        number = self.cells[CONNECTIONS]
        cell = _FIRST + 2 * number
        self.cells[cell] = VENUES.index(venue)
        self.cells[CONNECTIONS] = number + 1
        return cell + 1

    def handed_over(self, venue: str) -> list[int]:
        """Return how many frames each connection of a venue handed over, in order of its first one."""
        cells = range(_FIRST, _FIRST + 2 * self.cells[CONNECTIONS], 2)
        return [self.cells[cell + 1] for cell in cells if VENUES[self.cells[cell]] == venue]

    def close(self) -> None:
        """Unmap the file."""
        self.cells.release()
        self._map.close()
