"""What each recorder loses when the venue misbehaves: the same fault script for mmdata and its rivals.

    python -m benchmarks.faults [--only "closed;cut off"] [--seconds 25]

One run of a sandbox exchange a fault and recorder, BTCUSDT of Binance, depth and trades. What was published
is compared with what was delivered: trades by id, book messages by id, the best bid and ask at the last
delivered id with the engine's own. Told: did the tool say so, in its log, its events or its gap table?
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.clients import CRYPTOFEED, LOB_STREAM, MMDATA, Client, running_client
from benchmarks.sources import ENVIRONMENT
from mmdata.cli.shell import console, say_table, words
from mmdata.datasets import scan
from mmdata.replay import tops
from mmdata.sandbox import Truth, read_truth

SYMBOL, VENUE = "BTCUSDT", "binance"
TOOLS = {MMDATA: "trade", LOB_STREAM: "trade", CRYPTOFEED: "aggTrade"}
_SETTINGS = {"segment": {"seconds": "300s", "bytes": "64MiB"}}
_BOOK = {"stream": "btcusdt@depth*", "at_message": 80}  # by message: about 8 s after the connection
_TRADE = {"stream": "btcusdt@*rade", "at_message": 240}
_ANY = {"at_message": 320}
_SNAPSHOT = {"path": "/api/v3/depth", "at_message": 1}

Script = list[dict[str, Any]]
SCENARIOS: dict[str, Script] = {
    "nothing": [],
    "3 book messages dropped": [{"kind": "drop", **_BOOK, "burst": 3}],
    "5 trades dropped": [{"kind": "drop", **_TRADE, "burst": 5}],
    "50 frames sent twice": [{"kind": "duplicate", **_ANY, "burst": 50}],
    "2 book messages in the wrong order": [{"kind": "reorder", **_BOOK}],
    "a book message cut short": [{"kind": "truncate", **_BOOK}],
    "a trade that is no JSON": [{"kind": "invalid_json", **_TRADE}],
    "an unknown field in 100 frames": [{"kind": "unknown_field", **_ANY, "burst": 100}],
    "a book message's id as text": [{"kind": "wrong_type", **_BOOK, "field": "u"}],
    "a frame of over 16 MiB": [{"kind": "oversize", **_BOOK}],
    "5 s held back": [{"kind": "stall", **_ANY, "for": "5s"}],
    "5 s never sent": [{"kind": "stall", **_ANY, "for": "5s", "lose": True}],
    "closed": [{"kind": "close", **_ANY}],
    "cut off": [{"kind": "abort", **_ANY}],
    "cut off, refused 3 times": [
        {"kind": "refuse", "at_message": 2, "burst": 3},
        {"kind": "abort", **_ANY},
    ],
    "serverShutdown, closed 5 s later": [{"kind": "server_shutdown", **_ANY, "close_after": "5s"}],
    "2 snapshots refused (503)": [{"kind": "rest_error", **_SNAPSHOT, "burst": 2}],
    "first snapshot 3 s late": [{"kind": "rest_slow", **_SNAPSHOT, "by": "3s"}],
    "first snapshot 5 s old": [{"kind": "rest_stale", **_SNAPSHOT, "by": "5s"}],
    "first snapshot 2 s ahead": [{"kind": "rest_ahead", **_SNAPSHOT, "by": "2s"}],
    "the venue's clock back 1 h": [{"kind": "clock_step", **_ANY, "by": "-1h"}],
    "ids go down": [{"kind": "id_reset", **_ANY}],
}


@dataclass(frozen=True)
class Delivered:
    """What a tool has of a run."""

    trades: set[int]
    books: list[int]
    """Last ids, in the tool's order."""
    best: tuple[str, str] | None
    """Bid and ask after the last of them; None: no book, or one that the tool calls invalid."""


