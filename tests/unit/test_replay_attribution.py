"""Where a profit came from, to the last digit."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from mmdata.replay.attribution import attribute


@pytest.mark.real
def test_the_worked_example_is_met_exactly(shared_folder: Path) -> None:
    example = json.loads((shared_folder / "reference/pnl_attribution.json").read_text())
    cents = {
        name: np.array([int(Decimal(fill[name]) * 100) for fill in example["fills"]])
        for name in ("price", "mid_at_fill")
    }
    expected = {name: Decimal(value) for name, value in example["expected"].items() if isinstance(value, str)}
    found = attribute(
        np.array([fill["side"] for fill in example["fills"]]),
        cents["price"],
        np.array([int(fill["qty"]) for fill in example["fills"]]),
        2 * cents["mid_at_fill"],
        int(2 * expected["final_mid"] * 100),
        tick_size=Decimal("0.01"),
        lot_size=Decimal(1),
        fees=[Decimal(fill["fee"]) for fill in example["fills"]],
    )
    assert found.total == expected["total_pnl"]
    assert found.spread == expected["spread_capture"]
    assert found.inventory == expected["inventory_pnl"]
    assert found.fees == expected["fees_paid"]


def test_more_than_64_bits_and_28_digits_are_exact() -> None:
    n = np.array([10**14 + 1])
    found = attribute(
        np.array([1]), np.array([10**14 + 3]), n, np.array([2 * 10**14 + 7]), 2 * 10**14 - 1,
        tick_size=Decimal("0.00000001"), lot_size=Decimal("0.00000001"), fees=Decimal("1E-40"),
    )  # fmt: skip
    assert found.spread == (10**14 + 1) * Decimal("0.5E-16")
    assert found.inventory == -4 * (10**14 + 1) * Decimal("1E-16")
    assert str(found.total) == "-0.0350000000000003500000000000000000000001"


def test_without_fills_there_is_no_profit() -> None:
    none = np.empty(0, np.int64)
    found = attribute(none, none, none, none, 200, tick_size=Decimal(1), lot_size=Decimal(1))
    assert {found.total, found.spread, found.inventory, found.fees} == {Decimal(0)}
