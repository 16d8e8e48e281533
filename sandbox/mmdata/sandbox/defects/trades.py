"""Defects of the trades' ids: holes, repeats, going back."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from mmdata.sandbox.defects.ground import NoPlaceError, Sheet, Site
from mmdata.sandbox.defects.kinds import OKX, SPOT, TRADES, Where, at_row, kind

_SOON, _SOON_NS = 20, 500_000_000
"""How soon a trade is repeated: in lines, and in time. Much later it would be late, too."""


def _chain(site: Site, sheet: Sheet, *, kinds: tuple[str, ...] = ("trade", "agg")) -> list[int]:
    """Return the rows of one chain of ids (a kind's) of the stream, at least ten of them."""
    told = sheet.words("kind")
    streamed = sheet.words("origin") == "stream"
    chains = [np.flatnonzero((told == own) & streamed).tolist() for own in kinds]
    chains = [rows for rows in chains if len(rows) >= 10]
    return list(site.pick(chains))


def _ids(site: Site, sheet: Sheet, row: int) -> tuple[int, int]:
    """Return first and last id by which a row is chained: Binance counts its aggregates, OKX the trades."""
    if site.exchange == OKX or sheet.value("kind", row) == "trade":
        first = sheet.value("first_trade_id", row)
        return (sheet.value("trade_id", row) if first is None else first), sheet.value("trade_id", row)
    return sheet.value("trade_id", row), sheet.value("trade_id", row)


def _at(sheet: Sheet, row: int, **more: object) -> Where:
    where = at_row(sheet.at(row), sheet.row(row), table="trades", **more)
    del where["row"]
    return where


def _lose(site: Site, kinds: tuple[str, ...] = ("trade", "agg")) -> tuple[Sheet, Where, dict[str, Any]]:
    """Take trades out of a sheet; return it, the place of the one behind the hole, and its gap."""
    sheet = site.filled("trades")
    rows = _chain(site, sheet, kinds=kinds)
    first = site.rng.randrange(2, len(rows) - 6)
    lost = rows[first : first + site.rng.randrange(1, 4)]
    after = rows[first + len(lost)]
    before = _ids(site, sheet, rows[first - 1])[1]
    next_id = _ids(site, sheet, after)[0]
    where = _at(sheet, after, count=next_id - before - 1)
    gap = {"ts_recv": sheet.value("ts_recv", after), "last_id": before, "next_id": next_id}
    sheet.drop(lost)
    return sheet, where, gap


@kind("trade_ids", touches=TRADES)
def trade_lost(site: Site) -> Where:
    """Trades are gone, and no gap is on record."""
    sheet, where, _ = _lose(site, ("trade", "agg") if site.exchange == OKX else ("trade",))
    sheet.save()
    return where


@kind("trade_ids", touches=TRADES, exchanges=("binance", "binance-usdm"))
def agg_lost(site: Site) -> Where:
    """Aggregated trades are gone, and no gap is on record."""
    sheet, where, _ = _lose(site, ("agg",))
    sheet.save()
    return where


@kind("trade_ids", touches=TRADES, severity="warning")
def trade_gap_recorded(site: Site) -> Where:
    """Trades were lost; the gap is on record."""
    sheet, where, gap = _lose(site)
    base = {"session": where["session"], "frame": where["frame"], "kind": "gap", "channel": "trades"}
    event = {**base, **gap, "conn": 1, "detail": '{"cause":"missing"}'}
    site.add_rows("events", site.symbol, [event])  # which may find no place for it
    sheet.save()
    del where["file"], where["table"]  # the event's or the trade's: both are right
    return where


@kind("trade_ids", touches=TRADES, severity="warning")
def trade_repeated(site: Site) -> Where:
    """A trade came again, later, under an id that was passed."""
    sheet = site.filled("trades")
    again = int(site.pick(_chain(site, sheet)[1:-1]))
    found = int(sheet.ints("frame")[again])
    frame, ts_recv = site.free_line(found, found + _SOON)
    if ts_recv - sheet.value("ts_recv", again) > _SOON_NS:
        raise NoPlaceError
    row = int(np.searchsorted(sheet.ints("frame"), frame))
    sheet.insert(row, [sheet.row(again) | {"frame": frame, "ts_recv": ts_recv}])
    where = {"table": "trades", "session": sheet.value("session", row), "frame": frame}
    sheet.save()
    return where


@kind("trade_ids", touches=TRADES)
def trade_ids_back(site: Site) -> Where:
    """From a trade on all ids are lower than before."""
    sheet = site.filled("trades")
    rows = _chain(site, sheet)
    begin = site.rng.randrange(2, len(rows) - 4)
    by = site.rng.randrange(10_000, 100_000)
    where = _at(sheet, rows[begin])
    counted = site.exchange != OKX and sheet.value("kind", rows[0]) == "agg"
    for name in ("trade_id",) if counted else ("trade_id", "first_trade_id", "last_trade_id"):
        values = sheet.ints(name)
        sheet.set(name, {row: int(values[row]) - by for row in rows[begin:] if values[row] > 0})
    sheet.save()
    return where


@kind("trade_ids", touches=TRADES, exchanges=(SPOT,))
def agg_range_wrong(site: Site) -> Where:
    """An aggregate says that it begins with other trades than follow the one before."""
    sheet = site.filled("trades")
    rows = _chain(site, sheet, kinds=("agg",))
    firsts, lasts = sheet.ints("first_trade_id"), sheet.ints("last_trade_id")
    fit = [row for before, row in pairwise(rows) if firsts[row] == lasts[before] + 1]
    long = [row for row in fit if lasts[row] > firsts[row]]
    row = int(site.pick(long))
    where = _at(sheet, row, count=None)
    sheet.set("first_trade_id", {row: int(firsts[row]) + 1})
    sheet.save()
    return where
