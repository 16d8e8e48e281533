"""Estimates of A, k, sigma and the order size: on markets whose parameters are known, and on too little."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market
from mmdata.replay.calibration import Calibration, Touches, estimate, fit_depths, fit_ticks
from mmdata.replay.clock import Extent, map_clock, timeline
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.stream import Rebuild

MS = 1_000_000


def calibrated(market: Market, *wanted: str, until_ms: float | None = None) -> Calibration:
    times = timeline(market, map_clock(market))
    tops = Rebuild().tops(market)
    touches = Touches.of(market, times, tops[:, 0] == 1, tops[:, 1], tops[:, 3])
    until = None if until_ms is None else EPOCH + round(until_ms * MS)
    begin, end = Extent.of(times, None).within(market, None, until)
    return estimate(market, times, touches, begin, end, wanted or ("A", "k", "sigma", "order_size"))


@pytest.mark.real
def test_continuous_depths_give_the_reference_s_estimates_and_honest_errors(shared_folder: Path) -> None:
    found = json.loads((shared_folder / "reference/calibration.json").read_text())["exceedance_depths"]
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(1000):
        fit = fit_depths(rng.exponential(1 / 0.5, rng.poisson(2.0 * 300)), 300.0)
        rows.append((fit.a.value, fit.k.value, abs(fit.k.value - 0.5) < 1.96 * (fit.k.se or 0)))
    a, k, covered = np.array(rows).T
    assert a.mean() == pytest.approx(found["mle"]["mean_A"], abs=4 * a.std() / math.sqrt(1000))
    assert k.mean() == pytest.approx(found["mle"]["mean_k"], abs=4 * k.std() / math.sqrt(1000))
    assert k.std() == pytest.approx(found["mle"]["sd_k"], rel=0.1)
    assert a.std() == pytest.approx(found["mle"]["sd_A"], rel=0.1)
    assert covered.mean() == pytest.approx(0.95, abs=0.03)


def test_whole_ticks_give_back_a_and_k_within_their_errors() -> None:
    """Arrivals follow the half spread: 1/2 tick for 900 s, 3/2 ticks for 300 s."""
    a, k = 2.0, 0.5
    rng = np.random.default_rng(1)
    seconds, half_spreads = np.array([900.0, 300.0]), np.array([0.5, 1.5])
    hits, errors = [], []
    for _ in range(400):
        n = rng.poisson((seconds * a * np.exp(-k * half_spreads)).sum())
        fit = fit_ticks(rng.geometric(1 - math.exp(-k), n) - 1, seconds, half_spreads)
        assert fit.a.se is not None
        assert fit.k.se is not None
        hits.append((abs(fit.a.value - a) < 1.96 * fit.a.se, abs(fit.k.value - k) < 1.96 * fit.k.se))
        errors.append((fit.a.value / a - 1, fit.k.value / k - 1))
    assert np.mean(hits, axis=0) == pytest.approx([0.95, 0.95], abs=0.04)
    assert np.mean(errors, axis=0) == pytest.approx([0, 0], abs=0.01)


def test_a_constant_half_spread_gives_the_textbook_s_a() -> None:
    fit = fit_ticks(np.array([0, 1, 2, 1]), np.array([10.0]), np.array([0.5]))
    assert fit.k.value == pytest.approx(math.log(2))
    assert fit.a.value == pytest.approx(4 / 10 * math.exp(0.5 * math.log(2)))
    relative = math.sqrt(1 / 4 + (0.5 * (fit.k.se or 0)) ** 2)
    assert fit.a.se == pytest.approx(fit.a.value * relative)
    assert fit.k.se == pytest.approx((1 - 0.5) / math.sqrt(4 * 0.5))


def walked(seconds: int, a: float, k: float, step: float, seed: int) -> Market:
    """Return a mid that steps each 100 ms, a spread of a tick, sweeps of known law in two trades each."""
    rng = np.random.default_rng(seed)
    sketch = Sketch()
    bid = 10_000
    sketch.book(0, {bid: 5}, {bid + 1: 5})
    arrivals = rng.poisson(2 * a * math.exp(-k / 2) * 0.1, seconds * 10)
    for i, count in enumerate(arrivals):
        for j in range(count):
            side, beyond = rng.integers(2), int(rng.geometric(1 - math.exp(-k))) - 1
            at = i * 100 + 1 + j * 90 / max(count, 1)
            best = bid + 1 if side else bid
            sketch.trade(at, "buy" if side else "sell", best, 3)
            sketch.trade(at, "buy" if side else "sell", best + (beyond if side else -beyond), 4)
        move = int(rng.choice([-1, 1])) * int(step)
        bid += move
        sketch.book((i + 1) * 100, {bid: 5}, {bid + 1: 5})
    return sketch.market()


def test_a_market_of_known_parameters_is_found_within_its_errors() -> None:
    a, k, step = 3.0, 0.4, 2
    found = calibrated(walked(600, a, k, step, seed=3))
    assert found.intensity is not None
    assert found.sigma is not None
    for estimate_, truth in (
        (found.intensity.a, a),
        (found.intensity.k, k),
        (found.sigma, step / math.sqrt(0.1)),
    ):
        assert estimate_.se is not None
        assert estimate_.se < 0.1 * truth
        assert abs(estimate_.value - truth) < 3 * estimate_.se
    assert found.buys is not None
    assert found.sells is not None
    assert found.buys.a.n + found.sells.a.n == found.intensity.a.n
    assert found.inside == found.without_book == 0
    assert found.order_size == Decimal(3)
    assert found.trades == 2 * found.intensity.a.n
    assert found.grid_ns == 1_000_000_000


def test_a_sweep_is_measured_against_the_book_strictly_before_it() -> None:
    """At 100 ms the book already shows the sweep of that moment; the one before it counts."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {101: 5})
    for at in range(100, 3000, 100):
        low = 100 + (at // 100) % 2
        sketch.trade(at, "buy", 101 + 2, 1)
        sketch.book(at, {low + 2: 5}, {low + 3: 5})
        sketch.book(at + 50, {100: 5}, {101: 5})
    found = calibrated(sketch.market(), "A", "k")
    assert found.intensity is not None
    assert found.intensity.k.value == pytest.approx(math.log(3 / 2))  # always two ticks beyond


def moving(told_ms: int | None, *, quoted: bool = False, prints: bool = True, seed: int = 0) -> Market:
    """Return a mid that walks by ticks, sweeps of A = 8, k = 1/2 from the touch, a book told now and then.

    ``quoted``: the venue tells the touch at each move. ``prints``: a sweep prints each price that it met.
    """
    a, k, seconds = 8.0, 0.5, 200.0
    rng = np.random.default_rng(seed)
    moves = np.sort(rng.uniform(0, seconds, rng.poisson(9 * seconds)))
    bids = 100_000 + np.concatenate(([0], np.cumsum(rng.choice([-1, 1], len(moves)))))
    sweeps = np.sort(rng.uniform(0, seconds, rng.poisson(2 * a * math.exp(-k / 2) * seconds)))
    events: list[tuple[float, int, int]] = [(at, 0, 0) for at in sweeps]
    if quoted:
        events += [(at, 2, i + 1) for i, at in enumerate(moves)]
    book_at = moves if told_ms is None else np.arange(told_ms / 1e3, seconds, told_ms / 1e3)
    events += [(at, 1, int(np.searchsorted(moves, at, side="right"))) for at in book_at]
    sketch = Sketch()
    sketch.book(0, {100_000: 5}, {100_001: 5})
    for at, what, move in sorted(events):
        if what == 0:
            bid = int(bids[np.searchsorted(moves, at)])
            side, beyond = rng.integers(2), int(rng.geometric(1 - math.exp(-k))) - 1
            for reached in range(beyond + 1) if prints else (beyond,):
                price = bid + 1 + reached if side else bid - reached
                sketch.trade(at * 1e3, "buy" if side else "sell", price, 1)
        elif what == 1:
            sketch.book(at * 1e3, {int(bids[move]): 5}, {int(bids[move]) + 1: 5})
        else:
            sketch.quote(at * 1e3, (int(bids[move]), 5), (int(bids[move]) + 1, 5))
    return sketch.market()


def test_the_venue_s_own_touch_gives_a_and_k_however_seldom_the_book_is_told() -> None:
    live = calibrated(moving(None), "A", "k")
    quoted = calibrated(moving(500, quoted=True), "A", "k")
    assert (live.touch, quoted.touch) == ("depth", "bbo")
    assert live.inside == quoted.inside == 0
    assert live.intensity is not None
    assert quoted.intensity is not None
    assert quoted.intensity.k == live.intensity.k
    assert quoted.intensity.a.value == pytest.approx(live.intensity.a.value, rel=1e-3)
    for found, truth in ((live.intensity.a, 8.0), (live.intensity.k, 0.5)):
        assert found.se is not None
        assert found.se < 0.05 * truth
        assert abs(found.value - truth) < 3 * found.se


def test_an_old_touch_puts_sweeps_inside_it_and_widens_the_errors_without_moving_the_estimate() -> None:
    """Counting only the sweeps outside would say k = 0.39."""
    found = calibrated(moving(500), "A", "k")
    assert found.touch == "depth"
    assert 0.1 < found.inside_share < 0.3
    assert found.intensity is not None
    assert not found.by_own_price
    a, k = found.intensity.a, found.intensity.k
    assert a.se is not None
    assert k.se is not None
    assert k.value == pytest.approx(0.5, abs=0.05)
    assert a.value == pytest.approx(8.0, abs=0.8)
    assert 0.08 < k.se < 0.25


def test_an_old_touch_says_nothing_of_k_unless_the_sweeps_own_prices_bear_it_out() -> None:
    with pytest.raises(UsageError, match=r"none of them traded at more than one price.*\(record bbo to know"):
        calibrated(moving(500, prints=False), "k")


def at_the_touch(*, further: int) -> Market:
    """Return sweeps that stop at a touch which the book tells late, but for a few that go on by a tick."""
    sketch, bid = Sketch(), 1000
    rng = np.random.default_rng(2)
    sketch.book(0, {bid: 5}, {bid + 1: 5})
    for at in range(100, 10_000, 100):
        bid += int(rng.choice([-9, 9]))
        side = int(rng.integers(2))
        best = bid + 1 if side else bid
        sketch.trade(at, "buy" if side else "sell", best, 1)
        if at // 100 <= further:
            sketch.trade(at, "buy" if side else "sell", best + (1 if side else -1), 1)
        sketch.book(at + 50, {bid: 5}, {bid + 1: 5})
    return sketch.market()


def test_a_touch_too_uncertain_leaves_the_sweeps_own_first_price_to_measure_from() -> None:
    with pytest.raises(UsageError, match="2 of them traded at more than one price"):
        calibrated(at_the_touch(further=2), "k")
    found = calibrated(at_the_touch(further=9), "A", "k")
    assert found.by_own_price
    assert found.intensity is not None
    assert found.intensity.k.value == pytest.approx(math.log(1 + 99 / 9))
    assert found.intensity.k.se is not None
    assert found.intensity.k.se > 1


def test_a_calibration_that_was_not_seen_to_be_out_of_date_is_the_textbook_s() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {104: 5})
    for at in range(10, 200, 10):
        sketch.trade(at, "buy", 104 + at % 20 // 10, 1)
    sketch.diff(300, {99: 1})
    found = calibrated(sketch.market(), "A", "k")
    assert found.intensity is not None
    assert (found.intensity.a.n, found.inside, found.inside_share) == (19, 0, 0.0)
    assert found.buys is not None
    assert found.sells is None  # none sold


def test_quotes_not_seen_by_the_end_are_not_used() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    for at in range(10, 300, 10):
        sketch.trade(at, "buy", 103, 1)
    sketch.quote(5, (100, 1), (101, 1), latency=1000)
    sketch.diff(400, {100: 6})
    found = calibrated(sketch.market(), "k", until_ms=350)
    assert found.touch == "depth"
    assert found.intensity is not None
    assert found.intensity.k.value == pytest.approx(math.log(2))  # a tick beyond 102


def test_sigma_leaves_out_what_a_hole_hides() -> None:
    sketch = Sketch()
    for i in range(41):
        sketch.book(i * 100, {100 + i % 2: 5}, {102 + i % 2: 5})
    sketch.gap(4050)
    for i in range(42, 81):
        sketch.book(i * 100, {900 + i % 2: 5}, {902 + i % 2: 5})
    sketch.diff(8002, {1: 1})
    found = calibrated(sketch.market(), "sigma")
    assert found.sigma is not None
    assert found.sigma.value == pytest.approx(1 / math.sqrt(0.1))
    assert found.sigma.se == pytest.approx(0, abs=1e-9)


def test_what_was_not_seen_by_the_end_is_not_used() -> None:
    sketch = Sketch()
    for i in range(30):
        sketch.book(i * 100, {100 + i % 2: 5}, {102 + i % 2: 5})
        sketch.trade(i * 100 + 50, "buy", 103, 5)
    sketch.trade(2960, "buy", 103, 999, latency=60)
    sketch.trade(2970, "buy", 103, 999, latency=60)
    sketch.diff(4000, {99: 1})
    assert calibrated(sketch.market(), "order_size", until_ms=3000).trades == 30


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("A", "set them by --set A=value --set k=value"),
        ("k", "at least 10 are needed; set them by --set A=value --set k=value"),
        ("sigma", "set it by --set sigma=value"),
        ("order_size", "holds no trades; set it by --set order_size=value"),
    ],
)
def test_too_little_says_what_to_set(wanted: str, sentence: str) -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.diff(500, {100: 6})
    with pytest.raises(UsageError, match=sentence):
        calibrated(sketch.market(), wanted)


def test_sweeps_that_all_stop_at_the_touch_do_not_tell_k() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    for at in range(10, 300, 10):
        sketch.trade(at, "buy", 102, 1)
    sketch.diff(400, {100: 6})
    with pytest.raises(UsageError, match=r"stopped at it; set it by --set k=value"):
        calibrated(sketch.market(), "k")


def test_a_mid_that_never_moves_does_not_tell_sigma() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    sketch.diff(5000, {100: 6})
    with pytest.raises(UsageError, match="the mid never moved"):
        calibrated(sketch.market(), "sigma")
