"""Our fills are hftbacktest's, one by one, when ours fills by its rules; and what those rules do wrong.

It lives in an environment of its own (`make peer-test` makes it); MMDATA_PEERS names its Python.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.fills import (
    MODELS,
    MS,
    QUEUES,
    Comparison,
    Material,
    Outcome,
    Setting,
    compare,
    misfed,
    ours,
    outcome_of,
    prepare,
    run_theirs,
    theirs,
)
from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.formats.hftbacktest import (
    BUY_EVENT,
    DEPTH_EVENT,
    EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
)
from mmdata.replay.clock import map_clock, timeline
from mmdata.replay.desk import Desk, free_slot, place
from mmdata.replay.engine import Delay, Engine, Lane, Rules, feed_of
from mmdata.replay.queues import RULES
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import TOP, Strategy, strategy
from mmdata.replay.view import View
from tests.real.test_export_peers import PEERS

INVALID_ORDER_STATUS = 14
"""What hftbacktest ends a run with where it fills an order that is filled."""


@pytest.fixture(scope="module")
def python() -> Path:
    """Return the peers' Python; skip where there is none."""
    if not PEERS.exists():
        pytest.skip("no environment with hftbacktest: make peer-test")
    return PEERS


@pytest.fixture(scope="module")
def materials(real_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Material]:
    """Return the captures as both take them."""
    folder = tmp_path_factory.mktemp("npz")
    return {
        exchange: prepare(real_dataset, exchange, symbol, folder / exchange)
        for exchange, symbol in (("binance", "BTCUSDT"), ("binance-usdm", "BTCUSDT"), ("okx", "BTC-USDT"))
    }


@pytest.mark.real
@pytest.mark.parametrize("exchange", ["binance", "binance-usdm", "okx"])
def test_both_are_fed_the_same_at_the_same_times(materials: dict[str, Material], exchange: str) -> None:
    assert not misfed(materials[exchange])


def compared(own: Material, settings: list[Setting], folder: Path, python: Path) -> list[Comparison]:
    """Run both with each of the settings."""
    others = theirs(own, settings, folder, python)
    return [
        compare(ours(own, setting), other, setting) for setting, other in zip(settings, others, strict=True)
    ]


@pytest.mark.real
@pytest.mark.parametrize(("exchange", "least"), [("binance", 690), ("binance-usdm", 340), ("okx", 16)])
def test_every_fill_is_the_same_without_partial_fills(
    materials: dict[str, Material], python: Path, tmp_path: Path, exchange: str, least: int
) -> None:
    """Orders too: their numbers are; a bid and ask at the touch, two ticks off it, and moved by holdings."""
    settings = [
        Setting("whole", queue, power, offset=offset, skew=skew)
        for queue, power in QUEUES
        for offset, skew in ((0, 0.0), (2, 0.0), (0, 1.0))
    ]
    for found in compared(materials[exchange], settings, tmp_path, python):
        assert found.theirs.ended == 0
        assert (len(found.only_ours), len(found.only_theirs)) == (0, 0)
        assert found.ours.sent == found.theirs.sent
        assert found.same == len(found.ours.fills)
        # Its own account of them, by the fills that its strategy was told of.
        lots = found.ours.fills[:, 2] * found.ours.fills[:, 4]
        ticks = float(materials[exchange].market.tick_size) * float(materials[exchange].market.lot_size)
        assert found.theirs.position == pytest.approx(
            lots.sum() * float(materials[exchange].market.lot_size), abs=1e-9
        )
        assert found.theirs.balance == pytest.approx(
            -ticks * float((lots * found.ours.fills[:, 3]).sum()), rel=1e-9, abs=1e-6
        )
    assert least <= max(found.same for found in compared(materials[exchange], settings[:3], tmp_path, python))


@pytest.mark.real
@pytest.mark.parametrize(("exchange", "size"), [("binance", 1009), ("binance-usdm", 1009), ("okx", 1009)])
def test_every_fill_is_the_same_with_partial_fills_until_it_ends_with_an_error(
    materials: dict[str, Material], python: Path, tmp_path: Path, exchange: str, size: int
) -> None:
    settings = [Setting("partial", queue, power, offset=0, size=size) for queue, power in QUEUES]
    for found in compared(materials[exchange], settings, tmp_path, python):
        assert found.theirs.ended in (0, INVALID_ORDER_STATUS)
        assert (len(found.only_ours), len(found.only_theirs)) == (0, 0)


