"""What a result is of, as one hash: its data's certificates, the code that made it, and all that was set."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets import chain, clocks, grid, loading, market
from mmdata.datasets.certificate.derive import Day
from mmdata.datasets.certificate.store import read_certificate
from mmdata.datasets.jit import source_digest
from mmdata.datasets.layout import date_name, list_parts
from mmdata.datasets.stores import root_of
from mmdata.datasets.times import DAY_NS
from mmdata.replay.deciding import reached
from mmdata.replay.strategies import Strategy

UNCERTIFIED = "uncertified"
_STANDS_ON = (book_kernel, chain, clocks, grid, loading, market)


def certified(
    root: str | os.PathLike[str], exchange: str, symbol: str, start: int | None, end: int | None
) -> tuple[tuple[str, str], ...]:
    """Return (date, sha256 of its certificate) of each day that ``[start, end)`` may be in, ns; in order.

    A day without a certificate is `UNCERTIFIED`. The recorder's clock names days; no clock is a day wrong.
    """
    place = root_of(root)
    first = "" if start is None else date_name(max(start - DAY_NS, 0))
    last = "9999" if end is None else date_name(end + DAY_NS)
    dates = {
        part.partition.date
        for table in ("depth", "trades")
        for part in list_parts(place, table, exchange=exchange, symbol=symbol)
    }
    found = []
    for date in sorted(date for date in dates if first <= date <= last):
        facts = read_certificate(place, Day(exchange, symbol, date))
        found.append((date, UNCERTIFIED if facts is None else str(facts["sha256"])))
    return tuple(found)


def run_hash(data: Sequence[tuple[str, str]], strategy: Strategy, told: object) -> str:
    """Return the sha256 of a run: another whenever data, code, strategy or ``told`` (plain JSON) are."""
    digest = hashlib.sha256(_code().encode())
    for part in reached(strategy.decide):
        digest.update(part)
    digest.update(json.dumps([data, told], sort_keys=True).encode())
    return digest.hexdigest()


@functools.cache
def _code() -> str:
    """Return a hash over the sources of the replay, and of what of the datasets it stands on."""
    own = Path(__file__).parent
    digest = hashlib.sha256(source_digest(_STANDS_ON).encode())
    for path in sorted(own.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
