"""The real capture of USDⓈ-M, one copy after the other: times and ids go on, so that its chains hold.

The REST book stands in the first copy only. Numbers keep their digits, levels are the real ones.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sources import SHARED

USDM = SHARED / "data/binance-usdm/btcusdt_20240808.gz"
EXCHANGE, SYMBOL = "binance-usdm", "BTCUSDT"
_PAUSE_MS = 1
_NUMBER = re.compile(rb'^(\d{19})|"([ETUut]|pu)":(\d+)', re.MULTILINE)
_BOOK = re.compile(rb'^\d+ \{"lastUpdateId".*\n', re.MULTILINE)


def copies(count: int) -> Iterator[bytes]:
    """Yield ``count`` copies of the capture, each as the text of whole lines."""
    first = gzip.decompress(USDM.read_bytes())
    yield first
    text = _BOOK.sub(b"", first)
    pieces, numbers = _split(text)
    found = {key: [value for own, value in numbers if own == key] for key in (b"", b"t", b"u", b"pu")}
    steps = {
        b"": (1 + (found[b""][-1] - found[b""][0]) // 1_000_000 + _PAUSE_MS) * 1_000_000,
        b"t": found[b"t"][-1] - found[b"t"][0] + 1,
        b"u": _last_depth_id(text) - found[b"pu"][0],
    }
    steps[b"U"] = steps[b"pu"] = steps[b"u"]
    steps[b"E"] = steps[b"T"] = steps[b""] // 1_000_000
    for copy in range(1, count):
        moved = [b"%d" % (value + copy * steps[key]) for key, value in numbers]
        woven = [part for pair in zip(pieces, moved, strict=False) for part in pair]
        yield b"".join([*woven, pieces[-1]])


def _split(text: bytes) -> tuple[list[bytes], list[tuple[bytes, int]]]:
    """Return what stands between the numbers that go on, and those numbers with their keys."""
    pieces, numbers = [], []
    at = 0
    for match in _NUMBER.finditer(text):
        key, place = (b"", 1) if match[1] else (match[2], 3)
        pieces.append(text[at : match.start(place)])
        numbers.append((key, int(match[place])))
        at = match.end(place)
    return [*pieces, text[at:]], numbers


def _last_depth_id(text: bytes) -> int:
    line = text[text.rindex(b'"e":"depthUpdate"') :]
    found = re.search(rb'"u":(\d+)', line)
    assert found is not None
    return int(found[1])


def level_rows(text: bytes) -> int:
    """Return how many levels the diffs of a capture have: of its lines, not its REST book."""
    return sum(line.count(b'["') for line in text.splitlines() if b'"depthUpdate"' in line)


def write_tiled(folder: Path, rows: int) -> tuple[Path, Path, int]:
    """Write at least ``rows`` level rows, compressed and not; return both paths and the rows."""
    packed, plain = folder / "tiled.gz", folder / "tiled.txt"
    each = level_rows(gzip.decompress(USDM.read_bytes()))
    count = -(-rows // each)
    with packed.open("wb") as gz, plain.open("wb") as raw:
        for text in copies(count):
            raw.write(text)
            gz.write(gzip.compress(text, 6))
    return packed, plain, count * each
