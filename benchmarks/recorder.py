"""What a recorded message costs: mmdata against cryptofeed and crypto-lob-stream, same frames, same sockets.

    make bench-recorder                                    installs the rivals into .venv-rivals first
    python -m benchmarks.recorder [--rounds 5] [--rates full,20000,2000] [--channels both]

CPU time, not wall time, of the process that receives, between the first frame of a block and the moment at
which it has nothing more to do; starting, connecting and warming up are not in it. Rounds are interleaved,
ratios are of medians of one run. cryptofeed keeps books and calls back, and stores nothing;
crypto-lob-stream checks ids and keeps rows in memory (its Parquet is in the last column only); mmdata
checks ids and has every frame in a file, its ingest running beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.clients import (
    CRYPTOFEED,
    LOB_STREAM,
    MMDATA,
    RIVALS_PYTHON,
    Client,
    running_client,
    running_feed,
)
from benchmarks.processes import cpu_s, family, quiet
from benchmarks.sources import captures
from mmdata.cli.shell import console, figures, say_table, words

_WARM_UP = 2_000
_SEGMENT_S = 5
# Closed every few seconds, so that ingest has work meanwhile.
_SETTINGS = {"segment": {"seconds": f"{_SEGMENT_S}s", "bytes": "4MiB"}}
_FEED_CORE, _CLIENT_CORE = 0, 1
_FULL_MESSAGES, _PACED_S = 50_000, 5.0

# cryptofeed knows aggregates only, crypto-lob-stream single trades only: ours is measured on either.
PAIRS = [(MMDATA, "trade"), (LOB_STREAM, "trade"), (MMDATA, "aggTrade"), (CRYPTOFEED, "aggTrade")]
TARGETS = {CRYPTOFEED: 5.0, LOB_STREAM: 3.0}


@dataclass(frozen=True)
class Measured:
    """One block of one client; microseconds of CPU a message."""

    client: str
    trades: str
    rate: float | None
    sent: int
    receiving_us: float
    """Of the process that receives."""
    all_us: float
    """Of all its processes, tables on disk included where the tool makes them."""
    problem: str
    """What is missing of what was sent; empty when nothing is."""


def measure(
    name: str, files: Sequence[Path], streams: Sequence[str], rate: float | None, folder: Path
) -> Measured:
    """Run one client over one block."""
    count = _FULL_MESSAGES if rate is None else int(rate * _PACED_S)
    with (
        running_feed(files, streams, _FEED_CORE) as feed,
        running_client(name, feed.port, streams, folder, core=_CLIENT_CORE, settings=_SETTINGS) as client,
    ):
        feed.send(_WARM_UP, None)
        quiet(client.pid)
        if name == MMDATA:
            _ingested(client)
        before = {pid: cpu_s(pid) for pid in family(client.pid)}
        sent = feed.send(count, rate)["sent"]
        received_s = quiet(client.pid)
        if name == MMDATA:
            _ingested(client)
            all_s = sum(cpu_s(pid) - before.get(pid, 0.0) for pid in family(client.pid))
        truth = feed.book()
        client.stop()
    receiving_us = (received_s - before[client.pid]) / sent * 1e6
    all_us = all_s / sent * 1e6 if name == MMDATA else receiving_us
    if name == LOB_STREAM:  # its last flush is of everything, the warm-up too
        all_us += (client.report["cpu_s"] - received_s) / (sent + _WARM_UP) * 1e6
    problem = missing(name, client.report, truth)
    return Measured(name, streams[-1], rate, sent, receiving_us, all_us, problem)


def _ingested(client: Client) -> None:
    """Wait until ours has closed the segment that is open, and has made tables of it."""
    time.sleep(_SEGMENT_S + 2)
    for pid in family(client.pid):
        quiet(pid)


def missing(name: str, report: dict[str, Any], truth: dict[str, Any]) -> str:
    """Return what a client has not delivered of what was sent to it."""
    sent = truth["sent"]
    trades = sent.get("trade", 0) + sent.get("aggTrade", 0)
    if name == MMDATA:
        venue = report["venues"][0]
        found = {"frames": venue["frames"], "trades": venue["rows"].get("trades", 0), "gaps": venue["gaps"]}
        wanted = {"frames": sum(sent.values()), "trades": trades, "gaps": 0}
    else:
        ids = report["books"]
        last_id = ids[-1][-1] if ids and name == LOB_STREAM else ids[-1] if ids else None
        found = {"trades": len(report["trades"]), "last_id": last_id}
        wanted = {"trades": trades, "last_id": truth["last_id"] if "depth@100ms" in sent else None}
        if "bid" in report:
            found |= {"bid": report["bid"], "ask": report["ask"]}
            wanted |= {"bid": truth["bid"], "ask": truth["ask"]}
    return ", ".join(f"{key} {found[key]}, sent {wanted[key]}" for key in found if found[key] != wanted[key])


def main() -> None:
    """Measure, and print a table a rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rates", default="full,20000,2000", help="messages a second, or full")
    parser.add_argument("--channels", choices=["both", "depth", "trades"], default="both")
    parser.add_argument("--json", type=Path, help="also write every measurement here")
    given = parser.parse_args()
    if not RIVALS_PYTHON.exists():
        sys.exit(f"{RIVALS_PYTHON} is missing: make bench-recorder makes it")
    rates = [None if rate == "full" else float(rate) for rate in given.rates.split(",")]
    measured = []
    # SIGTERM, too, unwinds: no client is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        what, files = captures(Path(folder))
        for turn in range(given.rounds):
            for rate in rates:
                for name, trades in PAIRS:
                    streams = {"both": ["depth@100ms", trades], "depth": ["depth@100ms"], "trades": [trades]}
                    place = Path(folder) / f"{turn}-{given.rates}-{rate}-{name}-{trades}"
                    measured.append(measure(name, files, streams[given.channels], rate, place))
                    print(f"round {turn + 1}: {measured[-1]}", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps([asdict(one) for one in measured], indent=1))
    for rate in rates:
        say(f"{what}, {given.channels}", [one for one in measured if one.rate == rate], rate)


def say(what: str, measured: Sequence[Measured], rate: float | None) -> None:
    """Print the medians of one rate, and each rival's as a multiple of ours on the same frames."""
    of: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for one in measured:
        of[one.client, one.trades].append(one)
    receiving = {key: statistics.median(one.receiving_us for one in ones) for key, ones in of.items()}
    rows = []
    for (client, trades), ones in of.items():
        ours = receiving[MMDATA, trades]
        spread = f"{min(one.receiving_us for one in ones):.1f}-{max(one.receiving_us for one in ones):.1f}"
        problems = "; ".join(sorted({one.problem for one in ones} - {""}))
        times = receiving[client, trades] / ours
        wanted = f"{times:.1f} (target {TARGETS[client]:.0f})" if client in TARGETS else ""
        rows.append(
            (
                *(client, trades, f"{receiving[client, trades]:.1f}", spread, wanted),
                f"{statistics.median(one.all_us for one in ones):.1f}",
                problems or "none",
            )
        )
    speed = "as fast as it takes them" if rate is None else f"{rate:,.0f} messages a second"
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    title = f"{speed}; {what}; {os.cpu_count()} cores, load {load}"
    columns = [
        *words("recorder", "trades as"),
        *figures("CPU µs a message", "of rounds", "times ours", "all, tables too"),
        *words("missing"),
    ]
    say_table(title, columns, rows, out=console())


if __name__ == "__main__":
    main()
