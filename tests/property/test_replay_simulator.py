"""What holds of every simulation, whatever the market, the latencies and the fill models."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmdata.datasets.book import rebuild
from mmdata.datasets.market import Market
from mmdata.replay import state as kernel
from mmdata.replay.clock import map_clock, timeline
from mmdata.replay.result import Result
from mmdata.replay.settings import Value
from mmdata.replay.simulator import MODELS, run
from mmdata.replay.sketch import EPOCH, Sketch

MS = 1_000_000
SPAN_MS = 3000


@dataclass(frozen=True)
class Case:
    """A random market, how it is traded, and where it may get one more hole."""

    seed: int
    holes: tuple[int, ...]
    order_latency_ms: int
    response_latency_ms: int
    max_inventory: int
    gamma: float
    half_spread: float
    fee: str
    quoted: bool

    def sketch(self, until_ms: float = SPAN_MS, extra_hole: float | None = None) -> Sketch:
        """Return the market; with a hole more, what comes after it is the same."""
        rng = np.random.default_rng(self.seed)
        sketch, bid = Sketch(tick_size=Decimal("0.05"), lot_size=Decimal("0.001")), 1000
        lost = False
        for at in range(0, SPAN_MS, 10):
            draws = rng.integers(0, 1 << 30, 12)
            latency = 1 + draws[0] % 7
            told = at < until_ms
            if told and (at // 10 in self.holes or at == extra_hole):
                sketch.gap(at)
                lost = True
            if draws[1] % 4 == 0:
                bid += int(draws[2] % 7) - 3
            whole = at == 0 or draws[3] % 5 == 0
            if told and whole:
                sketch.book(at, _side(bid, -1, draws[4:7]), _side(bid + 2, 1, draws[7:10]), latency)
                lost = False
            elif told and not lost:
                sketch.diff(at, {bid - int(draws[4] % 3): int(draws[5] % 9)}, None, latency)
            if told and draws[10] % 2:
                taker, price = ("buy", bid + 2) if draws[11] % 2 else ("sell", bid)
                beyond = int(draws[9] % 3) * (1 if taker == "buy" else -1)
                sketch.trade(at + 4, taker, price + beyond, 1 + int(draws[8] % 9), latency)
            if told and self.quoted and draws[7] % 3:
                moved = int(draws[6] % 5) - 2
                after = at + int(draws[5] % 3) * 3  # now and then at the moment of the message
                sketch.quote(
                    after,
                    (bid + moved, 1 + int(draws[4] % 20)),
                    (bid + 2 + moved, 1 + int(draws[3] % 20)),
                    latency,
                )
        return sketch

    def run(self, sketch: Sketch, models: tuple[str, ...] = tuple(MODELS), end_ms: float = SPAN_MS) -> Result:
        """Simulate from 0 to ``end_ms``."""
        return run(
            sketch.market(),
            models=models,
            settings=self.chosen(),
            seed=self.seed,
            start=EPOCH,
            end=EPOCH + round(end_ms * MS),
        )

    def chosen(self) -> dict[str, Value]:
        """Return settings for everything that would be estimated."""
        return {
            "A": 5.0,
            "k": 1 / self.half_spread,
            "sigma": 2.0,
            "gamma": self.gamma,
            "order_size": Decimal("0.003"),
            "max_inventory": float(self.max_inventory),
            "order_latency": self.order_latency_ms * MS,
            "response_latency": self.response_latency_ms * MS,
            "maker_fee": Decimal(self.fee),
            "interval": 50 * MS,
        }


def _side(best: int, step: int, draws: NDArray[np.int64]) -> dict[int, int]:
    return {best + step * i: 1 + int(draw % 20) for i, draw in enumerate(draws)}


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    holes=st.lists(st.integers(6, 290), max_size=3).map(tuple),
    order_latency_ms=st.sampled_from([0, 1, 30, 170]),
    response_latency_ms=st.sampled_from([0, 1, 120]),
    max_inventory=st.integers(1, 4),
    gamma=st.sampled_from([0.0, 0.01, 0.2]),
    half_spread=st.sampled_from([0.5, 1.0, 3.0]),
    fee=st.sampled_from(["0", "0.00021", "-0.0001"]),
    quoted=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_profit_adds_up_exactly_and_inventory_is_what_was_bought_less_what_was_sold(case: Case) -> None:
    result = case.run(case.sketch())
    for model in result.models:
        frame = model.fill_frame()
        signed = [
            size if side == "buy" else -size for side, size in zip(frame["side"], frame["size"], strict=True)
        ]
        cash = -sum((n * p for n, p in zip(signed, frame["price"], strict=True)), Decimal(0))
        assert model.final_inventory == sum(signed, Decimal(0))
        assert model.volume == sum((abs(n) for n in signed), Decimal(0))
        pnl = model.pnl
        assert pnl.total == pnl.spread + pnl.inventory - pnl.fees
        assert pnl.fees == Decimal(case.fee) * sum(
            (abs(n) * p for n, p in zip(signed, frame["price"], strict=True)), Decimal(0)
        )
        captured = [n * (m - p) for n, m, p in zip(signed, frame["mid"], frame["price"], strict=True)]
        assert pnl.spread == sum(captured, Decimal(0))
        last = model.columns.tick_size * result.last_mid2 / 2
        assert pnl.total + pnl.fees == cash + model.final_inventory * last
        held = np.cumsum([int(n * 1000) for n in signed]) if signed else np.zeros(1)
        assert abs(held).max() <= case.max_inventory * 3
        assert model.max_inventory == Decimal(int(abs(held).max())) / 1000


@settings(max_examples=60, deadline=None)
@given(cases)
def test_nothing_fills_before_its_order_is_there_nor_inside_a_hole(case: Case) -> None:
    market = case.sketch().market()
    times = timeline(market, map_clock(market))
    result = case.run(case.sketch())
    valid = validity(market)
    for model in result.models:
        fills, decisions = model.columns.fill, model.columns.decision
        placed, at = fills[:, kernel.FILL_PLACED], fills[:, kernel.FILL_TIME]
        assert (placed <= at).all()
        quoted = decisions[decisions[:, kernel.DECISION_QUOTED] == 1, kernel.DECISION_TIME]
        assert np.isin(placed - case.order_latency_ms * MS, quoted).all()
        # A fill may come of a message of its very moment, or stand before one that makes the hole.
        before = valid[np.searchsorted(times.acts, at, side="left") - 1]
        after = valid[np.searchsorted(times.acts, at, side="right") - 1]
        assert (before | after).all()
        # Nor did a hole lie between the order and its fill.
        invalid = np.cumsum(~valid)
        first = np.searchsorted(times.acts, placed, side="right") - 1
        last = np.searchsorted(times.acts, at, side="left") - 1
        assert (invalid[np.maximum(first, last)] == invalid[first]).all()


def validity(market: Market) -> NDArray[np.bool_]:
    """Return whether the book is valid after each message, by the validator's own rebuild."""
    return rebuild(market.columns, market.chain).valid


