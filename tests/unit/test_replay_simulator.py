"""The simulator on toy markets: under twenty events each, with fills worked out by hand.

Unless a test says otherwise the strategy quotes one tick from the mid (k = 1, gamma = 0: half spread
1 / k, no skew), three lots a side, each 100 ms from 0; a message is seen 1 ms after it happened and an
order needs 1 ms to the exchange. So the first quotes are decided at 100 ms and rest from 101 ms on.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from mmdata.datasets.errors import UsageError
from mmdata.replay import _kernel as kernel
from mmdata.replay.result import Result
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import MODELS, run, simulate
from mmdata.replay.sketch import EPOCH, Sketch

MS = 1_000_000
SET = {"A": 1, "k": 1, "sigma": 1, "gamma": 0, "order_size": 3, "max_inventory": 10}


def simulated(sketch: Sketch, *models: str, seed: int = 0, **settings: object) -> Result:
    return run(
        sketch.market(),
        models=models or tuple(MODELS),
        settings=parse_settings({**SET, **settings}),
        seed=seed,
    )


def fills(result: Result, model: str) -> list[tuple[float, str, int, int]]:
    """Return (ms, side, ticks, lots) of each fill."""
    rows = result.model(model).columns.fill
    return [
        (
            (int(row[kernel.FILL_TIME]) - EPOCH) / MS,
            "buy" if row[kernel.FILL_SIDE] > 0 else "sell",
            int(row[kernel.FILL_PRICE]),
            int(row[kernel.FILL_LOTS]),
        )
        for row in rows
    ]


def quiet() -> Sketch:
    """100 to 102, five lots each; quotes join both sides behind them."""
    sketch = Sketch()
    sketch.book(0, {100: 5, 99: 5}, {102: 5, 103: 5})
    return sketch


# The L2 queue.


def test_trades_at_the_price_eat_the_queue_before_the_order_then_the_order() -> None:
    """5 before us. 4 trade: 1 before us. 2 trade: the second is ours. Then 5 more: the two left."""
    sketch = quiet()
    sketch.trade(150, "sell", 100, 4)
    sketch.trade(160, "sell", 100, 2)
    sketch.trade(170, "sell", 100, 5)
    sketch.diff(1000, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [
        (160, "buy", 100, 1),
        (170, "buy", 100, 2),
    ]


def test_the_depth_that_tells_a_trade_does_not_shrink_the_queue_again() -> None:
    """The level falls from 5 to 1 by the trade at the same moment, told after it in either order."""
    sketch = quiet()
    sketch.diff(150, {100: 1})
    sketch.trade(150, "sell", 100, 4)
    sketch.trade(160, "sell", 100, 2)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(160, "buy", 100, 1)]


def test_a_cancellation_is_shared_between_before_and_behind() -> None:
    """5 before us, then 5 behind; 4 of the 10 go: 2 were before us. 4 trade: one is ours."""
    sketch = quiet()
    sketch.diff(110, {100: 10})
    sketch.diff(120, {100: 6})
    sketch.trade(150, "sell", 100, 4)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(150, "buy", 100, 1)]
    assert fills(simulated(sketch, "l2-queue", queue="risk-averse"), "l2-queue") == []


def test_all_is_filled_when_a_trade_prints_beyond_or_the_ask_comes_to_the_price() -> None:
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(150, "buy", 100, 3)]
    sketch = quiet()
    sketch.diff(160, {100: 0}, {100: 1})
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(160, "buy", 100, 3)]


def test_an_order_keeps_its_place_until_something_of_it_fills() -> None:
    """Decisions at 200 and 300 leave it. One lot fills at 310: at 401 a whole order stands last again."""
    sketch = quiet()
    sketch.trade(150, "sell", 100, 4)
    sketch.trade(310, "sell", 100, 2)
    sketch.diff(320, {100: 2})
    sketch.trade(450, "sell", 100, 3)
    sketch.diff(480, {98: 1})
    result = simulated(sketch, "l2-queue")
    assert fills(result, "l2-queue") == [(310, "buy", 100, 1), (450, "buy", 100, 1)]
    placed = result.model("l2-queue").columns.fill[:, kernel.FILL_PLACED]
    assert ((placed - EPOCH) / MS).tolist() == [101, 401]


# The other fill models.


def test_price_cross_fills_when_the_opposite_best_price_comes() -> None:
    """Trades do nothing, however far beyond; the ask at 100 fills the bid, the bid at 102 the ask."""
    sketch = quiet()
    sketch.trade(110, "sell", 90, 50)
    sketch.diff(120, {100: 0}, {101: 2})
    sketch.diff(130, {}, {100: 1})
    sketch.diff(150, {102: 1}, {100: 0, 101: 0, 102: 0})
    assert fills(simulated(sketch, "price-cross"), "price-cross") == [
        (130, "buy", 100, 3),
        (150, "sell", 102, 3),
    ]


def test_trade_through_fills_strictly_beyond_the_price_by_takers_of_the_other_side() -> None:
    sketch = quiet()
    sketch.trade(110, "sell", 100, 50)
    sketch.trade(120, "buy", 99, 50)  # a taker that bought met asks, not our bid
    sketch.trade(130, "sell", 99, 1)
    sketch.trade(140, "buy", 102, 50)
    sketch.trade(150, "buy", 103, 1)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "trade-through"), "trade-through") == [
        (130, "buy", 100, 3),
        (150, "sell", 102, 3),
    ]


def test_poisson_fills_when_its_seeded_wait_is_over_at_the_rate_of_the_distance() -> None:
    """The bid one tick from the mid waits at A exp(-k); when the mid falls by half, at A exp(-k/2)."""
    sketch = quiet()
    sketch.diff(300, {}, {101: 1})  # mid 100.5: bids 100 -> 99, asks 102 -> 102 anew at 401
    sketch.diff(60_000, {98: 1})
    seed, a = 5, 0.05
    found = fills(simulated(sketch, "poisson", seed=seed, A=a, interval="50s"), "poisson")
    # One decision matters: at 0 nothing is seen, at 50 s orders 99.5 -> 99 and 101.5 -> 102.
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(MODELS["poisson"],)))
    waits = stream.standard_exponential(2)
    rate = a * math.exp(-1.5) / 1e9
    due = [50_001 * MS + math.ceil(wait / rate) for wait in waits]
    expected = [
        (at / MS, side, price, 3)
        for at, side, price in zip(due, ("buy", "sell"), (99, 102), strict=True)
        if at < 60_000 * MS
    ]
    assert found == sorted(expected)


def test_poisson_fills_as_often_as_its_rate_says() -> None:
    """Rate 2 exp(-1) a side; after a fill it takes until the decision and 1 ms to stand again."""
    sketch = quiet()
    sketch.diff(2_000_000, {98: 1})
    result = simulated(sketch, "poisson", A=2, interval="1ms", max_inventory=10_000).model("poisson")
    rate = 2 * math.exp(-1)
    expected = 2 * 2000 / (1 / rate + 0.0025)
    assert abs(result.fills - expected) < 4 * math.sqrt(expected)


def test_poisson_moves_its_rate_with_the_mid_without_starting_anew() -> None:
    """Half the wait at A exp(-k), the rest at A exp(-k/2), to the nanosecond."""
    stream = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(MODELS["poisson"],)))
    wait = stream.standard_exponential(2)[0]
    slow, fast = math.exp(-1) / 1e9, math.exp(-0.5) / 1e9
    moves = 101 * MS + math.ceil(wait / slow / 2)
    sketch = quiet()
    sketch.diff(moves / MS, {}, {101: 1})
    sketch.diff(90_000, {98: 1})
    found = fills(simulated(sketch, "poisson", interval="100ms", A=1, horizon="1s"), "poisson")
    (first,) = [fill for fill in found if fill[1] == "buy"][:1]
    due = moves + (wait - slow * (moves - 101 * MS)) / fast
    # Unless it is quoted anew before: the next decision moves the bid to 99.
    if due < (moves // (100 * MS) + 1) * 100 * MS:
        assert first[0] * MS == pytest.approx(due, abs=2)


# Orders and what their owner knows.


def test_nothing_fills_before_the_order_is_there() -> None:
    """Decided at 100 ms, there at 130: the trade at 129 finds nothing, that at 131 does."""
    sketch = quiet()
    sketch.trade(129, "sell", 99, 1)
    sketch.trade(131, "sell", 99, 1)
    sketch.diff(180, {98: 1})
    result = simulated(sketch, "trade-through", order_latency="30ms")
    assert fills(result, "trade-through") == [(131, "buy", 100, 3)]


def test_an_order_that_would_cross_on_arrival_is_rejected() -> None:
    """The bid falls to 97 and the ask to 98 while the orders are on their way: the bid at 100 crosses."""
    sketch = quiet()
    sketch.book(100.5, {97: 5}, {98: 5})
    sketch.diff(150, {90: 1})
    result = simulated(sketch, "price-cross").model("price-cross")
    assert (result.orders, result.rejected, result.fills) == (2, 1, 0)


def test_quotes_never_cross_the_book_that_was_seen() -> None:
    """A half spread of 1/100 tick: floored, ceiled, and kept a tick from the other side."""
    bid, ask = kernel.quantise(100.99, 101.01, 100, 102)
    assert (bid, ask) == (100, 102)
    assert kernel.quantise(104.0, 105.0, 100, 102) == (101, 105)
    assert kernel.quantise(95.0, 96.5, 100, 102) == (95, 101)
    assert kernel.quantise(100.0, 102.0, 100, 102) == (100, 102)
    assert kernel.quantise(100.9999999999, 101.0, 90, 110) == (100, 101)  # on the grid but for rounding


def test_no_more_is_held_than_allowed() -> None:
    """Two orders of three lots may be held: the third trade through finds no bid."""
    sketch = quiet()
    for at in (150, 250, 350, 450):
        sketch.trade(at, "sell", 99, 1)
    sketch.diff(480, {98: 1})
    result = simulated(sketch, "trade-through", max_inventory=2).model("trade-through")
    assert result.fills == 2
    assert result.final_inventory == result.max_inventory == Decimal(6)


def test_what_fills_on_the_way_counts_against_the_new_order() -> None:
    """One order may be held. The bid fills at 205 while its replacement is on the way to 99."""
    sketch = quiet()
    sketch.diff(195, {100: 0}, {101: 5})
    sketch.trade(205, "sell", 99, 1)
    sketch.trade(215, "sell", 98, 1)
    sketch.diff(280, {90: 1})
    result = simulated(sketch, "trade-through", max_inventory=1, order_latency="10ms")
    assert fills(result, "trade-through") == [(205, "buy", 100, 3)]


def test_a_fill_is_known_after_the_response_latency() -> None:
    """Filled at 150, known at 270: decisions at 200 believe the order still stands."""
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.trade(250, "sell", 99, 1)
    sketch.trade(350, "sell", 99, 1)
    sketch.diff(380, {98: 1})
    result = simulated(sketch, "trade-through", response_latency="120ms")
    assert fills(result, "trade-through") == [(150, "buy", 100, 3), (350, "buy", 100, 3)]


def test_inventory_shifts_both_quotes_down() -> None:
    """Gamma sigma² horizon = 1 tick an order held, half spread 1.99: long three lots, 100 becomes 99."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {104: 5})
    sketch.trade(150, "sell", 99, 1)
    sketch.trade(250, "sell", 99, 1)
    sketch.trade(260, "sell", 98, 1)
    sketch.diff(280, {90: 1})
    result = simulated(sketch, "trade-through", gamma=0.01, sigma=10, horizon="1s", A=1e-4, k=1 / 1.5)
    assert result.parameter("skew").value == pytest.approx(1.0)
    half = result.parameter("half_spread").value
    assert isinstance(half, float)
    assert half == pytest.approx(0.5 + math.log1p(0.015) / 0.01)
    assert fills(result, "trade-through") == [(150, "buy", 100, 3), (260, "buy", 99, 3)]


