"""The test build: what Python runs first when this folder is on PYTHONPATH and CRASH_BOARD names a board.

It counts each frame at the moment at which the library hands it over, before the recorder can do anything
with it, and says what is under way. The code under test is not changed otherwise.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.crash.board import CLOCK_OFFSET_NS, INGESTING, PUBLISHING, ROTATING, ROTATIONS, Board


def marked(function: Callable[..., Any], board: Board, flag: int) -> Callable[..., Any]:
    """Return ``function`` with a flag up while it runs."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        board.cells[flag] = 1
        try:
            return function(*args, **kwargs)
        finally:
            board.cells[flag] = 0

    return run


def count_frames(board: Board) -> None:
    """Bump a connection's counter before a read's messages are handed over: the seam of the promise.

    What is handed over at once is written at once, so a read that is under way counts as one; when it is
    done, all of its messages count. One that the disk refused is never done, and nothing is taken after it.
    """
    from mmdata.recorder.wire import Wire

    hand_over = Wire._hand_over
    cells: dict[Wire, int] = {}

    def counted(self: Wire, messages: list[bytes], is_text: bool) -> None:
        if self.failure is not None:
            hand_over(self, messages, is_text)
            return
        cell = cells.get(self)
        if cell is None:
            path = self.request.path if self.request is not None else ""
            cell = cells[self] = board.new_connection("okx" if path.startswith("/ws/v5/") else "binance")
        board.cells[cell] += 1
        hand_over(self, messages, is_text)
        if self.failure is None:
            board.cells[cell] += len(messages) - 1

    Wire._hand_over = counted  # type: ignore[method-assign]


def tell_syncs(path: Path) -> None:
    """Append a line for each finished `fdatasync`: how long the file was when it began, and its path."""
    sync = os.fdatasync
    told = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def counted(handle: int) -> None:
        length = os.fstat(handle).st_size
        sync(handle)
        path = Path(f"/proc/self/fd/{handle}").readlink()
        os.write(told, b"%d %s\n" % (length, bytes(path)))

    os.fdatasync = counted  # type: ignore[assignment]


def watch_recorder(board: Board) -> None:
    """Count frames, tell rotations, and let the wall clock be wrong by what the board says."""
    from mmdata.recorder.capture import CaptureWriter, FinishedSegment

    true_time_ns, rotate = time.time_ns, CaptureWriter.rotate

    def counted(self: CaptureWriter, *args: Any) -> FinishedSegment:
        board.cells[ROTATIONS] += 1
        return rotate(self, *args)

    count_frames(board)
    tell_syncs(Path(os.environ["CRASH_BOARD"] + ".synced"))
    CaptureWriter.rotate = marked(counted, board, ROTATING)  # type: ignore[method-assign]
    # The other half of a rotation, in a thread: the segment before is synced and renamed.
    setattr(FinishedSegment, "close", marked(FinishedSegment.close, board, ROTATING))  # noqa: B010 frozen
    time.time_ns = lambda: true_time_ns() + board.cells[CLOCK_OFFSET_NS]


def watch_ingest(board: Board) -> None:
    """Tell when a segment is being ingested, and when one of its files is being published."""
    from mmdata.datasets import published
    from mmdata.recorder import segments

    board.cells[INGESTING] = board.cells[PUBLISHING] = 0  # the one before may have died meanwhile
    for module, name, flag in ((segments, "finish_segment", INGESTING), (published, "publish", PUBLISHING)):
        setattr(module, name, marked(getattr(module, name), board, flag))


if "CRASH_BOARD" in os.environ:
    watch = watch_ingest if "mmdata.recorder.ingest_process" in sys.orig_argv else watch_recorder
    watch(Board(Path(os.environ["CRASH_BOARD"])))
