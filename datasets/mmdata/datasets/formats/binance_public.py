"""Binance's public archive: zips of `trades` and `aggTrades`, spot and USDⓈ-M, by day or month.

The files name neither exchange nor symbol: the first is said by whoever imports, the second stands in the
file's name. Times are milliseconds, on spot microseconds since 2025-01-01; some files have a header line.
Nobody received these trades: ``ts_recv`` is the time of the trade, and the session says so.

Source: github.com/binance/binance-public-data, README, read in November 2026.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.rows import Batch, Cells, Channel, every_row
from mmdata.datasets.formats.sources import Blocks
from mmdata.datasets.schema import TIME

EXCHANGES = ("binance", "binance-usdm")
_NAME = re.compile(r"(?P<symbol>.+)-(?P<kind>trades|aggTrades)-\d{4}-\d\d(-\d\d)?\.(zip|csv|csv\.gz)")
_TRADES = ("id", "price", "size", "quote", "time", "is_buyer_maker")
_AGGREGATES = ("id", "price", "size", "first", "last", "time", "is_buyer_maker")
_BEST_MATCH = "is_best_match"  # a further column on spot; always true since 2017
_SIDES: dict[str, str | bool] = {"true": "sell", "false": "buy", "True": "sell", "False": "buy"}


def channels(
    sources: Sequence[Path], exchange: str | None, symbol: str | None
) -> tuple[str, list[Channel], list[Blocks]]:
    """Return exchange and channels of some files, and the files as they are read.

    UsageError: the exchange is not said, or a file's name does not say what it holds.
    """
    if exchange not in EXCHANGES:
        raise UsageError(
            f"exchange {exchange!r}: the files do not say which it is; format binance-public is read for "
            f"{' and '.join(EXCHANGES)}"
        )
    opened = [Blocks(path) for path in sources]
    names = [_parsed(path) for path in sources]
    made = []
    for kind in dict.fromkeys(kind for _, kind in names):
        files = [(blocks, own) for blocks, (own, of) in zip(opened, names, strict=True) if of == kind]
        made.append(Channel("trades", _batches(files, exchange, kind), every_row, chained="trade_id"))
    return exchange, made, opened


def _parsed(path: Path) -> tuple[str, str]:
    found = _NAME.fullmatch(path.name)
    if found is None:
        raise UsageError(
            f"{path}: the name does not say which symbol it holds; expected one such as "
            f"BTCUSDT-trades-2024-08-08.zip or BTCUSDT-aggTrades-2024-08.zip; nothing was imported"
        )
    return found["symbol"], found["kind"]


def _batches(files: Sequence[tuple[Blocks, str]], exchange: str, kind: str) -> Iterator[Batch]:
    columns = _TRADES if kind == "trades" else _AGGREGATES
    names = (*columns, _BEST_MATCH) if exchange == "binance" else columns
    for file, symbol in files:
        is_first = True
        for _, whole in file:
            block = whole
            if is_first and not whole[:1].isdigit():
                _, _, block = whole.partition(b"\n")  # a header
            is_first = False
            if block.strip():
                yield _trades(Cells(block, names, columns), symbol, kind)


def _trades(cells: Cells, symbol: str, kind: str) -> Batch:
    number = cells.ids("id")
    is_single = kind == "trades"
    time = pa.array(cells.times("time")).cast(TIME)
    return cells.batch(
        {
            "symbol": pa.repeat(symbol, len(cells)),
            "ts_recv": time,
            "ts_event": time,
            "kind": pa.repeat("trade" if is_single else "agg", len(cells)),
            "origin": pa.repeat("stream", len(cells)),
            "trade_id": number,
            "first_trade_id": number if is_single else cells.ids("first"),
            "last_trade_id": number if is_single else cells.ids("last"),
            "side": cells.words("is_buyer_maker", _SIDES),
            "price": cells.numbers("price"),
            "size": cells.numbers("size"),
        }
    )
