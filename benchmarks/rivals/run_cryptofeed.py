"""Run cryptofeed as released against another address; until SIGTERM, then say what it delivered.

    python run_cryptofeed.py HOST:PORT

Its own L2 book and trades of Binance, its own event loop (uvloop), callbacks that only count. Nothing is
changed but addresses; it refuses any that is not ``wss://``, so the scheme is changed as it connects.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import cryptofeed.connection
from cryptofeed import FeedHandler
from cryptofeed.defines import L2_BOOK, TRADES
from cryptofeed.exchanges import Binance

HOST = sys.argv[1]
_connect = cryptofeed.connection.connect
cryptofeed.connection.connect = lambda url, **options: _connect(url.replace("wss://", "ws://"), **options)
Binance.websocket_endpoints[0].address = f"wss://{HOST}"
Binance.rest_endpoints[0].address = f"http://{HOST}"

books: list[int] = []
trades: list[int] = []
latest: dict[str, Any] = {}


async def on_book(book: Any, _receipt: float) -> None:
    """Count a book; the object is the live one."""
    books.append(book.sequence_number)
    latest["book"] = book


async def on_trade(trade: Any, _receipt: float) -> None:
    """Count a trade."""
    trades.append(int(trade.id))


def best() -> dict[str, list[str]]:
    """Return the best bid and ask of the book that it keeps."""
    if "book" not in latest:
        return {}
    book = latest["book"].book
    return {"bid": [*map(str, book.bids.index(0))], "ask": [*map(str, book.asks.index(0))]}


handler = FeedHandler()
handler.add_feed(
    Binance(
        symbols=["BTC-USDT"],
        channels=[L2_BOOK, TRADES],
        callbacks={L2_BOOK: on_book, TRADES: on_trade},
    )
)
handler.run()
print(json.dumps({"books": books, "trades": trades, **best()}))
