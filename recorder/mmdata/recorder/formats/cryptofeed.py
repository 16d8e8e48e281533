r"""Logs of cryptofeed's raw data collection: ``<local s>: <json>``; lines with ``<-`` are what it sent.

The address of the connection stands before ``<->`` (opened) and ``<-`` (sent). Seconds are read as
decimals, never through a float.

Source: bmoscon/cryptofeed, ``sample_data/`` of May 2022.
"""

from __future__ import annotations

import re

import msgspec

from mmdata.recorder.capture import DAMAGED, EVENT, FRAME, SENT, Event, Line

_RECEIVED = re.compile(rb"(\d{1,10})(?:\.(\d{1,9}))?: (.*)", re.DOTALL)
_SENT = re.compile(rb"(\S+) <- (\d{1,10})(?:\.(\d{1,9}))?: (.*)", re.DOTALL)
_OPENED = re.compile(rb"(\S+) <-> (\d{1,10})(?:\.(\d{1,9}))?")


def parse(number: int, text: bytes) -> Line:
    """Return what a line holds; one outside the format is DAMAGED. The one connection is number 0."""
    if match := _RECEIVED.fullmatch(text):
        seconds, fraction, payload = match.groups()
        return Line(number, FRAME, _nanoseconds(seconds, fraction), 0, payload)
    if match := _SENT.fullmatch(text):
        _, seconds, fraction, payload = match.groups()
        return Line(number, SENT, _nanoseconds(seconds, fraction), 0, payload)
    if match := _OPENED.fullmatch(text):
        address, seconds, fraction = match.groups()
        event = Event("connected", conn=0, detail={"url": address.decode(errors="backslashreplace")})
        return Line(number, EVENT, _nanoseconds(seconds, fraction), None, msgspec.json.encode(event))
    return Line(number, DAMAGED, 0, None, text)


def _nanoseconds(seconds: bytes, fraction: bytes | None) -> int:
    """Return seconds and their decimal fraction in ns.

    >>> _nanoseconds(b"1652459225", b"2987883")
    1652459225298788300
    """
    return int(seconds) * 1_000_000_000 + int((fraction or b"").ljust(9, b"0"))
