"""Others read what we export, and have our book: hftbacktest and NautilusTrader, as released.

They live in an environment of their own (`make peer-test` makes it); MMDATA_PEERS names its Python.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from mmdata.datasets import export
from mmdata.datasets._kernel import NO_PRICE
from mmdata.datasets.book import rebuild
from mmdata.datasets.loading import load_market
from mmdata.replay.clock import map_clock, timeline
from tests.conftest import REPOSITORY, WINGS

pytestmark = pytest.mark.real

PEERS = Path(os.environ.get("MMDATA_PEERS") or REPOSITORY / ".venv-peers/bin/python")
SCRIPTS = REPOSITORY / "benchmarks/peers"
_EMPTY_BID, _EMPTY_ASK = -(2**63), 2**63 - 1  # hftbacktest's ticks of an empty side


def peer(script: str, *args: object) -> str:
    """Run a script by the peers' Python; skip where there is none."""
    if not PEERS.exists():
        pytest.skip("no environment with hftbacktest and NautilusTrader: make peer-test")
    paths = os.pathsep.join(str(REPOSITORY / wing) for wing in WINGS)
    run = subprocess.run(
        [str(PEERS), str(SCRIPTS / script), *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def differing(
    root: Path, exchange: str, symbol: str, order: str, rows: np.ndarray, empty: tuple[int, int]
) -> tuple[int, int]:
    """Compare a peer's best bid and ask, price and size, with ours at each of its steps.

    Returns at how many steps our book is valid, and at how many (of all) the two differ.
    """
    market = load_market(root, exchange, symbol)
    times = timeline(market, map_clock(market))
    tops = rebuild(market.columns, market.chain)
    at = np.searchsorted(times.seen if order == "local" else times.acts, rows[:, 0], side="right") - 1
    valid = (at >= 0) & tops.valid[at]
    ours = np.stack(
        [
            np.where(valid & (tops.bid_price[at] != NO_PRICE), tops.bid_price[at], empty[0]),
            np.where(valid & (tops.ask_price[at] != NO_PRICE), tops.ask_price[at], empty[1]),
            np.where(valid, tops.bid_size[at], 0),
            np.where(valid, tops.ask_size[at], 0),
        ],
        axis=1,
    )
    return int(valid.sum()), int((ours != rows[:, 1:]).any(axis=1).sum())


@pytest.mark.parametrize("order", ["local", "exchange"])
@pytest.mark.parametrize(
    ("exchange", "symbol", "steps"),
    [
        ("binance", "BTCUSDT", {"local": 26_395, "exchange": 13_523}),
        ("binance-usdm", "BTCUSDT", {"local": 27_853, "exchange": 11_656}),
        ("okx", "BTC-USDT", {"local": 165, "exchange": 137}),
    ],
)
def test_hftbacktest_has_our_best_bid_and_ask_at_every_step(
    real_dataset: Path, tmp_path: Path, exchange: str, symbol: str, steps: dict[str, int], order: str
) -> None:
    report = export(real_dataset, "hftbacktest", tmp_path, exchange=exchange, symbol=symbol)
    [facts] = report.symbols
    files = [file.path for file in report.files if file.path.suffix == ".npz"]
    rows = tmp_path / "tops.npy"
    peer("run_hftbacktest.py", facts["tick_size"], facts["lot_size"], order, rows, *files)
    compared = differing(real_dataset, exchange, symbol, order, np.load(rows), (_EMPTY_BID, _EMPTY_ASK))
    assert compared == (steps[order], 0)
    assert facts["rows_not_placed"] == 0


def test_nautilus_reads_its_catalog_and_has_our_best_bid_and_ask(real_dataset: Path, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog"
    peer("export_nautilus.py", real_dataset, catalog)
    for exchange, symbol, name, tick, lot, messages, trades in (
        ("binance", "BTCUSDT", "BTCUSDT.BINANCE", "0.01", "0.000001", 6_493, 19_904),
        ("binance-usdm", "BTCUSDT", "BTCUSDT-PERP.BINANCE", "0.1", "0.001", 6_546, 21_313),
        ("okx", "BTC-USDT", "BTC-USDT.OKX", "0.1", "0.00000001", 98, 69),
    ):
        rows = tmp_path / f"{name}.npy"
        assert int(peer("run_nautilus.py", catalog, name, tick, lot, rows)) == trades
        compared = differing(real_dataset, exchange, symbol, "local", np.load(rows), (-1, -1))
        assert compared == (messages, 0)
