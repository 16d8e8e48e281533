"""How wide is the market, and how often is the book not to be trusted? With Polars, over one recording.

python examples/spread_and_depth.py data --exchange binance --symbol BTCUSDT
"""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl

from mmdata.replay import tops


def spread_table(root: Path, exchange: str, symbol: str) -> pl.DataFrame:
    """Return the share of book messages at each spread, in quote currency, widest share first."""
    frame = tops(root, exchange=exchange, symbol=symbol)
    return (
        frame.filter("valid")
        .with_columns(spread=pl.col("ask_price") - pl.col("bid_price"))
        .group_by("spread")
        .agg(messages=pl.len())
        .with_columns(share=pl.col("messages") / pl.col("messages").sum())
        .sort("messages", descending=True)
    )


def main() -> None:
    """Print the table of one symbol."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path)
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--symbol", required=True)
    given = parser.parse_args()
    print(spread_table(given.root, given.exchange, given.symbol))


if __name__ == "__main__":
    main()