def delivered(name: str, client: Client) -> Delivered:
    """Return what a tool has of a run that has ended."""
    if name != MMDATA:
        report = client.report
        ids = [book[-1] if isinstance(book, list) else book for book in report["books"]]
        best = (report["bid"][0], report["ask"][0]) if "bid" in report else None
        return Delivered(set(report["trades"]), ids, best)
    root = client.folder / "data"
    # A busy machine may not have ingested all of it within `stop_timeout`; its users' next start does.
    recovery = [sys.executable, "-m", "mmdata.cli.main", "recover", str(root)]
    subprocess.run(recovery, env=ENVIRONMENT, check=True, capture_output=True)
    depth = scan(root, "depth", exchange=VENUE, symbol=SYMBOL).select("last_id").collect()["last_id"]
    trades = scan(root, "trades", exchange=VENUE, symbol=SYMBOL).select("trade_id").collect()["trade_id"]
    last = tops(root, exchange=VENUE, symbol=SYMBOL).row(-1, named=True)
    best = (str(last["bid_price"]), str(last["ask_price"])) if last["valid"] else None
    return Delivered(set(trades), depth.unique(maintain_order=True).to_list(), best)


@dataclass(frozen=True)
class Result:
    """What came of one fault at one tool."""

    scenario: str
    tool: str
    published_trades: int
    missing_trades: int
    published_books: int
    missing_books: int
    book: str
    """At the end: right, WRONG, or none (which the tool says itself)."""
    told: bool
    """Did it write a warning, or a gap?"""
    alive: bool
    """Did it still deliver when the run ended?"""
    problem: str = ""
    """How it ended, if it did not end well."""


def run(scenario: str, name: str, folder: Path, seconds: float) -> Result:
    """Run one tool against one fault."""
    streams = ["depth@100ms", TOOLS[name]]
    with running_sandbox(folder / "truth", SCENARIOS[scenario]) as port:
        with running_client(
            name, port, streams, folder / "tool", core=None, settings=_SETTINGS, book=True
        ) as client:
            _wait_for(folder / "truth/frames.jsonl")
            if SCENARIOS[scenario]:
                _wait_for(folder / "truth/faults.jsonl")
            time.sleep(seconds)
            said, stopped_ns, problem = warnings(client), time.time_ns(), ""
            try:
                client.stop()
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                problem = str(error)
        truth = read_truth(folder / "truth")
    if problem:
        return Result(scenario, name, 0, 0, 0, 0, "none", bool(said), False, problem)
    return compare(scenario, name, truth, delivered(name, client), stopped_ns, told=bool(said))


def _wait_for(file: Path) -> None:
    """Wait until something stands in a file of the truth. TimeoutError: nothing came."""
    end_s = time.monotonic() + _PATIENCE_S
    while not file.exists() or not file.stat().st_size:
        if time.monotonic() > end_s:
            raise TimeoutError(f"nothing is in {file} after {_PATIENCE_S:.0f} s")
        time.sleep(0.1)


def warnings(client: Client) -> list[str]:
    """Return what a tool has complained of so far."""
    logs = [client.folder / "log", client.folder / "feedhandler.log"]
    lines = [line for log in logs if log.exists() for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if any(word in line for word in ("WARNING", "ERROR", '"warning"', "GAP"))]


