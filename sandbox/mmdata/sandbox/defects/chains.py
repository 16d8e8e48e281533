"""Defects of the chain of book messages, of the gaps on record, and of the books that are to start it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np

from mmdata.sandbox.defects.ground import NoPlaceError, Sheet, Site
from mmdata.sandbox.defects.kinds import OKX, SPLICED, SPOT, Where, at_row, kind
from mmdata.sandbox.defects.values import grid
from mmdata.sandbox.defects.walk import Level, Walk

_IDS = ("first_id", "last_id", "prev_id")

_DEEP_ENOUGH = 50
"""Levels a side of a snapshot that heals a gap."""


def _linked(site: Site, *, margin: int = 6) -> list[int]:
    """Return the messages that change something and have others, with ids, before and after them."""
    messages = site.messages
    first = Walk(site).first
    if (messages.last_id < 0).any():
        raise NoPlaceError  # a recording without ids has no chain
    return [
        message
        for message in range(first + margin, len(messages) - margin)
        if _is_plain(site, message - 1) and _is_plain(site, message) and _is_plain(site, message + 1)
    ]


def _is_plain(site: Site, message: int) -> bool:
    """Tell whether a message is neither a heartbeat, nor a reset, nor a snapshot."""
    messages = site.messages
    return bool(messages.last_id[message] > messages.prev_id[message] and not messages.is_snapshot[message])


def _at(site: Site, message: int, **more: Any) -> Where:
    sheet, messages = site.depth, site.messages
    row = int(messages.start[message])
    where = at_row(sheet.at(row), sheet.row(row), table="depth", id=int(messages.last_id[message])) | more
    # Rows before it may go: where it stands in its file is left open.
    del where["row"]
    return where


def _set_ids(site: Site, message: int, **ids: int) -> None:
    rows = site.messages.rows(message)
    for name, value in ids.items():
        site.depth.set(name, dict.fromkeys(rows, value))


@kind("chain")
def diff_lost(site: Site) -> Where:
    """Book messages in a row are gone, and no gap is on record."""
    message = int(site.pick(_linked(site)))
    lost = range(message, message + site.rng.randrange(1, 5))
    if any(not _is_plain(site, at) for at in (*lost, lost.stop)):
        lost = range(message, message + 1)
    where = _at(site, lost.stop)
    site.depth.drop(row for at in lost for row in site.messages.rows(at))
    site.depth.save()
    return where


@kind("chain")
def ids_altered(site: Site) -> Where:
    """The last id of a message was altered, so that the next does not continue it."""
    messages = site.messages
    quotes = set(site.sheet("bbo").ints("last_id").tolist())
    for message in site.shuffled(_linked(site)):
        last = int(messages.last_id[message])
        # On spot a higher one would do no harm: what overlaps is legal.
        altered = last - 1 if site.exchange == SPOT else last + 1
        told = altered in quotes or last in quotes
        # On OKX one that ends where the book is says nothing new, and is passed by.
        if not told and messages.prev_id[message] < altered < messages.last_id[message + 1]:
            where = _at(site, message + 1)
            _set_ids(site, message, last_id=altered)
            site.depth.save()
            return where
    raise NoPlaceError


@kind("chain")
def link_altered(site: Site) -> Where:
    """A message names another message before it than there was."""
    messages = site.messages
    by = site.rng.randrange(1, 4)
    for message in site.shuffled(_linked(site)):
        prev = int(messages.prev_id[message]) + by
        if prev < messages.last_id[message]:
            where = _at(site, message)
            ids = {"prev_id": prev}
            if site.exchange == SPOT:
                ids["first_id"] = prev + 1
            _set_ids(site, message, **ids)
            site.depth.save()
            return where
    raise NoPlaceError


@kind("chain")
def diff_out_of_place(site: Site) -> Where:
    """Two neighbouring messages arrived in the wrong order."""
    sheet, messages = site.depth, site.messages
    for one in site.shuffled(_linked(site)):
        two = one + 1
        rows = [*messages.rows(one), *messages.rows(two)]
        if len({int(sheet.part[row]) for row in rows}) > 1:
            continue
        where = _at(site, one, id=int(messages.last_id[two]))
        # What arrived when stays: times that go with the messages would be a defect of the clocks, too.
        stays = ("frame", "ts_recv", "ts_event", "ts_sent")
        lines = [[sheet.value(name, messages.rows(at)[0]) for name in stays] for at in (one, two)]
        order = np.arange(len(sheet))
        order[rows[0] : rows[-1] + 1] = [*messages.rows(two), *messages.rows(one)]
        sheet.take(order)
        split = rows[0] + len(messages.rows(two))
        for line, own in zip(lines, (range(rows[0], split), range(split, rows[-1] + 1)), strict=True):
            for name, value in zip(stays, line, strict=True):
                sheet.set(name, dict.fromkeys(own, value))
        sheet.save()
        return where
    raise NoPlaceError


@kind("chain", exchanges=(OKX,))
def okx_reset_without_rule(site: Site) -> Where:
    """Ids go down, and the message does not name the one before it, as a reset would."""
    sheet, messages = site.depth, site.messages
    message = int(site.pick(_linked(site)))
    by = site.rng.randrange(1_000_000, 2_000_000)
    where = _at(site, message, id=int(messages.last_id[message]) - by)
    for name in _IDS:
        values = sheet.ints(name)
        sheet.set(name, {row: int(values[row]) - by for row in range(messages.start[message], len(sheet))})
    sheet.save()
    return where


# --- gaps on record


def _gap(site: Site, message: int, last_id: int, next_id: int) -> dict[str, Any]:
    """Return the event of a hole before a message, as it is noted at that message."""
    first = site.depth.row(int(site.messages.start[message]))
    return {
        **{name: first[name] for name in ("session", "frame", "ts_recv", "conn")},
        "kind": "gap",
        "channel": "depth",
        "last_id": last_id,
        "next_id": next_id,
        "detail": '{"cause":"missing"}',
    }


def _next_id(site: Site, message: int) -> int:
    messages = site.messages
    return int((messages.prev_id if site.exchange == OKX else messages.first_id)[message])


def _lose_and_heal(site: Site, alter: int = 0) -> Where:
    """Take a message out, note the gap (with ids ``alter`` beside the right ones), and give a fresh book."""
    messages = site.messages
    message = int(site.pick([at for at in _linked(site) if at + 12 < len(messages)]))
    later = message + 4
    book = next(book for at, book in Walk(site).books() if at == later)
    frame, ts_recv = site.free_line(int(messages.frame[later]), int(messages.frame[later + 1]))
    base = {"session": site.depth.value("session", 0), "frame": frame, "ts_recv": ts_recv}
    book_id = int(messages.last_id[later])
    gap = _gap(
        site, message + 1, int(messages.last_id[message - 1]) + alter, _next_id(site, message + 1) + alter
    )
    synced = {**base, "kind": "synced", "channel": "depth", "last_id": book_id}
    events, snapshots = site.filled("events", 1), site.sheet("snapshots")
    for event in (gap, synced):
        events.put(event)
    _put_book(site, snapshots, later, base, book_id, book.levels())
    site.depth.drop(messages.rows(message))
    for sheet in (events, snapshots, site.depth):
        sheet.save()
    return {"table": "events", "session": gap["session"], "frame": gap["frame"]}


def _put_book(
    site: Site, snapshots: Sheet, message: int, base: dict[str, Any], book_id: int, levels: list[Level]
) -> None:
    """Put a whole book behind a message: an answer of REST, or where the stream has them, its own."""
    depth = site.depth
    if site.exchange == OKX:
        rows = [
            base
            | {"conn": 1, "first_id": book_id, "last_id": book_id, "prev_id": -1, "is_snapshot": True}
            | {"ts_event": depth.value("ts_event", int(site.messages.start[message]))}
            | {"side": side, "price": _decimal(site, price), "size": _decimal(site, size), "is_last": False}
            for side, price, size in levels
        ]
        rows[-1]["is_last"] = True
        depth.insert(
            int(site.messages.stop[message]), rows, part=int(depth.part[site.messages.start[message]])
        )
        return
    numbers = {"bid": 0, "ask": 0}
    rows = []
    for side, price, size in _in_lots(site, levels):
        level = {
            "side": side,
            "level": numbers[side],
            "price": _decimal(site, price),
            "size": _decimal(site, size),
        }
        rows.append(base | level | {"last_id": book_id, "reason": "gap"})
        numbers[side] += 1
    snapshots.insert(int(np.searchsorted(snapshots.ints("frame"), base["frame"])), rows)


def _in_lots(site: Site, levels: list[Level]) -> list[Level]:
    """Return the levels of each side above its first whose size is no whole number of lots.

    Real books hold such sizes, and a snapshot with one would be a finding of its own; that an answer of REST
    is cut at a depth is none. NoPlaceError: hardly a level is left.
    """
    try:
        lot = int(grid(site)[1].scaleb(site.depth.rows.schema.field("size").type.scale))
    except NoPlaceError:
        return levels  # of derived lots: nothing is off them
    left: list[Level] = []
    for side in ("bid", "ask"):
        own = [level for level in levels if level[0] == side]
        deep = next((at for at, (_, _, size) in enumerate(own) if size % lot), len(own))
        if deep < _DEEP_ENOUGH:
            raise NoPlaceError
        left += own[:deep]
    return left


def _decimal(site: Site, units: int) -> Decimal:
    return Decimal(units).scaleb(-site.depth.rows.schema.field("price").type.scale)


@kind("chain", severity="warning")
def gap_recorded(site: Site) -> Where:
    """A book message was lost; the gap is on record, and healed by a fresh book."""
    return _lose_and_heal(site)


@kind("gap")
def gap_ids_wrong(site: Site) -> Where:
    """A book message was lost; the gap is on record with ids that are not those of the hole."""
    return _lose_and_heal(site, alter=7)


@kind("gap")
def gap_event_invented(site: Site) -> Where:
    """A gap is on record where the chain is unbroken."""
    messages = site.messages
    message = int(site.pick(_linked(site)))
    gap = _gap(site, message, int(messages.last_id[message - 1]), _next_id(site, message))
    site.add_rows("events", site.symbol, [gap])
    return {"table": "events", "session": gap["session"], "frame": gap["frame"]}


# --- the books that start it


@kind("bridge", exchanges=SPLICED)
def snapshot_not_bridged(site: Site) -> Where:
    """The first book is older than what the first message builds on."""
    sheet = site.filled("snapshots")
    Walk(site)  # there is one that does start the book
    rows = np.flatnonzero(sheet.words("reason") == "start").tolist()
    older = int(site.messages.prev_id[0]) - site.rng.randrange(10, 1000)
    where = at_row(sheet.at(rows[0]), sheet.row(rows[0]), table="snapshots")
    sheet.set("last_id", dict.fromkeys(rows, older))
    sheet.save()
    del where["row"]
    return where


@kind("book")
def snapshot_lost(site: Site) -> Where:
    """The book that everything builds on is gone."""
    Walk(site)
    if site.exchange == OKX:
        found = np.flatnonzero(site.messages.is_snapshot).tolist()
        if len(found) > 1:
            raise NoPlaceError
        site.depth.drop(site.messages.rows(found[0]))
        site.depth.save()
        return {}
    sheet = site.filled("snapshots")
    sheet.drop(np.flatnonzero(sheet.words("reason") != "audit").tolist())
    sheet.save()
    return {}


def _start_rows(site: Site) -> list[int]:
    """Return the rows of the start's book, of `snapshots`."""
    sheet = site.filled("snapshots")
    return list(map(int, np.flatnonzero(sheet.words("reason") == "start")))


