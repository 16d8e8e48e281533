"""Defects of the book, seen where it meets itself, trades, quotes, checksums or audits."""

from __future__ import annotations

from decimal import Decimal

import numpy as np

from mmdata.datasets.chain import NO_ID
from mmdata.sandbox.defects.ground import NoPlaceError, Sheet, Site
from mmdata.sandbox.defects.kinds import BOOK, OKX, TRADES, Where, at_row, kind
from mmdata.sandbox.defects.values import grid
from mmdata.sandbox.defects.walk import Walk


def _at(sheet: Sheet, row: int, *, row_meant: bool = True) -> Where:
    where = at_row(sheet.at(row), sheet.row(row), table=sheet.table)
    if not row_meant:
        del where["row"]
    return where


def _has_checksums(site: Site) -> bool:
    return bool(site.depth.rows["checksum"].null_count < len(site.depth))


def _told(site: Site) -> set[int]:
    """Return the messages whose id a row of `bbo` has; heartbeats have that of the message before them."""
    told = np.isin(site.messages.last_id, site.sheet("bbo").ints("last_id"))
    return {*np.flatnonzero(told & (site.messages.last_id != NO_ID)).tolist()}


def _equal_ids(site: Site) -> dict[int, list[int]]:
    """Return the rows of `bbo` whose id is a message's, by message; only ids that come once."""
    ids = site.messages.last_id
    unique, first, counts = np.unique(ids, return_index=True, return_counts=True)
    once = {int(value): int(at) for value, at, n in zip(unique, first, counts, strict=True) if n == 1}
    found: dict[int, list[int]] = {}
    for row, value in enumerate(site.sheet("bbo").ints("last_id").tolist()):
        if value != NO_ID and value in once:
            found.setdefault(once[value], []).append(row)
    return found


def _cross(site: Site, ticks: int) -> Where:
    """Put a bid at the best ask (or beyond) for some messages, then take it away again."""
    if _has_checksums(site):
        raise NoPlaceError
    sheet, messages, walk = site.depth, site.messages, Walk(site)
    tick = _tick(site, sheet)
    told = _told(site)
    asks = {at: (book.sides["ask"].best(), book.sides["bid"].best()) for at, book in walk.books()}
    for begin in site.shuffled(range(walk.first + 1, len(messages) - 8)):
        end = begin + site.rng.randrange(1, 6)
        ask = asks[begin][0]
        if ask is None or messages.is_snapshot[begin : end + 1].any() or walk.audited(begin, end):
            continue
        price = ask + ticks * tick
        # The same ask has to last, no quote may compare itself, and nobody else may bid there.
        if any(asks[at][0] != ask or at in told for at in range(begin, end)):
            continue
        if walk.until(begin - 1, "bid", price) <= end or (asks[end][1] or 0) >= price:
            continue
        rows = [[row for row in messages.rows(at) if walk.side[row] == "bid"] for at in (begin, end)]
        if not all(rows):
            continue
        for own, size in ((rows[1][-1], Decimal(0)), (rows[0][-1], sheet.value("size", rows[0][-1]))):
            if size == 0 and own == rows[0][-1]:
                size = grid(site)[1] * 3
            fresh = sheet.row(own) | {"price": _decimal(sheet, price), "size": size}
            sheet.set("is_last", {own: False})
            sheet.insert(own + 1, [fresh], part=int(sheet.part[own]))
        where = _at(sheet, rows[0][-1] + 1, row_meant=False) | {"count": end - begin}
        sheet.save()
        return where
    raise NoPlaceError


def _tick(site: Site, sheet: Sheet) -> int:
    return int(grid(site)[0].scaleb(sheet.rows.schema.field("price").type.scale))


def _decimal(sheet: Sheet, units: int) -> Decimal:
    return Decimal(units).scaleb(-sheet.rows.schema.field("price").type.scale)


@kind("crossed")
def book_crossed(site: Site) -> Where:
    """A bid stands above the best ask for some messages."""
    return _cross(site, site.rng.randrange(1, 20))


@kind("locked", severity="warning")
def book_locked(site: Site) -> Where:
    """A bid stands at the best ask for some messages."""
    return _cross(site, 0)


@kind("trade_price", touches=BOOK | TRADES, severity="warning")
def trade_outside_book(site: Site) -> Where:
    """A trade's price is far from anything that was in the book."""
    walk, sheet = Walk(site), site.filled("trades")
    inside = np.flatnonzero(
        (sheet.ints("frame") > walk.frame(walk.first + 50)) & (sheet.words("origin") == "stream")
    )
    row = int(site.pick(inside[:-1]))
    tick = grid(site)[0]
    by = site.rng.choice([-1, 1]) * site.rng.uniform(0.01, 0.05)
    price = sheet.value("price", row)
    moved = (price * (1 + Decimal(by))) // tick * tick
    where = _at(sheet, row)
    sheet.set("price", {row: moved})
    sheet.save()
    return where


