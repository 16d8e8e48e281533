"""Small recordings made by hand, for the tests of every wing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from mmdata.datasets.validation import validate
from mmdata.recorder.capture import Header, Line, format_frame, parse_line
from mmdata.recorder.ingest import Ingest, IngestReport

SESSION = "20261121T080000Z-abcdef"
NOON = 1_795_262_400_000_000_000  # 2026-11-21T12:00:00Z
DAY = 86_400 * 1_000_000_000


TS = 1_723_161_253_000_000_000


LEVELS = ([["61737.63000000", "0.00000000"], ["61730.17", "1.5"]], [["61837.64", "0.00000001"]])
HEADER = Header(
    session="20261121T080000Z-abcdef",
    exchange="binance",
    segment=0,
    first_frame=0,
    started=1_795_248_000_000_000_000,
    monotonic=5,
    version="0.1.0",
    host="here",
    config="0123456789ab",
)


def depth(
    first: int, bids: list[list[str]], asks: list[list[str]], symbol: str = "BTCUSDT"
) -> dict[str, Any]:
    data = {
        "e": "depthUpdate",
        "E": NOON // 1_000,
        "s": symbol,
        "U": first,
        "u": first + 4,
        "b": bids,
        "a": asks,
    }
    return {"stream": f"{symbol.lower()}@depth@100ms", "data": data}


def frame(number: int, message: object, *, ts: int = NOON) -> Line:
    text = message if isinstance(message, bytes) else json.dumps(message, separators=(",", ":")).encode()
    return parse_line(number, format_frame(ts + number, 0, text, is_text=True)[:-1])


def run(root: Path, lines: list[Line]) -> IngestReport:
    ingest = Ingest(root, "binance", SESSION, {"version": "0.1.0"})
    for line in lines:
        ingest.take(line)
    ingest.flush()
    ingest.report.check()
    return ingest.report


def rows(root: Path, table: str) -> list[dict[str, Any]]:
    """Return the rows of a table in order; times as ns, which datetime cannot hold."""
    found: list[dict[str, Any]] = []
    for part in list_parts(root, table):
        read = read_part(part)
        for at, field in enumerate(read.schema):
            if pa.types.is_timestamp(field.type):
                read = read.set_column(at, field.name, read[field.name].cast(pa.int64()))
        found += read.to_pylist()
    return found


def spot_lines(*, skip: tuple[int, ...] = (), count: int = 10) -> list[bytes]:
    """Return a tiny capture of Binance spot: a snapshot at id 104, messages of five ids each, trades."""
    lines = [b'{"lastUpdateId":104,"bids":[["100.10","2"]],"asks":[["100.30","5.5"]]}']
    for i in range(count):
        if i in skip:
            continue
        first = 105 + 5 * i
        data = {"e": "depthUpdate", "E": 1, "s": "BTCUSDT", "U": first, "u": first + 4, "b": [], "a": []}
        data["b"] = [["100.20", f"{i + 1}.25"]]
        trade = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": i, "p": "100.2", "q": "0.5", "T": 1, "m": True}
        lines += [
            json.dumps({"stream": "btcusdt@depth@100ms", "data": data}).replace(" ", "").encode(),
            json.dumps({"stream": "btcusdt@trade", "data": trade}).replace(" ", "").encode(),
        ]
    return [b"%d %s\n" % (TS + 1_000_000 * at, line) for at, line in enumerate(lines)]


def flaws(root: Path) -> list[str]:
    """Return what the validator finds in a recording; a late message is a busy machine's doing, no flaw."""
    found = validate(root).findings
    return [own.sentence for own in found if own.severity != "info" and own.check != "latency"]
