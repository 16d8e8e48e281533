"""Captures of Binance read by the kernel and by the strict reader, to be compared."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa

from mmdata.datasets.layout import Partition
from mmdata.recorder.capture import parse_line
from mmdata.recorder.formats import hftbacktest
from mmdata.recorder.importing import _ForeignReader
from mmdata.recorder.ingest import Ingest, IngestReport
from tests.builders import SESSION

Published = list[tuple[Partition, int, dict[str, str], pa.Table]]
Steps = list[tuple[str, int, int]]
"""Kind of message, by how much its id goes on, and connection."""

NOWHERE = Path(tempfile.gettempdir()) / "mmdata-nowhere"
"""A root of which only locks are taken: what would be published there is kept (`published`)."""

KINDS = ("depth", "depth", "depth", "trade", "aggTrade", "bookTicker")


def message(kind: str, symbol: str, last: int, before: int, *, usdm: bool) -> bytes:
    """Return a frame of one kind whose id is ``last``; that of the message before it was ``before``."""
    names = {"depth": "depth@100ms"}
    data: dict[str, object] = {"e": kind, "E": 1723161255208, "s": symbol}
    if kind == "depth":
        data |= {"U": before + 1, "u": last}
        if usdm:
            data |= {"T": 1723161255207, "pu": before}
        data |= {"b": [["61737.63", "1.5"]] * (last % 3), "a": [["61738", "0.00000001"]] * (last % 2)}
    elif kind == "bookTicker":
        data |= {"u": last, "b": "1.5", "B": "2", "a": "1.6", "A": "3"}
        data |= {"T": 1723161255207} if usdm else {}
    else:
        data |= {"p": "61737.63", "q": "0.014", "T": 1723161255207, "m": last % 2 == 0}
        data |= {"t": last} if kind == "trade" else {"a": last, "f": 2 * last, "l": 2 * last + 1}
        data |= {"X": "MARKET"} if usdm and kind == "trade" else {"M": True}
    stream = f"{symbol.lower()}@{names.get(kind, kind)}"
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def capture(told: Steps, symbols: list[str], *, usdm: bool) -> list[tuple[int, bytes]]:
    """Return connection and frame of messages whose ids go on as told."""
    at: dict[tuple[str, str], int] = {}
    found = []
    for number, (kind, step, conn) in enumerate(told):
        symbol = symbols[number % len(symbols)]
        before = at.get((kind, symbol), 100)
        last = before + step
        found.append((conn, message(kind, symbol, last, min(before, last - 1), usdm=usdm)))
        at[kind, symbol] = last if step > -40 else 5
    return found


@contextmanager
def published(found: Published) -> Iterator[None]:
    """Keep what would be published, instead."""

    def publish(
        root: Path, partition: Partition, session: str, n: int, rows: pa.Table, facts: dict[str, str]
    ) -> None:
        found.append((partition, n, facts, rows.combine_chunks()))

    with patch("mmdata.datasets.published.publish", publish):
        yield


def ingested(exchange: str, lines: list[bytes], *, plain: bool) -> tuple[IngestReport, Published, int]:
    """Return what ingest says of our captures' lines, what it would publish, and how many lines were left."""
    found: Published = []
    strict = 0
    with published(found):
        ingest = Ingest(NOWHERE, exchange, SESSION, {})

        def take(number: int, text: bytes) -> None:
            nonlocal strict
            strict += 1
            ingest.take(parse_line(number, text))

        if plain:
            text = b"".join(line + b"\n" for line in lines)
            assert ingest.take_lines(text, 7, take, is_tagged=True) == 7 + len(lines)
        else:
            for number, line in enumerate(lines, 7):
                take(number, line)
        ingest.flush()
    ingest.report.check()
    return ingest.report, found, strict


def imported(exchange: str, lines: list[bytes], *, plain: bool) -> tuple[IngestReport, Published, int]:
    """Return what an import says of a foreign capture, what it would publish, and how many gaps it noted."""
    found: Published = []
    with published(found), patch("mmdata.recorder.ingest._PLAIN", (exchange,) if plain else ()):
        ingest = Ingest(NOWHERE, exchange, SESSION, {})
        reader = _ForeignReader(ingest, exchange, "BTCUSDT", user_grid={})
        number = reader.take_lines(b"".join(line + b"\n" for line in lines), 0, hftbacktest.parse)
        reader.finish(number)
        ingest.flush()
    ingest.report.check()
    return ingest.report, found, reader.gaps


def same(exchange: str, lines: list[bytes]) -> int:
    """Compare both ways of ingest; return how many lines were left to the strict one."""
    report, found, strict = ingested(exchange, lines, plain=True)
    assert (report, found) == ingested(exchange, lines, plain=False)[:2]
    return strict
