"""Run crypto-lob-stream as released against another address; until SIGINT, then say what it stored.

    python run_crypto_lob_stream.py HOST:PORT FOLDER [book]

Its own Parquet files in FOLDER are what it delivers; with ``book``, also the book that its own
`reconstruct` makes of them. Nothing is changed but addresses.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import pyarrow.dataset as ds
from crypto_lob_stream import LOBStreamer
from crypto_lob_stream.exchanges import BinanceExchange
from crypto_lob_stream.reconstruct import reconstruct

HOST, FOLDER, WITH_BOOK = sys.argv[1], Path(sys.argv[2]), "book" in sys.argv[3:]
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a job in the background inherits that it is ignored
_ws_url, _snapshot_url = BinanceExchange.ws_url, BinanceExchange.snapshot_url
BinanceExchange.ws_url = lambda self, assets: _ws_url(self, assets).replace(
    "wss://stream.binance.com:9443", f"ws://{HOST}"
)
BinanceExchange.snapshot_url = lambda self, asset: _snapshot_url(self, asset).replace(
    "https://api.binance.com", f"http://{HOST}"
)


def best() -> dict[str, list[str]]:
    """Return the best bid and ask of the book at the end."""
    if not WITH_BOOK or not (FOLDER / "snapshots").exists():
        return {}
    bids, asks = reconstruct(str(FOLDER), "binance", "BTCUSDT").top(1)
    return {"bid": [*map(str, bids[0])], "ask": [*map(str, asks[0])]}


def column_pairs(table: str, *names: str) -> list[list[int]]:
    """Return the columns of a table that it wrote, in order, a message once."""
    folder = FOLDER / table
    if not folder.exists():
        return []
    files = sorted(str(path) for path in folder.rglob("*.parquet"))
    rows = ds.dataset(files, format="parquet").to_table(columns=list(names)).to_pydict()
    return [list(row) for row in dict.fromkeys(zip(*(rows[name] for name in names), strict=True))]


FOLDER.mkdir()
LOBStreamer(
    assets=["BTCUSDT"], exchange="binance", output_dir=str(FOLDER), log_dir=str(FOLDER / "logs")
).run()
cpu_s = time.process_time()  # what follows is ours
print(
    json.dumps(
        {
            "cpu_s": cpu_s,
            "books": column_pairs("depth", "first_update_id", "last_update_id"),
            "trades": [row[0] for row in column_pairs("trades", "trade_id")],
            "gaps": column_pairs("gaps", "expected_update_id", "received_update_id"),
            **best(),
        }
    )
)
