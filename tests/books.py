"""The book that a recording yields, beside the matching engine's own."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from mmdata.datasets.book import Book
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import Market
from mmdata.sandbox.truth import BookTruth


def compare_books(root: Path, exchange: str, symbol: str, truth: Callable[[int], BookTruth]) -> int:
    """Compare the rebuilt book with the engine's at each message where it is valid; return at how many.

    ``truth`` returns the engine's book by the id of its last change. AssertionError: a level differs.
    """
    compared = 0
    market = load_market(root, exchange, symbol)
    book = Book(market.columns, market.chain)
    for message in range(len(market.columns.kind)):
        book.step(message)
        if not book.valid or market.columns.kind[message] > 1 or market.columns.last_id[message] != book.id:
            continue
        told = truth(book.id)
        for ours, theirs in ((book.bids(), told.bids), (book.asks(), told.asks)):
            expected = [(Decimal(price), Decimal(size)) for price, size, _ in theirs]
            assert _exact(market, ours) == expected, f"{symbol} on {exchange}: the book differs at {book.id}"
        compared += 1
    return compared


def _exact(market: Market, levels: list[tuple[int, int]]) -> list[tuple[Decimal, Decimal]]:
    return [(price * market.tick_size, size * market.lot_size) for price, size in levels]