@pytest.mark.real
def test_a_slow_answer_leaves_orders_that_cross_each_other_to_hftbacktest_alone(
    materials: dict[str, Material], python: Path, tmp_path: Path
) -> None:
    """What is explained: one fill of an order that would have met one of its own; less than 1 % of 787."""
    setting = Setting(entry_ns=7 * MS, response_ns=250 * MS, offset=0, size=1009)
    (found,) = compared(materials["binance"], [setting], tmp_path, python)
    assert len(found.only_ours) == 0
    assert len(found.only_theirs) == 1
    assert found.same > 780


# Minimal inputs. Times in ms, prices in ticks, sizes in lots; all arrive 1 ms after they happened.


class Script:
    """Few events and orders, for both engines."""

    def __init__(self) -> None:
        self.sketch = Sketch()
        self.events: list[tuple[int, int, int, float, float]] = []
        self.orders: list[tuple[int, int, int, int]] = []

    def diff(self, at: int, bids: dict[int, int], asks: dict[int, int]) -> None:
        """Tell levels; the first ones are the book."""
        (self.sketch.diff if self.events else self.sketch.book)(at, bids, asks)
        self.events += [(at, DEPTH_EVENT, BUY_EVENT, price, size) for price, size in bids.items()]
        self.events += [(at, DEPTH_EVENT, SELL_EVENT, price, size) for price, size in asks.items()]

    def trade(self, at: int, taker: str, price: int, size: int) -> None:
        """Tell a trade."""
        self.sketch.trade(at, taker, price, size)
        self.events.append((at, TRADE_EVENT, BUY_EVENT if taker == "buy" else SELL_EVENT, price, size))

    def order(self, at: int, side: int, price: int, lots: int) -> None:
        """Send a post-only order; it takes 1 ms each way."""
        self.orders.append((EPOCH + at * MS, side, price, lots))

    def theirs(self, setting: Setting, end: int, folder: Path, python: Path) -> Outcome:
        """Return what hftbacktest makes of it."""
        rows = np.zeros(len(self.events), EVENT)
        for row, (at, kind, side, price, size) in zip(rows, self.events, strict=True):
            row["ev"] = kind | side | EXCH_EVENT | LOCAL_EVENT
            row["exch_ts"], row["local_ts"] = EPOCH + at * MS, EPOCH + (at + 1) * MS
            row["px"], row["qty"] = price, size
        np.savez(folder / "events.npz", data=rows)
        given = {
            "files": [str(folder / "events.npz")],
            "tick": "1",
            "lot": "1",
            "entry": MS,
            "response": MS,
            "orders": self.orders,
            "end": EPOCH + end * MS,
        }
        assert len(self.events) < 20
        return run_theirs([given], [setting], folder, python)[0]

    def ours(self, model: str, setting: Setting, end: int, *, corrected: int = 1) -> Outcome:
        """Return what our engine makes of it, decisions each ms."""
        market = self.sketch.market()
        engine = Engine(market.chain, _sender(self.orders))
        lane = Lane(
            model,
            (),
            Rules(most_lots=1 << 40, queue_rule=RULES[setting.queue], queue_corrected=corrected),
            queue_power=setting.power,
        )
        delay = Delay.constant(MS)
        engine.seat([lane], interval=MS, order=delay, response=delay)
        engine.append(feed_of(market, timeline(market, map_clock(market))))
        engine.decide_from(EPOCH)
        assert engine.advance(EPOCH + end * MS)
        return outcome_of(engine, EPOCH + end * MS)

    def both(
        self, setting: Setting, end: int, folder: Path, python: Path
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Return fills as ms, number, side, price, lots: hftbacktest's, which ours repeats, and our own."""
        other = self.theirs(setting, end, folder, python)
        repeated = self.ours(MODELS[setting.exchange], setting, end, corrected=0)
        told = shown(other)
        assert other.ended == INVALID_ORDER_STATUS or shown(repeated) == told
        return told, shown(self.ours("l2-queue", setting, end))


def _sender(orders: list[tuple[int, int, int, int]]) -> Strategy:
    """Return a strategy that sends each order at its time."""

    def send(view: View, desk: Desk) -> None:
        for at, side, price, lots in orders:
            if at == view.now:
                place(desk, free_slot(desk), BID if side > 0 else ASK, price, lots)

    return strategy(slots=8, sees=TOP)(send)


def shown(outcome: Outcome) -> list[list[int]]:
    """Return fills with times in ms of the script."""
    return [[(at - EPOCH) // MS, *rest] for at, *rest in outcome.fills.tolist()]


@pytest.fixture
def script() -> Script:
    """Return a script whose book is 100 by 102, 10 lots each, known from the start."""
    made = Script()
    made.diff(0, {100: 10, 99: 10}, {102: 10, 103: 10})
    return made


@pytest.mark.real
def test_an_order_that_fills_to_the_lot_stays_there_and_ends_the_run(
    script: Script, python: Path, tmp_path: Path
) -> None:
    script.order(5, 1, 100, 3)
    script.trade(10, "sell", 100, 13)
    script.diff(15, {100: 0}, {})
    script.trade(20, "sell", 99, 1)
    script.diff(30, {99: 9}, {})
    setting = Setting("partial")
    other = script.theirs(setting, 25, tmp_path, python)
    assert (other.ended, shown(other)) == (INVALID_ORDER_STATUS, [[10, 1, 1, 100, 3]])
    assert shown(script.ours(MODELS["partial"], setting, 25, corrected=0)) == shown(other)


@pytest.mark.real
def test_partial_fills_are_not_in_its_position(script: Script, python: Path, tmp_path: Path) -> None:
    script.order(5, 1, 100, 5)
    script.trade(10, "sell", 100, 12)
    script.diff(30, {99: 9}, {})
    other = script.theirs(Setting("partial"), 25, tmp_path, python)
    assert shown(other) == [[10, 1, 1, 100, 2]]
    assert other.position == 0


@pytest.mark.real
def test_one_trade_fills_every_order_at_its_price(script: Script, python: Path, tmp_path: Path) -> None:
    script.order(5, 1, 100, 5)
    script.order(6, 1, 100, 5)
    script.trade(10, "sell", 100, 12)
    script.diff(30, {99: 9}, {})
    other, own = script.both(Setting("partial"), 25, tmp_path, python)
    assert other == [[10, 1, 1, 100, 2], [10, 2, 1, 100, 2]]
    assert own == [[10, 1, 1, 100, 2]]


@pytest.mark.real
def test_a_lot_that_trades_fills_all_of_an_order(script: Script, python: Path, tmp_path: Path) -> None:
    script.order(5, 1, 100, 500)
    script.trade(10, "sell", 100, 11)
    script.diff(30, {99: 9}, {})
    other, own = script.both(Setting("whole"), 25, tmp_path, python)
    assert (other, own) == ([[10, 1, 1, 100, 500]], [[10, 1, 1, 100, 1]])


@pytest.mark.real
def test_a_post_only_order_rests_across_a_price_that_has_just_traded(
    script: Script, python: Path, tmp_path: Path
) -> None:
    """A taker buys at 100, where an ask must have stood: a bid at 100 would meet it, until the book tells."""
    script.diff(5, {100: 0, 99: 10}, {101: 10, 102: 10})
    script.trade(8, "sell", 99, 10)
    script.trade(9, "buy", 100, 4)
    script.order(10, 1, 100, 2)
    script.diff(20, {100: 3}, {})
    script.trade(22, "sell", 99, 1)
    script.diff(30, {99: 9}, {})
    other, own = script.both(Setting("whole"), 25, tmp_path, python)
    assert other == [[22, 1, 1, 100, 2]]
    assert own == []


@pytest.mark.real
def test_the_queue_behind_is_overstated_by_what_traded(script: Script, python: Path, tmp_path: Path) -> None:
    """40 before us, 20 behind; 20 trade, then 10 cancel: 5 of them before us, it says 3 and a third."""
    script.diff(2, {100: 40}, {})
    script.order(5, 1, 100, 5)
    script.diff(8, {100: 60}, {})
    script.trade(10, "sell", 100, 20)
    script.diff(12, {100: 30}, {})
    script.trade(14, "sell", 100, 16)
    script.diff(30, {99: 9}, {})
    other, own = script.both(Setting("partial", "power"), 25, tmp_path, python)
    assert (other, own) == ([], [[14, 1, 1, 100, 1]])


@pytest.mark.real
def test_half_a_lot_is_a_lot(script: Script, python: Path, tmp_path: Path) -> None:
    """10 before and 10 behind; 1 cancels, half of it before us: 9.5, of which 10 trade."""
    script.order(5, 1, 100, 5)
    script.diff(8, {100: 20}, {})
    script.diff(10, {100: 19}, {})
    script.trade(14, "sell", 100, 10)
    script.diff(30, {99: 9}, {})
    other, own = script.both(Setting("partial", "power"), 25, tmp_path, python)
    assert (other, own) == ([[14, 1, 1, 100, 1]], [])


@pytest.mark.real
def test_its_orders_cross_each_other(script: Script, python: Path, tmp_path: Path) -> None:
    script.order(5, 1, 101, 2)
    script.order(7, -1, 101, 2)
    script.diff(15, {101: 1}, {})
    script.diff(30, {99: 9}, {})
    assert shown(script.theirs(Setting(), 25, tmp_path, python)) == [[15, 2, -1, 101, 2]]
    assert shown(script.ours("l2-queue", Setting(), 25)) == []
