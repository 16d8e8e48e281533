"""Kills itself before or after the n-th change that it makes to the file system: every moment there is.

``python -m tests.crash.stepper finish ROOT SEGMENT KEEP`` finishes the segment in a copy of ROOT for each n,
until an n is never reached, and leaves the copies as ``ROOT-<n>``; ``compact ROOT`` compacts it instead,
``merge ROOT STRIDE`` unites the two datasets in it to a third, at each STRIDE-th n; ``certify ROOT``
certifies what was ingested there. Forks, so that nothing is imported anew.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmdata.datasets import compact, compaction, disk, merge
from mmdata.datasets.certificate import certify_ingested
from mmdata.recorder.segments import finish_segment

_CHANGES = ("rename", "unlink", "fsync", "open", "mkdir", "rmdir", "close")


def die_at(number: int) -> None:
    """Let this process kill itself at its ``number``-th change: even ones before it, odd ones after it."""
    made = 0

    def counting(change: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            for moment in ("before", "after"):
                if made == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                made += 1
                if moment == "before":
                    outcome = change(*args, **kwargs)
            return outcome

        return run

    for name in _CHANGES:
        setattr(os, name, counting(getattr(os, name)))
    setattr(compaction, "swap", counting(disk.swap))  # noqa: B010 mypy: it is imported there


def each_step(root: Path, act: Callable[[Path], object], stride: int = 1) -> int:
    """Let ``act`` die at one change after the other (or at each ``stride``-th), in copies; return its end."""
    number = 0
    while True:
        copy = root.with_name(f"{root.name}-{number}")
        shutil.copytree(root, copy)
        child = os.fork()
        if child == 0:
            die_at(number)
            act(copy)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return number
        number += stride


def main(what: str, root: Path, *more: str) -> int:
    """Die at each step of one deed."""
    if what == "compact":
        return each_step(root, compact)
    if what == "merge":
        return each_step(root, lambda copy: merge(copy / "one", copy / "other", copy / "out"), int(more[0]))
    if what == "certify":
        return each_step(root, lambda copy: certify_ingested(copy, "binance"))
    segment, keep = Path(more[0]).relative_to(root), more[1] == "keep"
    return each_step(root, lambda copy: finish_segment(copy, copy / segment, keep=keep))


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))
