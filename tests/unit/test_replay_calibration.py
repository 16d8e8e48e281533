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
from mmdata.replay.clock import map_clock, recorded, timeline
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.stream import build_tops

MS = 1_000_000


def calibrated(market: Market, *wanted: str, until_ms: float | None = None) -> Calibration:
    times = timeline(market, map_clock(market))
    tops = build_tops(market)
    touches = Touches.of(market, times, tops[:, 0] == 1, tops[:, 1], tops[:, 3])
    begin, end = recorded(market, times, None, None if until_ms is None else EPOCH + round(until_ms * MS))
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


def test_trades_inside_an_outdated_book_are_left_out_and_counted() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {104: 5})
    for at in range(10, 200, 10):
        sketch.trade(at, "buy", 104 + at % 20 // 10, 1)
        sketch.trade(at + 5, "buy", 102, 1)
    sketch.diff(300, {99: 1})
    found = calibrated(sketch.market(), "A", "k")
    assert found.intensity is not None
    assert (found.intensity.a.n, found.inside) == (19, 19)
    assert found.buys == calibrated(sketch.market(), "A", "k").buys
    assert found.sells is None  # none sold


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
