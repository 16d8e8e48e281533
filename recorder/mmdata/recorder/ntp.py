"""What the system says of its own clock: whether something keeps it, and how far off it may be."""

from __future__ import annotations

import ctypes
import sys
from typing import NamedTuple

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5


class ClockState(NamedTuple):
    """State of the system's clock; None where the system does not tell."""

    synchronized: bool | None
    """Is it disciplined, by NTP or another source?"""
    most_error_us: int | None
    """The kernel's bound of its error, microseconds."""


class _Timex(ctypes.Structure):
    """The part of ``struct timex`` that is read, and room for the rest (208 bytes on 64 bits)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock_state() -> ClockState:
    """Ask the kernel; nothing is changed. Source: adjtimex(2), Linux."""
    if sys.platform != "linux":
        return ClockState(None, None)
    timex = _Timex()
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if state < 0:
        return ClockState(None, None)
    synchronized = state != _TIME_ERROR and not timex.status & _STA_UNSYNC
    return ClockState(synchronized, timex.maxerror)