# Holes.


def test_orders_are_taken_off_and_stand_again_once_the_book_is_valid() -> None:
    sketch = quiet()
    sketch.gap(145)
    sketch.trade(150, "sell", 90, 9)
    sketch.book(310, {100: 5}, {102: 5})
    sketch.trade(320, "sell", 90, 9)
    sketch.trade(450, "sell", 99, 1)
    sketch.diff(501, {98: 1})
    result = simulated(sketch)
    assert fills(result, "trade-through") == [(450, "buy", 100, 3)]
    assert result.model("trade-through").withdrawn == 2
    # Seen valid from 1 to 146 and from 311 to 501 (+ 1 ns) of 501 ms.
    assert result.covered == pytest.approx((145 + 190) / 501, abs=1e-6)


def test_no_decision_is_made_while_the_book_is_invalid() -> None:
    sketch = quiet()
    sketch.gap(145)
    sketch.book(310, {100: 5}, {102: 5})
    sketch.diff(501, {98: 1})
    decisions = simulated(sketch).models[0].columns.decision
    assert decisions[:, kernel.DECISION_QUOTED].tolist() == [0, 1, 0, 0, 1, 1]


def test_an_order_that_reaches_an_invalid_book_is_not_placed() -> None:
    sketch = quiet()
    sketch.gap(100.5)
    sketch.book(310, {100: 5}, {102: 5})
    result = simulated(sketch)
    assert {model.fills for model in result.models} == {0}
    sketch = quiet()
    sketch.book(200, {}, {})  # valid and empty: the mid is unknown, nothing is quoted anew
    sketch.diff(400, {98: 1})
    assert simulated(sketch).model("price-cross").orders == 2