# --- the venue's own best bid and ask


def _compared(site: Site) -> list[int]:
    """Return the rows of `bbo` that have a message's id while the book is valid."""
    first = Walk(site).first
    return [row for message, rows in _equal_ids(site).items() if message > first for row in rows]


@kind("bbo")
def bbo_size_wrong(site: Site) -> Where:
    """A best bid or ask has another size than the book at the same id."""
    sheet = site.filled("bbo")
    row = int(site.pick(_compared(site)))
    column = site.pick(["bid_size", "ask_size"])
    where = _at(sheet, row)
    sheet.set(column, {row: sheet.value(column, row) + grid(site)[1]})
    sheet.save()
    return where


@kind("bbo")
def bbo_price_wrong(site: Site) -> Where:
    """A best bid or ask has another price than the book at the same id."""
    sheet = site.filled("bbo")
    row = int(site.pick(_compared(site)))
    column, way = site.pick([("bid_price", -1), ("ask_price", 1)])
    where = _at(sheet, row)
    sheet.set(column, {row: sheet.value(column, row) + way * grid(site)[0]})
    sheet.save()
    return where


@kind("bbo")
def bbo_crossed(site: Site) -> Where:
    """A best bid is above the best ask of the same row."""
    sheet = site.filled("bbo")
    known = set(site.messages.last_id.tolist())
    ids = sheet.ints("last_id").tolist()
    row = int(site.pick([at for at, value in enumerate(ids) if value not in known]))
    where = _at(sheet, row)
    ask = sheet.value("ask_price", row)
    if ask is None:
        raise NoPlaceError
    sheet.set("bid_price", {row: ask + grid(site)[0] * site.rng.randrange(1, 5)})
    sheet.save()
    return where


@kind("bbo")
def touch_size_wrong(site: Site) -> Where:
    """A size at the top of the book is not what the venue's own best bid or ask says."""
    if _has_checksums(site):
        raise NoPlaceError
    sheet, messages, walk = site.depth, site.messages, Walk(site)
    quoted, told = _equal_ids(site), _told(site)
    tops = {
        at: {side: own.best() for side, own in book.sides.items()} for at, book in walk.books() if at in told
    }
    for message in site.shuffled(sorted(quoted.keys() & tops.keys())):
        if len(quoted[message]) > 1 or messages.is_snapshot[message]:
            continue
        for row in messages.rows(message):
            side, price = walk.side[row], walk.price[row]
            if not side or price != tops[message][side] or not walk.size[row]:
                continue
            end = walk.until(message, side, price)
            later = [at for at in range(message + 1, end) if at in tops and tops[at][side] == price]
            if later or walk.audited(message, end) or _twice(walk, message, side, price):
                continue
            bbo = site.sheet("bbo")
            where = _at(bbo, quoted[message][0])
            sheet.set("size", {row: sheet.value("size", row) + grid(site)[1]})
            sheet.save()
            return where
    raise NoPlaceError


def _twice(walk: Walk, message: int, side: str, price: int) -> bool:
    return sum(level[:2] == (side, price) for level in walk.levels(message)) > 1


# --- checksums


@kind("checksum", exchanges=(OKX,))
def checksum_wrong(site: Site) -> Where:
    """A checksum is not the one of the book."""
    sheet, messages = site.depth, site.messages
    sums = sheet.rows["checksum"].to_pylist()
    message = int(site.pick([at for at in range(2, len(messages)) if sums[messages.start[at]] is not None]))
    where = _at(sheet, int(messages.start[message]), row_meant=False)
    value = sums[messages.start[message]] ^ (1 << site.rng.randrange(31)) or 1
    sheet.set("checksum", dict.fromkeys(messages.rows(message), value))
    sheet.save()
    return where


@kind("checksum", exchanges=(OKX,))
def level_lost(site: Site) -> Where:
    """A level of a message is gone, which the checksums tell.

    Only levels behind the best and among the first 25 until they are told again, and no audit between.
    """
    sheet, messages = site.depth, site.messages
    if sheet.rows["checksum"].null_count:
        raise NoPlaceError
    walk = Walk(site)
    candidates: dict[int, tuple[int, int]] = {}
    for message in site.shuffled(range(walk.first + 1, len(messages) - 1))[:150]:
        rows = messages.rows(message)
        for row in rows if len(rows) > 1 and not messages.is_snapshot[message] else ():
            side, price = walk.side[row], walk.price[row]
            end = walk.until(message, side, price)
            if not _twice(walk, message, side, price) and not walk.audited(message, end):
                candidates[row] = (message, end)
    ranks: dict[int, list[int]] = {row: [] for row in candidates}
    before: dict[int, int] = {}
    for message, book in walk.books():
        for row, (begin, end) in candidates.items():
            own = book.sides[walk.side[row]]
            if message == begin - 1:
                before[row] = own.sizes.get(walk.price[row], 0)
            if begin <= message < end:
                ranks[row].append(own.rank(walk.price[row]))
    for row in site.shuffled(candidates):
        begin, end = candidates[row]
        if before.get(row) == walk.size[row] or not ranks[row]:
            continue  # it told nothing new
        if min(ranks[row]) < 2 or max(ranks[row]) > 22:
            continue
        rows = messages.rows(begin)
        where = _at(sheet, row, row_meant=False) | {"count": end - begin}
        if row == rows[-1]:
            sheet.set("is_last", {row - 1: True})
        sheet.drop([row])
        sheet.save()
        return where
    raise NoPlaceError


