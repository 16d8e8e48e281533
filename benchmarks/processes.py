"""What a process has used so far, read from outside (Linux)."""

from __future__ import annotations

import time
from pathlib import Path

_PAGE = 4096


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of all threads of a process, ended ones too; ProcessLookupError: it is gone."""
    try:
        # The clock of another process: clock_getcpuclockid(3) by hand, exact where /proc/PID/stat has ticks.
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise ProcessLookupError(f"process {pid} has ended") from error


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def family(pid: int) -> list[int]:
    """Return a process and all that it has started and that still run, itself first."""
    found = [pid]
    for parent in found:
        for tasks in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in tasks.read_text().split()]
    return found


def quiet(pid: int, *, within_s: float = 120.0) -> float:
    """Wait until a process has nothing more to do; return the CPU seconds that it had used by then.

    TimeoutError: it was still busy after ``within_s``.
    """
    end_s = time.monotonic() + within_s
    used_s, calm = cpu_s(pid), 0
    while calm < _CALM_LOOKS:
        if time.monotonic() > end_s:
            raise TimeoutError(f"process {pid} was still busy after {within_s:.0f} s")
        time.sleep(_LOOK_S)
        before_s, used_s = used_s, cpu_s(pid)
        calm = calm + 1 if used_s - before_s < _BUSY_SHARE * _LOOK_S else 0
    return used_s


_LOOK_S = 0.1
_CALM_LOOKS = 5
_BUSY_SHARE = 0.05  # of a core; a recorder with nothing to record uses a tenth of that