def _quiet_level(site: Site, walk: Walk, rows: list[int]) -> int:
    """Return a row of the start's book that, if wrong, nobody could see anywhere else.

    It and the one behind it are told again by the stream before the first audit, or never and there is none,
    and until then there are always better ones.
    """
    side, price, _ = walk.rest()
    inner = [row for row in rows[1:-2] if side[row - 1] == side[row] == side[row + 1] == side[row + 2]]
    wanted = site.shuffled(inner)[:60]
    begin = walk.first
    ends: dict[int, int] = {}
    for row in wanted:
        end = max(walk.until(begin - 1, side[at], price[at]) for at in (row, row + 1))
        if not walk.audited(begin, end):
            ends[row] = end
    worst = dict.fromkeys(ends, 99)
    for message, book in walk.books():
        for row, end in ends.items():
            if message < end:
                rank = book.sides[side[row]].rank(price[row])
                worst[row] = min(worst[row], rank)
        if all(message >= end for end in ends.values()):
            break
    return int(site.pick([row for row, rank in worst.items() if rank >= 2]))


def _at_snapshot(site: Site, row: int) -> Where:
    sheet = site.filled("snapshots")
    where = at_row(sheet.at(row), sheet.row(row), table="snapshots", count=None)
    del where["row"]
    return where


