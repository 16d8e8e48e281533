"""The venues' frames read by a second, plain reader: what rows a frame must have become."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, NamedTuple

DEPTH, TRADES, BBO = "depth", "trades", "bbo"
Rows = list[tuple[Any, ...]]


class Said(NamedTuple):
    """One message of a frame: the ids it goes by, and the rows that a table must have of it."""

    table: str
    symbol: str
    last_id: int
    rows: Rows
    prev_id: int = 0
    is_snapshot: bool = False


def read_frame(venue: str, frame: bytes) -> list[Said]:
    """Return what a frame says of books, trades and quotes; nothing of anything else."""
    if frame == b"pong":
        return []
    message = json.loads(frame)
    if not isinstance(message, dict) or "data" not in message:
        return []
    return _binance(message) if venue == "binance" else _okx(message)


def _binance(message: dict[str, Any]) -> list[Said]:
    channel, data = message["stream"].partition("@")[2].partition("@")[0], message["data"]
    if channel == "depth":
        ids = (data["U"], data["u"], data["U"] - 1)
        return [Said(DEPTH, data["s"], data["u"], _depth(ids, False, data["b"], data["a"]), data["U"] - 1)]
    if channel == "trade":
        side = "sell" if data["m"] else "buy"
        row = (data["t"], data["t"], data["t"], side, Decimal(data["p"]), Decimal(data["q"]))
        return [Said(TRADES, data["s"], data["t"], [row], data["t"] - 1)]
    if channel == "bookTicker":
        return [Said(BBO, data["s"], data["u"], [(data["u"], *_touch(data, "bBaA"))])]
    return []


def _okx(message: dict[str, Any]) -> list[Said]:
    arg, found = message["arg"], []
    symbol, is_snapshot = arg["instId"], message.get("action") == "snapshot"
    for data in message["data"]:
        if arg["channel"] == "books":
            ids = (data["seqId"], data["seqId"], data["prevSeqId"])
            rows = _depth(ids, is_snapshot, data["bids"], data["asks"])
            found.append(Said(DEPTH, symbol, data["seqId"], rows, data["prevSeqId"], is_snapshot))
        elif arg["channel"] == "trades":
            last, count = int(data["tradeId"]), int(data["count"])
            row = (last, last - count + 1, last, data["side"], Decimal(data["px"]), Decimal(data["sz"]))
            found.append(Said(TRADES, symbol, last, [row], last - count))
        elif arg["channel"] == "bbo-tbt":
            best = [level for side in (data["bids"], data["asks"]) for level in side[0][:2]]
            found.append(Said(BBO, symbol, data["seqId"], [(data["seqId"], *map(Decimal, best))]))
    return found


def _depth(ids: tuple[int, int, int], is_snapshot: bool, bids: Any, asks: Any) -> Rows:
    sides = (("bid", bids), ("ask", asks))
    rows: Rows = [
        (*ids, is_snapshot, name, Decimal(level[0]), Decimal(level[1]))
        for name, levels in sides
        for level in levels
    ]
    return rows or [(*ids, is_snapshot, None, None, None)]


def _touch(data: dict[str, Any], keys: str) -> tuple[Decimal, ...]:
    return tuple(Decimal(data[key]) for key in keys)