# --- audits


def _audit_row(site: Site) -> tuple[Sheet, int]:
    """Return a row of an audit behind the best, of a level that nothing changed for a while around it."""
    walk, sheet = Walk(site), site.filled("snapshots")
    side, price, _ = walk.rest()
    frames, levels = sheet.ints("frame"), sheet.ints("level")
    inside = walk.audits[walk.audits > walk.frame(walk.first + 20)]
    for frame in site.shuffled(inside.tolist()):
        message = int(np.searchsorted(walk.messages.frame, frame)) - 1
        near = {
            (own, value)
            for at in range(message - 8, min(message + 12, len(walk.messages)))
            for own, value, _ in walk.levels(at)
        }
        rows = np.flatnonzero((frames == frame) & (levels >= 2) & (levels < 9)).tolist()
        quiet = [row for row in rows if (side[row], price[row]) not in near and side[row] == side[row + 1]]
        if quiet:
            return sheet, int(site.pick(quiet))
    raise NoPlaceError


def _at_audit(sheet: Sheet, row: int) -> Where:
    return _at(sheet, row, row_meant=False)


@kind("ghost", severity="warning")
def audit_size_differs(site: Site) -> Where:
    """A level of an audit has another size than the book."""
    sheet, row = _audit_row(site)
    where = _at_audit(sheet, row)
    sheet.set("size", {row: sheet.value("size", row) + grid(site)[1]})
    sheet.save()
    return where


@kind("ghost", severity="warning")
def audit_level_missing(site: Site) -> Where:
    """The book has a level that an audit does not."""
    sheet, row = _audit_row(site)
    where = _at_audit(sheet, row)
    side, frame = sheet.value("side", row), sheet.value("frame", row)
    behind = [
        at
        for at in range(row + 1, len(sheet))
        if sheet.value("frame", at) == frame and sheet.value("side", at) == side
    ]
    sheet.set("level", {at: sheet.value("level", at) - 1 for at in behind})
    sheet.drop([row])
    sheet.save()
    return where


@kind("ghost", severity="warning")
def ghost_level(site: Site) -> Where:
    """A level was not removed from the book, and an audit does not have it."""
    if _has_checksums(site):
        raise NoPlaceError
    sheet, messages, walk = site.depth, site.messages, Walk(site)
    candidates: dict[int, tuple[int, int, int]] = {}
    audits = walk.audits[walk.audits > walk.frame(walk.first + 50)]
    for message in range(walk.first + 20, len(messages)):
        for row in messages.rows(message):
            if not walk.side[row] or walk.size[row]:
                continue
            end = walk.until(message, walk.side[row], walk.price[row])
            low, high = walk.frame(message + 12), walk.frame(end - 12) if end < len(messages) else 10**18
            between = audits[(audits > low) & (audits < high)]
            if len(between) and len(messages.rows(message)) > 1 and end - message > 30:
                candidates[row] = (message, end, int(between[0]))
    least: dict[int, int] = dict.fromkeys(candidates, 99)
    present: dict[int, int] = {}
    shown: dict[int, int] = {}
    """Rank when the audit comes: one level too many among the best ten is no error yet."""
    for message, book in walk.books():
        for row, (begin, end, audit) in candidates.items():
            own = book.sides[walk.side[row]]
            if message == begin - 1:
                present[row] = own.sizes.get(walk.price[row], 0)
            if begin <= message < end:
                least[row] = min(least[row], own.rank(walk.price[row]))
                if walk.frame(message) < audit:
                    shown[row] = own.rank(walk.price[row])
    chosen = [row for row in candidates if present.get(row) and least[row] >= 1 and shown[row] < 9]
    row = int(site.pick(chosen))
    snapshots = site.filled("snapshots")
    first = int(np.flatnonzero(snapshots.ints("frame") == candidates[row][2])[0])
    where = _at_audit(snapshots, first)
    if row == messages.rows(candidates[row][0])[-1]:
        sheet.set("is_last", {row - 1: True})
    sheet.drop([row])
    sheet.save()
    return where