@kind("snapshot", exchanges=SPLICED)
def snapshot_unsorted(site: Site) -> Where:
    """Two levels of the start's book have changed places."""
    sheet, side = site.filled("snapshots"), site.sheet("snapshots").words("side")
    rows = _start_rows(site)
    row = int(site.pick([row for row in rows[:-1] if side[row] == side[row + 1]]))
    where = _at_snapshot(site, row)
    for name in ("price", "size"):
        one, two = sheet.value(name, row), sheet.value(name, row + 1)
        sheet.set(name, {row: two, row + 1: one})
    sheet.save()
    return where


@kind("snapshot", exchanges=SPLICED)
def snapshot_level_lost(site: Site) -> Where:
    """A level of the start's book is missing: their numbers have a hole."""
    sheet = site.filled("snapshots")
    row = _quiet_level(site, Walk(site), _start_rows(site))
    where = _at_snapshot(site, row)
    sheet.drop([row])
    sheet.save()
    return where


@kind("snapshot", exchanges=SPLICED)
def snapshot_price_twice(site: Site) -> Where:
    """A price stands twice in the start's book, in place of the next one."""
    sheet = site.filled("snapshots")
    row = _quiet_level(site, Walk(site), _start_rows(site))
    where = _at_snapshot(site, row)
    sheet.set("price", {row + 1: sheet.value("price", row)})
    sheet.save()
    return where
