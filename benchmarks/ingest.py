"""What recovering a capture costs: scan, decode, publish and compress, in a fresh process.

    python benchmarks/ingest.py [--megabytes 1000] [--trades 3] [--numbers plain|odd]

Makes a capture of Binance spot as a recorder that was killed leaves it: segments of 64 MiB, diffs of the
book and trades. The levels are those of the real capture where it is at hand (MMDATA_SHARED, default
../shared), else drawn by a seed; ids and times rise as they do there. ``odd`` puts white space between
the levels, so that every diff takes the strict path.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import msgspec

from mmdata.cli.shell import console, figures, say_table, words
from mmdata.recorder.capture import CaptureWriter, Header

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MMDATA_SHARED") or REPOSITORY.parent / "shared")
SOURCE = SHARED / "data/binance/btcusdt_20240809.gz"
EXCHANGE = "binance"
SEGMENT_BYTES = 64 << 20
START = 1_795_248_000_000_000_000  # 2026-11-21T08:00:00Z


def real_levels() -> list[str]:
    """Return the level arrays of the real capture's diffs, as ``"b":[..],"a":[..]``."""
    found = []
    with gzip.open(SOURCE, "rt", encoding="utf-8") as file:
        for line in file:
            data = json.loads(line.partition(" ")[2]).get("data", {})
            if data.get("e") == "depthUpdate":
                found.append(sides(data["b"], data["a"]))
    return found


def drawn_levels(seed: int = 1) -> list[str]:
    """Return level arrays like the real ones: 46 levels a diff, five in nine removed."""
    draw = random.Random(seed)

    def side() -> list[list[str]]:
        return [
            [
                f"{draw.uniform(60_000, 62_000):.2f}000000",
                f"{draw.choice((0, 0, 0, 0, 0, 1, 1, 1, 1)) * draw.uniform(0, 3):.5f}000",
            ]
            for _ in range(draw.randint(1, 45))
        ]

    return [sides(side(), side()) for _ in range(2_000)]


def sides(bids: list[list[str]], asks: list[list[str]]) -> str:
    """Return two arrays as the venue writes them."""
    bid, ask = (json.dumps(levels, separators=(",", ":")) for levels in (bids, asks))
    return f'"b":{bid},"a":{ask}'


def lines(levels: list[str], trades: int) -> Iterator[bytes]:
    """Yield lines of a capture without end: a diff, then its trades."""
    trade_id = 0
    for number, both in enumerate(cycle(levels)):
        stamp = START + number * 100_000_000
        first = 50_000_000_000 + number * 60
        sent = stamp // 1_000
        yield (
            f'{stamp} 0 {{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":{sent},'
            f'"s":"BTCUSDT","U":{first},"u":{first + 59},{both}}}}}\n'
        ).encode()
        for _ in range(trades):
            trade_id += 1
            yield (
                f'{stamp} 0 {{"stream":"btcusdt@trade","data":{{"e":"trade","E":{sent},"s":"BTCUSDT",'
                f'"t":{trade_id},"p":"61737.63000000","q":"0.00{trade_id % 1000:03d}000","T":{sent},"m":true,'
                f'"M":true}}}}\n'
            ).encode()


def write_capture(root: Path, size: int, trades: int, *, odd: bool) -> int:
    """Write a capture of ``size`` bytes and return how many lines it has."""
    levels = real_levels() if SOURCE.exists() else drawn_levels()
    if odd:
        levels = [both.replace("],[", "], [") for both in levels]
    header = Header("20261121T080000Z-bench2", EXCHANGE, 0, 0, START, 0, "0", "here", "0")
    folder = root / ".captures" / EXCHANGE / header.session
    writer = CaptureWriter(folder, header, seconds=1e9, size=SEGMENT_BYTES)
    written = count = 0
    for line in lines(levels, trades):
        if written >= size:
            break
        writer.write(line)
        written += len(line)
        count += 1
        if writer.is_due(0.0):
            writer.rotate()
    return count


class Measured(msgspec.Struct):
    """What a recovery took."""

    seconds: float
    user: float
    system: float
    peak_bytes: int
    lines: int
    rows: dict[str, int]


def recover_here(root: Path) -> Measured:
    """Recover in this process, imports and compiled kernels' loading included."""
    begun = time.perf_counter()
    from mmdata.recorder.segments import recover

    report, _ = recover(root, EXCHANGE)
    assert not report.failures
    taken = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = used.ru_maxrss * 1024
    return Measured(taken, used.ru_utime, used.ru_stime, peak, report.lines, dict(report.rows))


def recover_in_child(root: Path) -> Measured:
    """Recover in a fresh process."""
    command = [sys.executable, __file__, "--recover", str(root)]
    child = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(child.stdout, type=Measured)


def main() -> None:
    """Make a capture, recover it, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--trades", type=int, default=3, help="trades a diff; 3 in the real capture")
    parser.add_argument("--numbers", choices=("plain", "odd"), default="plain")
    parser.add_argument("--recover", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.recover is not None:
        sys.stdout.buffer.write(msgspec.json.encode(recover_here(options.recover)))
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        size = options.megabytes * 1_000_000
        lines_written = write_capture(root, size, options.trades, odd=options.numbers == "odd")
        found = recover_in_child(root)
        assert found.lines == lines_written
        stored = sum(path.stat().st_size for path in root.rglob("*.parquet"))
        kept = sum(path.stat().st_size for path in root.rglob("*.cap.zst"))
    levels = found.rows["depth"]
    shown = [
        ("wall", f"{found.seconds:.1f} s"),
        ("CPU, user and system", f"{found.user:.1f} s and {found.system:.1f} s"),
        ("capture a second", f"{size / found.seconds / 1e6:.1f} MB"),
        ("level rows a second", f"{levels / found.seconds:,.0f}"),
        ("peak memory", f"{found.peak_bytes / 1e6:,.0f} MB"),
        ("stored: tables, compressed capture", f"{stored / 1e6:.0f} MB, {kept / 1e6:.0f} MB"),
    ]
    whose = "the real capture's levels" if SOURCE.exists() else "drawn levels"
    title = (
        f"recovery of {options.megabytes:,} MB of capture: {levels:,} level rows, "
        f"{found.rows.get('trades', 0):,} trades ({whose}, {options.numbers} numbers)"
    )
    say_table(title, [*words("what"), *figures("measured")], shown, out=console())


if __name__ == "__main__":
    main()
