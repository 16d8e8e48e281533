"""The quotes of Avellaneda and Stoikov, against the paper, exact moments and the stationary theory."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from mmdata.replay import avellaneda_stoikov as formulas


def reference(shared: Path, name: str) -> dict[str, list[dict[str, float]]]:
    return json.loads((shared / "reference" / name).read_text())  # type: ignore[no-any-return]


@pytest.mark.real
def test_every_point_of_the_finite_horizon_is_met(shared_folder: Path) -> None:
    points = reference(shared_folder, "as2008_formulas.json")["finite_horizon"]
    assert len(points) == 60
    for point in points:
        q, gamma, tau = point["q"], point["gamma"], point["tau"]
        bid, ask = formulas.quotes(100.0, q, gamma, 2.0, 1.5, tau)
        assert formulas.reservation_price(100.0, q, gamma, 2.0, tau) == pytest.approx(point["r"], abs=1e-12)
        assert formulas.spread(gamma, 2.0, 1.5, tau) == pytest.approx(point["spread"], abs=1e-12)
        assert (bid, ask) == pytest.approx((point["bid"], point["ask"]), abs=1e-11)
        assert (100 - bid, ask - 100) == pytest.approx((point["delta_b"], point["delta_a"]), abs=1e-11)
        prices = formulas.indifference_prices(100.0, q, gamma, 2.0, tau)
        assert prices == pytest.approx((point["r_b"], point["r_a"]), abs=1e-12)


@pytest.mark.real
def test_every_point_without_end_is_met_and_the_printed_ask_is_not_the_definition_s(
    shared_folder: Path,
) -> None:
    points = json.loads((shared_folder / "reference/as2008_formulas.json").read_text())["infinite_horizon"]
    for point in points["points"]:
        q, gamma, sigma, most = (point[name] for name in ("q", "gamma", "sigma", "q_max"))
        bid, ask = formulas.indifference_prices_without_end(0.0, q, gamma, sigma, most)
        printed = formulas.indifference_prices_without_end(0.0, q, gamma, sigma, most, as_printed=True)
        for ours, theirs in (
            (bid, point["r_b_minus_s"]),
            (ask, point["r_a_minus_s_from_definition"]),
            (printed[1], point["r_a_minus_s_as_printed"]),
        ):
            assert ours == (None if theirs is None else pytest.approx(theirs, abs=1e-9))


def test_without_end_an_ask_is_the_bid_of_the_mirrored_inventory() -> None:
    for q in range(-4, 5):
        bid, ask = formulas.indifference_prices_without_end(0.0, q, 0.1, 2.0, 10)
        mirrored, _ = formulas.indifference_prices_without_end(0.0, -q, 0.1, 2.0, 10)
        assert ask is not None
        assert mirrored is not None
        assert bid is not None
        assert ask == pytest.approx(-mirrored)
        assert bid < ask


def test_a_maker_without_risk_aversion_asks_for_one_over_k() -> None:
    for gamma in (0.0, 1e-300, 1e-15, 1e-9):
        assert formulas.liquidity_premium(gamma, 1.5) == pytest.approx(1 / 1.5, rel=1e-9)
    # The series and the logarithm meet.
    below, above = (formulas.liquidity_premium(1.5 * ratio, 1.5) for ratio in (0.999e-8, 1.001e-8))
    assert below == pytest.approx(above, rel=1e-10)
    assert below > above


@pytest.mark.real
def test_stationary_quantities_are_met(shared_folder: Path) -> None:
    for case in reference(shared_folder, "glft_stationary.json")["cases"]:
        gamma, sigma, k, a = case["gamma"], case["sigma"], case["k"], case["A"]
        assert formulas.risk_and_flow(gamma, sigma, k, a) == pytest.approx((case["alpha"], case["eta"]))
        assert formulas.useful_horizon(gamma, sigma, k, a) == pytest.approx(case["effective_AS_horizon"])
        assert formulas.inventory_std(gamma, sigma, k, a) == pytest.approx(case["std_q_gaussian_approx"])
        again = formulas.risk_aversion_for(case["std_q_gaussian_approx"], sigma, k, a)
        assert again == pytest.approx(gamma)


def test_at_the_useful_horizon_the_skew_is_glft_s() -> None:
    gamma, sigma, k, a = 0.1, 0.3, 0.3, 0.5
    horizon = formulas.useful_horizon(gamma, sigma, k, a)
    glft = math.sqrt(sigma**2 * gamma / (2 * k * a) * (1 + gamma / k) ** (1 + k / gamma))
    assert gamma * sigma**2 * horizon == pytest.approx(glft)


def test_without_risk_there_is_no_horizon() -> None:
    assert formulas.useful_horizon(0.0, 1.0, 1.0, 1.0) == math.inf
    assert formulas.inventory_std(0.0, 1.0, 1.0, 1.0) == math.inf


@pytest.mark.parametrize(
    ("gamma", "mean", "std"), [(0.1, 64.8925, 6.5432), (0.01, 68.3996, 8.9606), (1.0, 31.4545, 4.8379)]
)
def test_the_paper_s_profit_is_met_by_exact_moments(gamma: float, mean: float, std: float) -> None:
    """The journal's table 1 to 3 set-up: moments of the remaining profit, backwards over the inventory."""
    sigma, k, a, steps = 2.0, 1.5, 140.0, 200
    dt = 1.0 / steps
    most = steps + 1
    q = np.arange(-most, most + 1).astype(float)
    first, second = np.zeros_like(q), np.zeros_like(q)
    for n in range(steps - 1, -1, -1):
        quoted = [formulas.quotes(0.0, held, gamma, sigma, k, 1.0 - n * dt) for held in q]
        down, up = -np.array(quoted)[:, 0], np.array(quoted)[:, 1]
        buys, sells = (
            np.minimum(1.0, a * dt * np.exp(np.minimum(-k * distance, 50))) for distance in (down, up)
        )
        new_first, new_second = np.zeros_like(q), np.zeros_like(q)
        for bought, sold in ((0, 0), (0, 1), (1, 0), (1, 1)):
            chance = (buys if bought else 1 - buys) * (sells if sold else 1 - sells)
            cash = bought * down + sold * up
            then = np.clip(np.arange(len(q)) + bought - sold, 0, len(q) - 1)
            new_first += chance * (cash + first[then])
            risk = q[then] ** 2 * sigma**2 * dt
            new_second += chance * (cash**2 + 2 * cash * first[then] + second[then] + risk)
        first, second = new_first, new_second
    assert first[most] == pytest.approx(mean, abs=1e-4)
    assert math.sqrt(second[most] - first[most] ** 2) == pytest.approx(std, abs=1e-4)