@settings(max_examples=60, deadline=None)
@given(cases)
def test_no_decision_uses_what_was_not_visible_or_an_invalid_book(case: Case) -> None:
    market = case.sketch().market()
    times = timeline(market, map_clock(market))
    valid = validity(market)
    quoted = 0
    for row in case.run(case.sketch()).models[0].columns.decision:
        at, seen = row[kernel.DECISION_TIME], row[kernel.DECISION_SEEN]
        assert seen == np.searchsorted(times.seen, at, side="right") - 1
        if row[kernel.DECISION_QUOTED]:
            quoted += 1
            assert max(times.seen[seen], times.acts[seen]) <= at
            assert valid[seen]
    assert quoted


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(10, 290))
def test_a_hole_changes_nothing_before_the_last_message_that_proves_the_book(case: Case, place: int) -> None:
    hole = place * 10
    sketch = case.sketch(extra_hole=hole)
    whole, torn = case.run(case.sketch()), case.run(sketch)
    # The mark of the hole acts from the message before it on.
    acts = timeline(sketch.market(), torn.clock).acts
    begins = acts[np.searchsorted(acts, EPOCH + hole * MS, side="left") - 1]
    for before, after in zip(whole.models, torn.models, strict=True):
        kept = before.columns.fill[before.columns.fill[:, kernel.FILL_TIME] < begins]
        assert after.columns.fill[: len(kept)].tolist() == kept.tolist()


@settings(max_examples=40, deadline=None)
@given(cases, st.integers(10, 290))
def test_what_comes_later_changes_nothing_before_it(case: Case, place: int) -> None:
    until = place * 10
    sketch = case.sketch(until_ms=until)
    whole, first = case.run(case.sketch()), case.run(sketch, end_ms=until)
    # A hole found later began with the last message before it.
    proven_until = timeline(sketch.market(), first.clock).acts[-1]
    for all_, some in zip(whole.models, first.models, strict=True):
        kept, found = (
            model.columns.fill[model.columns.fill[:, kernel.FILL_TIME] < proven_until]
            for model in (all_, some)
        )
        assert found.tolist() == kept.tolist()


@settings(max_examples=40, deadline=None)
@given(cases, st.permutations(sorted(MODELS)))
def test_a_lane_is_the_same_alone_together_in_any_order_and_twice(case: Case, order: list[str]) -> None:
    sketch = case.sketch()
    together = case.run(sketch, tuple(order))
    assert case.run(sketch, tuple(order)).to_json_dict() == together.to_json_dict()
    for name in order:
        alone, with_others = case.run(sketch, (name,)).models[0], together.model(name)
        assert alone.columns.fill.tolist() == with_others.columns.fill.tolist()
        assert (alone.orders, alone.rejected) == (with_others.orders, with_others.rejected)
        assert alone.pnl == with_others.pnl
