"""Does the book lean where the price goes next? The size on either side against the bar that follows.

python examples/bars_and_books.py data --exchange binance --symbol BTCUSDT --every 1s
"""

from __future__ import annotations

import argparse

import polars as pl

from mmdata.datasets import bars, books


def leaning(root: str, exchange: str, symbol: str, every: str) -> pl.DataFrame:
    """Return a row a bar: how the book leaned when it began, what was traded, and how the price moved in it.

    ``lean`` is (bids - asks) / (bids + asks) by size over five levels, as known at the bar's begin; null
    where the book was not proven then.
    """
    sizes = {side: pl.sum_horizontal(pl.col(f"^{side}_size_.*$")) for side in ("bid", "ask")}
    book = books(root, exchange=exchange, symbol=symbol, depth=5, every=every, prices="float").select(
        ts="ts_recv",
        lean=pl.when("valid").then((sizes["bid"] - sizes["ask"]) / (sizes["bid"] + sizes["ask"])),
    )
    # Both by the recorder's clock: the book is shown as it was known, and so is the tape.
    traded = bars(root, exchange=exchange, symbol=symbol, every=every, clock="ts_recv", prices="float")
    return traded.join(book, on="ts", how="left").select(
        "ts", "lean", "imbalance", "trades", move=pl.col("close") - pl.col("open")
    )


def main() -> None:
    """Print the rows, and the correlation of lean and move."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", help="a folder, or s3://bucket/prefix")
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--symbol", required=True)
    parser.add_argument("--every", default="1s")
    given = parser.parse_args()
    rows = leaning(given.root, given.exchange, given.symbol, given.every)
    print(rows)
    print(rows.drop_nulls().select(correlation=pl.corr("lean", "move")))


if __name__ == "__main__":
    main()