def compare(scenario: str, name: str, truth: Truth, has: Delivered, stopped_ns: int, *, told: bool) -> Result:
    """Return what is missing between the first and the last thing that could be had.

    Published is what the exchange made while the tool was there, sent to it or not: a dropped trade is
    missing unless it was fetched afterwards.
    """
    until_ns = stopped_ns - _IN_HAND_NS
    due = [frame.frame for frame in truth.frames if frame.ts < until_ns]
    sent = [json.loads(text) for text in due if is_whole(text)]
    key = "t" if name != CRYPTOFEED else "a"
    traded = [frame["data"][key] for frame in sent if "rade" in frame.get("stream", "")]
    trades = without_holes(traded)
    # What was made after a tool's last connection is missing, too; the engine knows neither aggregates nor
    # the ids that a fault made of its own.
    if key == "t" and trades and max(trades) == traded[-1]:
        trades |= {trade_id for trade_id in executed(truth, until_ns) if trade_id > min(trades)}
    own = {book.last_id: book for book in truth.books if (book.venue, book.symbol) == (VENUE, SYMBOL)}
    had = [own[last_id].ts for last_id in has.books if last_id in own]
    wanted = {book.last_id for book in own.values() if had and had[0] <= book.ts < until_ns}
    state = "none"
    if has.best is not None and has.books and has.books[-1] in own:
        engine = own[has.books[-1]]
        best = tuple(float(price) for price in has.best)
        state = "right" if best == (float(engine.bids[0][0]), float(engine.asks[0][0])) else "WRONG"
    alive = bool(had) and max(had) > stopped_ns - _LATE_NS
    return Result(
        scenario,
        name,
        *(len(trades), len(trades - has.trades), len(wanted), len(wanted - set(has.books))),
        *(state, told, alive),
    )


_PATIENCE_S = 120.0
_IN_HAND_NS = 1_000_000_000  # what was sent just before the end may not have been handled
_LATE_NS = 3_000_000_000  # behind the exchange, on a busy machine


def is_whole(text: str) -> bool:
    """Tell whether a frame is a JSON object with its payload."""
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(text).get("data"), dict)
    return False


def without_holes(ids: list[int]) -> set[int]:
    """Return ids and all between them; where they go down, they begin anew.

    >>> without_holes([3, 5, 1, 2]) == {3, 4, 5, 1, 2}
    True
    """
    found = set(ids[:1])
    for before, after in pairwise(ids):
        found.update(range(before + 1, after + 1) if after > before else (after,))
    return found


def executed(truth: Truth, until_ns: int) -> Iterator[int]:
    """Yield the ids of the trades that the exchange made."""
    for order in truth.orders:
        ours = (order.venue, order.symbol) == (VENUE, SYMBOL)
        if ours and order.trade_id is not None and order.ts < until_ns:
            yield order.trade_id


@contextlib.contextmanager
def running_sandbox(truth: Path, script: Script) -> Iterator[int]:
    """Run a sandbox with faults until the block ends; yield its port."""
    options = {"port": 0, "until_eof": True, "truth": str(truth), "seed": 3}
    if script:
        options["faults"] = {"faults": [{"venue": VENUE, **fault} for fault in script]}
    command = [sys.executable, "-m", "mmdata.sandbox", json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        address = json.loads(child.stdout.readline())[VENUE]["rest_url"]
        yield int(address.rpartition(":")[2])
        child.stdin.close()


def main() -> None:
    """Run every fault, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM, too, unwinds: nothing is left behind
    parser.add_argument("--only", help="names of faults, separated by semicolons")
    parser.add_argument("--seconds", type=float, default=25.0, help="after the fault")
    given = parser.parse_args()
    names = given.only.split(";") if given.only else list(SCENARIOS)
    results = []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(len(TOOLS)) as pool:
        for number, scenario in enumerate(names):
            runs = [
                pool.submit(run, scenario, name, Path(folder) / f"{number}-{name}", given.seconds)
                for name in TOOLS
            ]
            results += [one.result() for one in runs]
            print(*results[-len(TOOLS) :], sep="\n", file=sys.stderr)
    rows = [
        (
            *(one.scenario, one.tool),
            f"{one.missing_trades} of {one.published_trades}",
            f"{one.missing_books} of {one.published_books}",
            one.book,
            *("yes" if one.told else "no", one.problem or ("yes" if one.alive else "NO")),
        )
        for one in results
    ]
    columns = words("fault", "recorder", "trades missing", "book messages missing", "book", "told", "alive")
    say_table("the same faults for each", columns, rows, out=console())


if __name__ == "__main__":
    main()
