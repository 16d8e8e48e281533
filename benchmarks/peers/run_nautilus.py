"""Read an exported catalog by NautilusTrader as released, rebuild the book, and note its best bid and ask.

    python run_nautilus.py CATALOG INSTRUMENT TICK LOT OUT.npy

A row of OUT is (time of arrival in ns, bid tick, ask tick, bid lots, ask lots) after each message; -1 and 0
for an empty side. The number of trades is printed.
"""

from __future__ import annotations

import sys
from decimal import Decimal

import numpy as np
from nautilus_trader.model.book import OrderBook
from nautilus_trader.model.enums import BookType
from nautilus_trader.model.identifiers import InstrumentId
from nautilus_trader.persistence.catalog import ParquetDataCatalog

F_LAST = 128


def main() -> None:
    """Load, rebuild, save."""
    folder, name, tick, lot, out = sys.argv[1:]
    catalog = ParquetDataCatalog(folder)
    book = OrderBook(InstrumentId.from_str(name), BookType.L2_MBP)
    rows = []
    for delta in catalog.order_book_deltas([name]):
        book.apply_delta(delta)
        if delta.flags & F_LAST:
            prices = (book.best_bid_price(), book.best_ask_price())
            sizes = (book.best_bid_size(), book.best_ask_size())
            units = [int(p.as_decimal() / Decimal(tick)) if p is not None else -1 for p in prices]
            units += [int(s.as_decimal() / Decimal(lot)) if s is not None else 0 for s in sizes]
            rows.append((delta.ts_init, *units))
    np.save(out, np.array(rows, np.int64))
    print(len(catalog.trade_ticks([name])))


if __name__ == "__main__":
    main()
