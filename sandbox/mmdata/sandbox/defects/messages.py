"""Defects of messages as rows: their order, their marks, and the same ones twice."""

from __future__ import annotations

import numpy as np

from mmdata.sandbox.defects.ground import NoPlaceError, Site
from mmdata.sandbox.defects.kinds import BOOK, TRADES, Where, at_row, kind


def _message(site: Site, *, rows: int = 1) -> int:
    """Return a diff of at least so many rows, neither the first nor the last of its part."""
    messages, part = site.messages, site.depth.part
    inside = np.zeros(len(messages), np.bool_)
    inside[1:-1] = (part[messages.start[:-2]] == part[messages.start[1:-1]]) & (
        part[messages.start[2:]] == part[messages.start[1:-1]]
    )
    long = messages.stop - messages.start >= rows
    return int(site.pick(np.flatnonzero(inside & long & ~messages.is_snapshot)))


def _at(site: Site, row: int) -> Where:
    sheet = site.depth
    return at_row(sheet.at(row), sheet.row(row), table="depth")


def _at_message(site: Site, row: int) -> Where:
    """Return the place of a message by one of its rows; which row of it is meant is left open."""
    where = _at(site, row)
    del where["row"]
    return where


@kind("order")
def frames_swapped(site: Site) -> Where:
    """Two neighbouring messages have changed places in their file."""
    sheet, messages = site.depth, site.messages
    one = _message(site)
    two = one + 1
    if sheet.part[messages.start[one]] != sheet.part[messages.start[two]] or two + 1 == len(messages):
        raise NoPlaceError
    order = np.arange(len(sheet))
    begin, end = int(messages.start[one]), int(messages.stop[two])
    order[begin:end] = [*messages.rows(two), *messages.rows(one)]
    file, number = sheet.at(begin)
    lower = number + len(messages.rows(two))
    where = _at(site, begin) | {"file": file, "row": lower}
    sheet.take(order)
    sheet.save()
    return where


@kind("message")
def last_missing(site: Site) -> Where:
    """The last row of a message is not marked as its last."""
    sheet = site.depth
    row = site.messages.rows(_message(site, rows=2))[-1]
    where = _at_message(site, row)
    sheet.set("is_last", {row: False})
    sheet.save()
    return where


@kind("message")
def last_twice(site: Site) -> Where:
    """A row in the middle of a message is marked as its last."""
    sheet = site.depth
    row = int(site.pick(site.messages.rows(_message(site, rows=2))[:-1]))
    where = _at_message(site, row)
    sheet.set("is_last", {row: True})
    sheet.save()
    return where


@kind("message")
def ids_differ_in_message(site: Site) -> Where:
    """One row of a message tells another id than its others."""
    sheet = site.depth
    ids = sheet.ints("last_id")
    if (ids < 0).any():
        raise NoPlaceError
    row = int(site.pick(site.messages.rows(_message(site, rows=3))[1:-1]))
    where = _at_message(site, row)
    sheet.set("last_id", {row: int(ids[row]) + site.rng.randrange(1, 9)})
    sheet.save()
    return where


@kind("message")
def sides_mixed(site: Site) -> Where:
    """Within a message an ask stands before a bid."""
    sheet, side = site.depth, site.depth.words("side")
    for _ in range(200):
        rows = site.messages.rows(_message(site, rows=2))
        bids = [row for row in rows if side[row] == "bid"]
        if bids and len(bids) < len(rows):
            break
    else:
        raise NoPlaceError
    # The rows say what they said; which is the last is told by its place.
    where = _at_message(site, rows[0])
    marks = {row: row == rows[-1] for row in rows}
    order = np.arange(len(sheet))
    last = bids[-1]
    order[last], order[last + 1] = last + 1, last
    sheet.take(order)
    sheet.set("is_last", marks)
    sheet.save()
    return where


@kind("message")
def message_straddles(site: Site) -> Where:
    """A message begins in one part and ends in the next."""
    sheet, messages = site.depth, site.messages
    ends = [
        part
        for part in range(len(sheet.parts) - 1)
        if sheet.parts[part].session == sheet.parts[part + 1].session
        and sheet.parts[part].partition.date == sheet.parts[part + 1].partition.date
    ]
    for part in site.shuffled(ends):
        last = int(np.flatnonzero(sheet.part == part)[-1])
        message = int(np.searchsorted(messages.stop, last + 1))
        if len(messages.rows(message)) > 1 and len(np.flatnonzero(sheet.part == part)) > 2:
            where = _at_message(site, last)
            del where["file"]  # it lies in both
            sheet.part[last] = part + 1
            sheet.save()
            return where
    raise NoPlaceError


@kind("duplicate")
def message_twice(site: Site) -> Where:
    """A book message stands twice: it was published again."""
    sheet, messages = site.depth, site.messages
    message = _message(site)
    if messages.last_id[message] < 0:
        raise NoPlaceError  # without ids two books of one frame are no contradiction
    where = _at_message(site, int(messages.start[message]))
    rows = messages.rows(message)
    sheet.take([*range(rows.stop), *rows, *range(rows.stop, len(sheet))])
    sheet.save()
    return where


@kind("duplicate", touches=TRADES)
def trade_twice(site: Site) -> Where:
    """A trade stands twice: it was published again."""
    sheet = site.filled("trades")
    row = site.rng.randrange(1, len(sheet) - 1)
    where = at_row(sheet.at(row), sheet.row(row), table="trades", id=sheet.value("trade_id", row))
    del where["row"]
    sheet.take([*range(row + 1), row, *range(row + 1, len(sheet))])
    sheet.save()
    return where


@kind("schema", touches=BOOK | TRADES)
def word_unknown(site: Site) -> Where:
    """A word stands in a column that has only a few."""
    sheet = site.filled("trades")
    row = site.rng.randrange(1, len(sheet))
    column, word = site.pick([("side", "BUY"), ("side", "bid"), ("origin", "rest"), ("kind", "liquidation")])
    where = at_row(sheet.at(row), sheet.row(row), table="trades")
    sheet.set(column, {row: word})
    sheet.save()
    return where