def test_a_recording_without_a_valid_book_is_refused() -> None:
    sketch = Sketch()
    sketch.diff(0, {100: 1}, {102: 1})
    sketch.diff(500, {100: 2})
    with pytest.raises(UsageError, match="never saw a valid book"):
        run(sketch.market())
    with pytest.raises(UsageError) as caught:
        simulated(sketch)
    assert "never saw a valid book" in str(caught.value)
    assert "3 book messages and 0 snapshots" in str(caught.value)


# Money.


def test_profit_is_spread_and_inventory_less_fees_by_hand() -> None:
    """Bought 3 at 100 with the mid at 101, which ends at 99: 3 captured, 6 lost; a fee of 1/1000."""
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.book(160, {98: 5}, {100: 5})
    result = simulated(sketch, "trade-through", maker_fee="0.001").model("trade-through")
    assert result.pnl.spread == Decimal(3)
    assert result.pnl.inventory == Decimal(-6)
    assert result.pnl.fees == Decimal("0.3")
    assert result.pnl.total == Decimal("-3.3")
    frame = result.fill_frame()
    assert frame["side"].to_list() == ["buy"]
    assert frame["mid"].to_list() == [Decimal("101.0")]
    assert frame["price"].to_list() == [Decimal(100)]


def test_profit_over_time_ends_at_the_total_before_fees() -> None:
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.book(160, {98: 5}, {100: 5})
    sketch.diff(300.5, {90: 1})
    result = simulated(sketch, "trade-through").model("trade-through")
    frame = result.pnl_frame()
    assert frame["pnl"].to_list() == [0.0, 0.0, -3.0, -3.0]
    assert frame["inventory"].to_list() == [0, 0, 3, 3]
    assert frame["quoted"].to_list() == [False, True, True, True]


