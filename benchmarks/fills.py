"""Our fills beside hftbacktest's, one by one: a fixed distance from the mid is quoted on both sides by both.

    python -m benchmarks.fills [--folder DIR]

Each 100 ms the mid is looked at; a bid stands ``offset`` ticks below the next price under it, an ask as far
above the next one over it, post-only (0: at the best prices where these are a tick apart), both moved by
``skew`` ticks against each order's size held, as Avellaneda and Stoikov's quotes are, but never across the
other side. Where that price moved, the old order is cancelled and a new one sent at the same moment.
Both engines are fed the same messages and trades at the same times (ours without quotes, which hftbacktest
does not know), have the same constant latencies, and step the queue by the same rule. Ours fills by
hftbacktest's own rules (`mmdata.replay.fills.PEERS`). A fill is the same where the number of the order, its
time, price and lots are.

Needs the real captures (MMDATA_SHARED, default ../shared) and the rivals (`make bench-fills` makes them).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from benchmarks.clients import RIVALS_PYTHON
from benchmarks.sources import SHARED
from benchmarks.tiles import SYMBOL, USDM
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets import export
from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.book import rebuild
from mmdata.datasets.formats.hftbacktest import (
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    TRADE_EVENT,
    read,
)
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import Market, Quotes
from mmdata.recorder import import_sources
from mmdata.replay import state as s
from mmdata.replay.clock import Timeline, map_clock, timeline
from mmdata.replay.desk import (
    Desk,
    cancel,
    free_slot,
    inventory,
    is_busy,
    is_free,
    order_price,
    order_side,
    order_size,
    place,
)
from mmdata.replay.engine import Delay, Engine, Lane, Rules, feed_of
from mmdata.replay.queues import LOG, LOG2, RULES
from mmdata.replay.strategies import TOP, strategy
from mmdata.replay.view import View, best_ask, best_bid

Ints = NDArray[np.int64]

SCRIPT = Path(__file__).parent / "rivals/run_hftbacktest_fills.py"
MS = 1_000_000
INTERVAL_NS = 100 * MS
CAPTURES = {"binance": ("20240808", "20240809"), "binance-usdm": ("20240808",)}
_MARGIN_NS = 1_000 * MS
_SLOTS = 16
_NO_LIMIT = 1 << 40
MODELS = {"whole": "hftbacktest", "partial": "hftbacktest-partial"}
"""Our fill model for each of hftbacktest's exchanges."""
QUEUES = (
    ("risk-averse", 1.0),
    ("power", 2.0),
    ("power", 3.0),
    ("power2", 2.0),
    ("power3", 3.0),
    ("log", 1.0),
    ("log2", 1.0),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How both trade."""

    exchange: str = "whole"
    queue: str = "risk-averse"
    power: float = 1.0
    entry_ns: int = 20 * MS
    response_ns: int = 30 * MS
    offset: int = 1
    size: int = 10
    skew: float = 0.0


@dataclass(frozen=True, slots=True)
class Material:
    """A recording as both take it."""

    market: Market
    times: Timeline
    files: tuple[Path, ...]

    @property
    def span(self) -> tuple[int, int]:
        """When decisions begin and end: on whole intervals, while both know a book, and data still come."""
        first = int(self.times.seen[self.times.valid][0]) + _MARGIN_NS
        last = int(min(self.times.acts[-1], self.times.seen[-1])) - _MARGIN_NS
        begin = -(-first // INTERVAL_NS) * INTERVAL_NS
        return begin, begin + (last - begin) // INTERVAL_NS * INTERVAL_NS

    def events(self) -> NDArray[np.void]:
        """Return the exported events."""
        return np.concatenate([read(path) for path in self.files])


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an engine made of it: rows of time, order, 1 or -1, ticks, lots; a row a moment and order."""

    fills: Ints
    sent: int
    ended: int = 0
    """0, or hftbacktest's error."""
    at: int = 0
    """Where it ended, ns."""
    position: float = 0.0
    balance: float = 0.0

    def profit(self, mid2: int) -> int:
        """Return cash and holdings, at twice a mid, in half ticks times lots."""
        side, price, lots = self.fills[:, 2], self.fills[:, 3], self.fills[:, 4]
        return int((side * lots * (mid2 - 2 * price)).sum())


@strategy(slots=_SLOTS, sees=TOP, offset=1.0, size=1.0, skew=0.0)
@njit()
def fixed(view: View, desk: Desk) -> None:
    """Have a bid and an ask stand at a fixed distance from the mid."""
    offset, size = int(view.parameter[0]), view.parameter[1]
    bid, ask = best_bid(view), best_ask(view)
    centre = 0.5 * (bid + ask) - view.parameter[2] * inventory(desk) / size
    for side in (BID, ASK):
        if side == BID:
            price = min(math.floor(centre - 0.5) - offset, ask - 1)
        else:
            price = max(math.ceil(centre + 0.5) + offset, bid + 1)
        stands = False
        for slot in range(_SLOTS):
            if is_free(desk, slot) or order_side(desk, slot) != side:
                continue
            if order_price(desk, slot) == price:
                stands |= order_size(desk, slot) > 0
            elif not is_busy(desk, slot):
                cancel(desk, slot)
        if not stands:
            place(desk, free_slot(desk), side, price, size)


def prepare(root: Path, exchange: str, symbol: str, folder: Path) -> Material:
    """Export a recording, and load it; its times are those of the whole recording, quotes and all."""
    report = export(root, "hftbacktest", folder, exchange=exchange, symbol=symbol)
    market = load_market(root, exchange, symbol)
    times = timeline(market, map_clock(market))
    return material(market, times, [file.path for file in report.files if file.path.suffix == ".npz"])


def material(market: Market, times: Timeline, files: Iterable[Path]) -> Material:
    """Return a recording without its quotes."""
    none = np.empty(0, np.int64)
    return Material(
        replace(market, quotes=Quotes.none()),
        replace(times, quote_acts=none, quote_seen=none),
        tuple(sorted(files)),
    )


def misfed(own: Material) -> Counter[str]:
    """Count the times of the exported file that are not ours, by what they are of."""
    events, times = own.events(), own.times
    kind = events["ev"] & 0xFF
    of_book = np.isin(kind, (DEPTH_EVENT, DEPTH_CLEAR_EVENT, DEPTH_SNAPSHOT_EVENT))
    acts = events["ev"] & EXCH_EVENT != 0
    seen = events["ev"] & LOCAL_EVENT != 0
    found: Counter[str] = Counter()
    for name, mine, theirs in (
        ("book acts", times.acts[times.valid], events["exch_ts"][of_book & acts]),
        ("book seen", times.seen[times.valid], events["local_ts"][of_book & seen]),
    ):
        found[name] = len(np.setxor1d(mine, theirs))
    trades = events[(kind == TRADE_EVENT) & acts]
    found["trade acts"] = _unequal(times.trade_acts, trades["exch_ts"])
    found["trade price"] = _unequal(
        own.market.trades.price[times.trade],
        np.round(trades["px"] / float(own.market.tick_size)).astype(np.int64),
    )
    found["trade size"] = _unequal(
        own.market.trades.size[times.trade],
        np.round(trades["qty"] / float(own.market.lot_size)).astype(np.int64),
    )
    return +found


def _unequal(one: Ints, other: Ints) -> int:
    return abs(len(one) - len(other)) + int((one[: len(other)] != other[: len(one)]).sum())


def ours(own: Material, setting: Setting) -> Outcome:
    """Return what our engine makes of it."""
    begin, end = own.span
    unit = float(own.market.lot_size) if RULES[setting.queue] in (LOG, LOG2) else setting.power
    lane = Lane(
        MODELS[setting.exchange],
        (float(setting.offset), float(setting.size), setting.skew),
        Rules(most_lots=_NO_LIMIT, queue_rule=RULES[setting.queue], queue_corrected=0),
        queue_power=unit,
    )
    engine = Engine(own.market.chain, fixed)
    engine.seat(
        [lane],
        interval=INTERVAL_NS,
        order=Delay.constant(setting.entry_ns),
        response=Delay.constant(setting.response_ns),
    )
    engine.append(feed_of(own.market, own.times))
    engine.decide_from(begin)
    if not engine.advance(end):
        raise AssertionError("the strategy did what none may do")
    return outcome_of(engine, end - setting.response_ns)


def outcome_of(engine: Engine, until: int) -> Outcome:
    """Return what the first lane did, as far as it is known to it by ``until`` and its answers' latency."""
    lanes = engine.world.lanes
    account = lanes.account[0]
    rows = lanes.fill[0, : account[s.FILLS]]
    fills = rows[:, [s.FILL_TIME, s.FILL_NUMBER, s.FILL_SIDE, s.FILL_PRICE, s.FILL_LOTS]]
    return Outcome(_merged(fills[fills[:, 0] < until]), int(account[s.NUMBERS]))


def theirs(
    own: Material, settings: Sequence[Setting], folder: Path, python: Path = RIVALS_PYTHON
) -> list[Outcome]:
    """Return what hftbacktest makes of it with each of the settings."""
    begin, end = own.span
    given = {
        "files": [str(path) for path in own.files],
        "tick": str(own.market.tick_size),
        "lot": str(own.market.lot_size),
        "begin": begin,
        "end": end - 1,
        "interval": INTERVAL_NS,
    }
    return run_theirs([given] * len(settings), settings, folder, python)


def run_theirs(
    given: Sequence[dict[str, Any]], settings: Sequence[Setting], folder: Path, python: Path = RIVALS_PYTHON
) -> list[Outcome]:
    """Run hftbacktest with what its script takes; outcomes in the order of the settings."""
    runs = [
        {
            "exchange": setting.exchange,
            "queue": setting.queue,
            "power": setting.power,
            "entry": setting.entry_ns,
            "response": setting.response_ns,
            "offset": setting.offset,
            "size": setting.size,
            "skew": setting.skew,
            **own,
        }
        for own, setting in zip(given, settings, strict=True)
    ]
    path = folder / "settings.json"
    path.write_text(json.dumps(runs))
    run = subprocess.run([python, SCRIPT, path, folder], capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(run.stderr)
    found = []
    for i, told in enumerate(json.loads(run.stdout)):
        fills = _merged(np.load(folder / f"fills-{i}.npy"))
        found.append(
            Outcome(fills, told["sent"], told["ended"], told["at"], told["position"], told["balance"])
        )
    return found


def _merged(fills: Ints) -> Ints:
    """Return fills in order of time and order, those of one order and moment as one."""
    if not len(fills):
        return np.empty((0, 5), np.int64)
    rows, place = np.unique(fills[:, :4], axis=0, return_inverse=True)
    lots = np.zeros(len(rows), np.int64)
    np.add.at(lots, place.ravel(), fills[:, 4])
    return np.column_stack((rows, lots))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Fills of both, and those that only one has."""

    ours: Outcome
    theirs: Outcome
    only_ours: Ints
    only_theirs: Ints

    @property
    def same(self) -> int:
        """How many both have."""
        return len(self.theirs.fills) - len(self.only_theirs)


def compare(own: Outcome, other: Outcome, setting: Setting) -> Comparison:
    """Compare fills, up to the last of which its strategy was told where hftbacktest ended with an error."""
    if other.ended:
        own = replace(own, fills=own.fills[own.fills[:, 0] <= other.at - setting.response_ns])
    mine, their = ({tuple(row) for row in outcome.fills.tolist()} for outcome in (own, other))

    def rows(found: set[tuple[int, ...]]) -> Ints:
        return np.array(sorted(found), np.int64).reshape(-1, 5)

    return Comparison(own, other, rows(mine - their), rows(their - mine))


def main() -> None:
    """Compare on all captures, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="where to work")
    options = parser.parse_args()
    if not USDM.exists():
        sys.exit(f"{USDM} is missing: MMDATA_SHARED says where the real captures lie")
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        for exchange, days in CAPTURES.items():
            sources = [SHARED / "data" / exchange / f"btcusdt_{day}.gz" for day in days]
            root = folder / exchange
            import_sources(sources, root, source_format="hftbacktest", exchange=exchange, symbol=SYMBOL)
            own = prepare(root, exchange, SYMBOL, folder / f"{exchange}-npz")
            settings = [
                Setting(kind, queue, power, offset=0, size=1009, skew=skew)
                for kind, skew in (("whole", 0.0), ("whole", 1.0), ("partial", 0.0))
                for queue, power in QUEUES
            ]
            for setting, other in zip(settings, theirs(own, settings, folder), strict=True):
                rows.append(_row(exchange, own, setting, compare(ours(own, setting), other, setting)))
    heads = ("orders", "fills", "same", "only ours", "only theirs", "profit")
    say_table(
        "fills", [*words("capture", "exchange", "skew", "queue"), *figures(*heads)], rows, out=console()
    )


def _row(exchange: str, own: Material, setting: Setting, found: Comparison) -> tuple[str, ...]:
    begin, _ = own.span
    tops = rebuild(own.market.columns, own.market.chain)
    at = int(np.searchsorted(own.times.acts, begin)) - 1
    mid2 = int(tops.bid_price[at] + tops.ask_price[at])
    equal = found.ours.profit(mid2) == found.theirs.profit(mid2)
    return (
        exchange,
        setting.exchange + (f", error {found.theirs.ended}" if found.theirs.ended else ""),
        f"{setting.skew:g}",
        setting.queue + (f" {setting.power:g}" if setting.queue.startswith("power") else ""),
        f"{found.theirs.sent:,}",
        f"{len(found.theirs.fills):,}",
        f"{found.same:,}",
        f"{len(found.only_ours):,}",
        f"{len(found.only_theirs):,}",
        "equal" if equal else "differs",
    )


if __name__ == "__main__":
    main()
