"""Defects of single prices and sizes: impossible ones, and ones off the grid."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from mmdata.datasets.grid import DERIVED, USER
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from mmdata.sandbox.defects.ground import NoPlaceError, Sheet, Site
from mmdata.sandbox.defects.kinds import BOOK, TRADES, Where, at_row, kind
from mmdata.sandbox.defects.walk import Walk


def grid(site: Site) -> tuple[Decimal, Decimal]:
    """Return tick and lot as user or venue told them. NoPlaceError: they did not."""
    parts = list_parts(site.root, "instruments", exchange=site.exchange, symbol=site.symbol)
    rows = [row for part in parts for row in read_part(part, ("source", "tick_size", "lot_size")).to_pylist()]
    rows = [row for row in rows if row["source"] != DERIVED]
    told = [row for row in rows if row["source"] == USER] or rows
    if not told:
        raise NoPlaceError
    return told[-1]["tick_size"], told[-1]["lot_size"]


def _finer(step: Decimal) -> Decimal:
    """Return half a step. NoPlaceError: no narrow decimal holds it."""
    half = step / 2
    if half < Decimal("1e-8"):
        raise NoPlaceError
    return half


def _at(sheet: Sheet, row: int) -> Where:
    return at_row(sheet.at(row), sheet.row(row), table=sheet.table)


def _alter(site: Site, column: str, change: Callable[[Decimal], Decimal]) -> Where:
    """Alter a trade's value, or a level's where nobody could see it anywhere else."""
    if site.rng.random() < 0.5:
        sheet, row = site.filled("trades"), -1
        row = site.rng.randrange(1, len(sheet))
    elif column == "size":
        sheet, row = site.depth, quiet_row(site)
    else:
        sheet, row = site.depth, _put_removal(site)
    where = _at(sheet, row)
    value = sheet.value(column, row)
    fresh = change(value)
    if fresh == value:
        raise NoPlaceError
    sheet.set(column, {row: fresh})
    sheet.save()
    return where


def quiet_row(site: Site) -> int:
    """Return a row of `depth` that sets a level which is never near the top until it is set again.

    No checksum and no audit speaks of it meanwhile.
    """
    sheet, messages = site.depth, site.messages
    _require_no_checksums(site)
    walk = Walk(site)
    if site.rng.random() < 0.5:
        wanted = site.shuffled(range(messages.start[walk.first + 1], len(sheet)))
    else:
        wanted = site.shuffled(
            range(messages.start[max(walk.first + 1, len(messages) * 9 // 10)], len(sheet))
        )
    candidates: dict[int, tuple[int, int]] = {}
    for row in wanted[:300]:
        begin = int(np.searchsorted(messages.stop, row, side="right"))
        if walk.size[row] and not messages.is_snapshot[begin]:
            end = walk.until(begin, walk.side[row], walk.price[row])
            if not walk.audited(begin, end):
                candidates[row] = (begin, end)
    least = dict.fromkeys(candidates, 99)
    for message, book in walk.books():
        for row, (begin, end) in candidates.items():
            if begin <= message < end:
                least[row] = min(least[row], book.sides[walk.side[row]].rank(walk.price[row]))
    return int(site.pick([row for row in candidates if least[row] >= 3]))


def _require_no_checksums(site: Site) -> None:
    """Raise NoPlaceError where checksums would tell of every level that is altered."""
    if site.depth.rows["checksum"].null_count < len(site.depth):
        raise NoPlaceError


def _put_removal(site: Site) -> int:
    """Let a diff remove a level that is not there, as venues do; return the new row.

    Its price can be altered without any trace in the book.
    """
    sheet, messages, walk = site.depth, site.messages, Walk(site)
    last, book = deque(walk.books(), maxlen=1)[0]
    side = site.pick(["bid", "ask"])
    own = book.sides[side]
    far = own.best(len(own.keys) - 1)
    message = int(site.pick(range(walk.first + 1, last)))
    rows = [row for row in messages.rows(message) if walk.side[row] == side]
    if not rows or far is None or messages.is_snapshot[message]:
        raise NoPlaceError
    row = rows[-1] + 1
    scale = sheet.rows.schema.field("price").type.scale
    tick, _ = grid(site)
    price = Decimal(far).scaleb(-scale) + (-1 if side == "bid" else 1) * 1000 * tick
    marks = sheet.value("is_last", rows[-1])
    fresh = sheet.row(rows[-1]) | {"price": price, "size": Decimal(0), "is_last": marks}
    if fresh["orders"] is not None:
        fresh["orders"] = 0
    sheet.insert(row, [fresh], part=int(sheet.part[rows[-1]]))
    sheet.set("is_last", {rows[-1]: False})
    return row


@kind("size", touches=BOOK | TRADES)
def size_negative(site: Site) -> Where:
    """A size is below zero."""
    return _alter(site, "size", lambda size: -size)


@kind("price", touches=BOOK | TRADES)
def price_zero(site: Site) -> Where:
    """A price is zero."""
    return _alter(site, "price", lambda price: Decimal(0))


@kind("price", touches=BOOK | TRADES)
def price_negative(site: Site) -> Where:
    """A price is below zero."""
    return _alter(site, "price", lambda price: -price)


@kind("tick", touches=BOOK | TRADES)
def price_off_tick(site: Site) -> Where:
    """A price lies between two ticks."""
    half = _finer(grid(site)[0])
    return _alter(site, "price", lambda price: price + half)


@kind("lot", touches=BOOK | TRADES, severity="warning")
def size_off_lot(site: Site) -> Where:
    """A size is no whole number of lots."""
    half = _finer(grid(site)[1])
    return _alter(site, "size", lambda size: size + half)