# The result.


def test_when_everything_is_set_nothing_is_cut_off() -> None:
    sketch = quiet()
    sketch.diff(1000, {98: 1})
    result = simulated(sketch)
    assert result.calibration is None
    assert result.traded_from == result.start == EPOCH
    assert {p.source for p in result.parameters if p.name in SET} == {"set"}


def test_what_is_not_set_comes_from_the_first_tenth_which_is_not_traded() -> None:
    sketch = quiet()
    for at in range(10, 1000, 10):
        sketch.trade(at, "buy", 103, 2)
    sketch.diff(1000, {98: 1})
    settings = parse_settings({"A": 1, "k": 1, "sigma": 1})
    result = run(sketch.market(), settings=settings)
    size = result.parameter("order_size")
    assert (size.value, size.n) == (2, 9)
    assert "first tenth" in size.source
    assert result.traded_from == EPOCH + 100 * MS
    assert result.calibration is not None
    assert result.calibration.end == result.traded_from
    for model in result.models:
        assert (model.columns.fill[:, kernel.FILL_TIME] > result.traded_from).all()
    assert result.parameter("gamma").source.startswith("derived")
    assert result.parameter("queue").source == "default"


def test_it_is_plain_json_and_text() -> None:
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.diff(1000, {98: 1})
    result = simulated(sketch, seed=7)
    found = json.loads(json.dumps(result.to_json_dict(), allow_nan=False))
    assert found["schema"] == 1
    assert found["seed"] == 7
    assert [model["model"] for model in found["models"]] == list(MODELS)
    assert found["from"] == "2023-11-14T22:13:20.000000000Z"
    rows = result.rows()
    assert [row["model"] for row in rows] == list(MODELS)
    assert all(isinstance(text, str) for row in rows + result.parameter_rows() for text in row.values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"strategy": "avelaneda"},
            "'avelaneda' is not known; did you mean avellaneda-stoikov?",
        ),
        ({"fills": ["l2-que"]}, "fill model 'l2-que' is not known; did you mean l2-queue?"),
        ({"fills": "poisson,l2"}, "fill model 'l2' is not known, expected one of price-cross, trade-through"),
        ({"fills": []}, "fill models were none, expected at least one"),
        ({"fills": ["poisson", "poisson"]}, "each once"),
        ({"settings": {"gama": 1}}, "did you mean gamma?"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_read(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        simulate(tmp_path, exchange="binance", symbol="BTCUSDT", **change)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it holds nothing"):
        simulate(tmp_path, exchange="binance", symbol="BTCUSDT")


def test_an_order_size_off_the_lot_a_seed_below_zero_and_an_empty_time_are_refused() -> None:
    with pytest.raises(UsageError, match=r"order_size was 1.5, expected a multiple of SKETCH's lot 1"):
        simulated(quiet(), order_size="1.5")
    with pytest.raises(UsageError, match="seed was -1"):
        simulated(quiet(), seed=-1)
    with pytest.raises(UsageError, match="nothing was recorded between"):
        run(quiet().market(), start=EPOCH + 10**12)


COMPARE = """
import json, sys
import numpy as np
from mmdata.replay import _kernel
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import run
from mmdata.replay.sketch import Sketch

rng = np.random.default_rng(4)
sketch, bid = Sketch(), 1000
sketch.book(0, {bid: 9, bid - 1: 9}, {bid + 2: 9, bid + 3: 9})
for at in range(20, 6000, 20):
    if at == 3000:
        sketch.gap(at)
    sketch.trade(at + 5, *(("sell", bid - int(rng.integers(2))) if rng.integers(2) else
                           ("buy", bid + 2 + int(rng.integers(2)))), int(rng.integers(1, 9)))
    bid += 3 * int(rng.integers(-1, 2)) if at % 60 == 0 else 0
    sketch.book(at + 9, {bid - 1 + i: int(rng.integers(1, 20)) for i in range(2)},
                {bid + 2 + i: int(rng.integers(1, 20)) for i in range(2)})
settings = parse_settings({"A": 5, "k": 2, "sigma": 1, "order_size": 3})
result = run(sketch.market(), settings=settings)
print(json.dumps({
    "compiled": hasattr(_kernel.advance, "signatures"),
    "fills": [model.columns.fill.tolist() for model in result.models],
    "decisions": result.models[0].columns.decision.tolist(),
}))
"""


def test_compiled_and_interpreted_agree_to_the_bit(tmp_path: Path) -> None:
    found = []
    for disable in ("0", "1"):
        path = os.pathsep.join(str(Path(__file__).parents[2] / wing) for wing in ("datasets", "replay"))
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disable, "PYTHONPATH": path}
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", COMPARE],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        found.append(json.loads(ran.stdout))
    compiled, interpreted = found
    assert (compiled.pop("compiled"), interpreted.pop("compiled")) == (True, False)
    assert all(len(rows) > 20 for rows in compiled["fills"])
    assert compiled == interpreted
