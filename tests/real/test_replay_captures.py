"""Replay and simulation of the real captures."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import TypedDict

import numpy as np
import polars as pl
import pytest

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets.errors import UsageError
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import Quotes
from mmdata.replay import BookEvent, TradeEvent, calibrate, replay, simulate, tops, warm_up
from mmdata.replay import state as kernel
from mmdata.replay.calibration import Touches, estimate
from mmdata.replay.clock import Extent, map_clock, timeline
from mmdata.replay.stream import Rebuild

pytestmark = pytest.mark.real


class Which(TypedDict):
    """What is replayed."""

    exchange: str
    symbol: str


SPOT = Which(exchange="binance", symbol="BTCUSDT")
PERPETUAL = Which(exchange="binance-usdm", symbol="BTCUSDT")
SET = {"A": 1, "k": 0.1, "sigma": 20, "order_size": "0.01"}


def test_the_stream_holds_every_message_and_trade_in_order_of_arrival(real_dataset: Path) -> None:
    books = trades = 0
    last = 0
    for event in replay(real_dataset, **SPOT):
        assert event.ts_recv >= last
        last = event.ts_recv
        books += isinstance(event, BookEvent) and event.kind == "diff"
        trades += isinstance(event, TradeEvent)
    assert (books, trades) == (6495, 19904)


def test_from_a_start_the_book_is_what_it_is_when_read_from_the_beginning(real_dataset: Path) -> None:
    start, end = "2024-08-08T23:55:00Z", "2024-08-08T23:55:05Z"

    def lines(start: str | None) -> list[tuple[int, object, object]]:
        return [
            (event.ts_recv, event.book.bids(3), event.book.best_ask)
            for event in replay(real_dataset, **SPOT, start=start, end=end)
        ]

    some = lines(start)
    assert len(some) > 50
    whole = [line for line in lines(None) if line[0] >= some[0][0]]
    assert some == whole


def test_tops_equal_the_stream(real_dataset: Path) -> None:
    frame = tops(real_dataset, **PERPETUAL)
    bids = [
        event.book.best_bid.price if event.book.best_bid else None
        for event in replay(real_dataset, **PERPETUAL)
        if isinstance(event, BookEvent)
    ]
    assert frame["bid_price"].to_list() == bids
    crossed = frame.filter(pl.col("valid") & (pl.col("bid_price") >= pl.col("ask_price")))
    assert crossed.is_empty()


@pytest.mark.parametrize("which", [SPOT, PERPETUAL])
def test_four_fill_models_in_one_run(real_dataset: Path, which: Which) -> None:
    result = simulate(real_dataset, **which)
    (session,) = result.clock.sessions
    assert 1.2e9 < session.shift_ns < 1.3e9  # the recorder's clock is behind
    assert session.negative == session.timed
    assert result.covered == 1.0
    assert result.calibration is not None
    assert result.calibration.end == result.traded_from
    for model in result.models:
        assert model.fills >= 100
        assert model.pnl.total == model.pnl.spread + model.pnl.inventory - model.pnl.fees
        assert model.max_inventory <= 10 * Decimal(str(result.parameter("order_size").value))
        assert (model.columns.fill[:, kernel.FILL_TIME] >= result.traded_from).all()
    assert len({model.pnl.total for model in result.models}) == 4
    assert simulate(real_dataset, **which).to_json_dict() == result.to_json_dict()


def test_a_seed_changes_the_poisson_model_only(real_dataset: Path) -> None:
    first, second = (simulate(real_dataset, **SPOT, seed=seed) for seed in (0, 1))
    for before, after in zip(first.models, second.models, strict=True):
        assert (before.pnl == after.pnl) == (before.model != "poisson")


def test_the_raw_clock_is_refused(real_dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"26399 of 26399 messages, trades and quotes were"):
        simulate(real_dataset, **SPOT, clock="raw")


def test_okx_s_short_log_is_too_short_to_calibrate_but_not_to_trade(real_dataset: Path) -> None:
    which = Which(exchange="okx", symbol="BTC-USDT")
    with pytest.raises(UsageError, match="--set"):
        simulate(real_dataset, **which)
    result = simulate(real_dataset, **which, settings=SET)
    assert result.calibration is None
    assert result.model("poisson").fills > 0


def test_calibration_of_a_stretch(real_dataset: Path) -> None:
    found = calibrate(real_dataset, **SPOT, end="2024-08-09")
    assert found.intensity is not None
    assert found.buys is not None
    assert found.sells is not None
    assert 0 < found.intensity.k.value < 1
    assert found.intensity.k.se is not None
    assert found.intensity.k.se < 0.2 * found.intensity.k.value
    assert found.touch == "bbo"
    assert found.inside_share < 0.03


def test_the_touch_of_the_last_message_says_little_of_k_and_says_so(real_dataset: Path) -> None:
    """Against the venue's own touch sweeps reach a third as far; the errors reach from one to the other."""
    for which, nearest in ((SPOT, 0.0164), (PERPETUAL, 0.242)):
        market = load_market(real_dataset, **which)
        bare = replace(market, quotes=Quotes.none())
        times = timeline(bare, map_clock(bare))
        rows = Rebuild().tops(bare)
        touches = Touches.of(bare, times, rows[:, 0] == 1, rows[:, 1], rows[:, 3])
        found = estimate(bare, times, touches, *Extent.of(times, None).within(bare, None, None), ("A", "k"))
        assert found.touch == "depth"
        assert found.inside_share > 0.05
        assert found.intensity is not None
        assert found.intensity.k.se is not None
        assert found.intensity.k.value < nearest
        assert found.intensity.k.value + found.intensity.k.se > nearest


@pytest.mark.parametrize("which", [SPOT, PERPETUAL])
def test_no_order_rests_that_would_have_crossed_the_venue_s_own_touch(
    real_dataset: Path, which: Which
) -> None:
    market = load_market(real_dataset, **which)
    acts = timeline(market, map_clock(market)).quote_acts
    result = simulate(real_dataset, **which, settings=SET)
    assert result.touch == "bbo"
    for model in result.models:
        fills = model.columns.fill
        at = np.searchsorted(acts, fills[:, kernel.FILL_PLACED], side="right") - 1
        price = fills[:, kernel.FILL_PRICE]
        bought = fills[:, kernel.FILL_SIDE] > 0
        crossed = np.where(bought, market.quotes.ask_price[at] <= price, market.quotes.bid_price[at] >= price)
        assert len(fills) > 100
        assert not crossed.any()


def test_warmed_up_nothing_real_is_compiled_any_more(real_dataset: Path) -> None:
    def known() -> list[int]:
        modules = (kernel, book_kernel)
        return [len(f.signatures) for m in modules for f in vars(m).values() if hasattr(f, "signatures")]

    warm_up()
    before = known()
    assert sum(before)
    for which in (SPOT, PERPETUAL):
        for end in (None, "2024-08-08T23:58:00Z"):
            simulate(real_dataset, **which, end=end)
            tops(real_dataset, **which, end=end)
            next(iter(replay(real_dataset, **which, end=end)))
    assert known() == before
