"""The tables: exact Arrow type and nullability of every column. Version 1.

What each column means stands in ``docs/schema.md``; a test compares that page with this module.
Prices and sizes are decimals, never floats: ``decimal(18, 8)`` stored as INT64 ("narrow"), or
``decimal(38, 18)`` ("wide") for a symbol whose values do not fit. A value is never rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

TIME: Final = pa.timestamp("ns", tz="UTC")
NARROW: Final = pa.decimal128(18, 8)
WIDE: Final = pa.decimal128(38, 18)
_ID: Final = pa.int64()
_WORD: Final = pa.string()

# A price or a size: NARROW or WIDE, chosen a symbol at a time by `arrow_schema`.
_EXACT: Final = object()

_Columns = tuple[tuple[str, object, bool], ...]
_REQUIRED, _NULLABLE = False, True

_KEY: _Columns = (
    ("session", _WORD, _REQUIRED),
    ("frame", _ID, _REQUIRED),
    ("ts_recv", TIME, _REQUIRED),
)

_TABLES: Mapping[str, _Columns] = {
    "depth": (
        *_KEY,
        ("ts_event", TIME, _NULLABLE),
        ("ts_sent", TIME, _NULLABLE),
        ("first_id", _ID, _NULLABLE),
        ("last_id", _ID, _NULLABLE),
        ("prev_id", _ID, _NULLABLE),
        ("conn", pa.int32(), _REQUIRED),
        ("side", _WORD, _NULLABLE),
        ("price", _EXACT, _NULLABLE),
        ("size", _EXACT, _NULLABLE),
        ("orders", pa.int32(), _NULLABLE),
        ("checksum", pa.int32(), _NULLABLE),
        ("is_snapshot", pa.bool_(), _REQUIRED),
        ("is_last", pa.bool_(), _REQUIRED),
    ),
    "snapshots": (
        *_KEY,
        ("ts_request", TIME, _NULLABLE),
        ("ts_event", TIME, _NULLABLE),
        ("last_id", _ID, _NULLABLE),
        ("side", _WORD, _NULLABLE),
        ("level", pa.int32(), _NULLABLE),
        ("price", _EXACT, _NULLABLE),
        ("size", _EXACT, _NULLABLE),
        ("reason", _WORD, _REQUIRED),
    ),
    "trades": (
        *_KEY,
        ("ts_event", TIME, _NULLABLE),
        ("ts_sent", TIME, _NULLABLE),
        ("conn", pa.int32(), _NULLABLE),
        ("kind", _WORD, _REQUIRED),
        ("origin", _WORD, _REQUIRED),
        ("trade_id", _ID, _REQUIRED),
        ("first_trade_id", _ID, _NULLABLE),
        ("last_trade_id", _ID, _NULLABLE),
        ("side", _WORD, _REQUIRED),
        ("price", _EXACT, _REQUIRED),
        ("size", _EXACT, _REQUIRED),
        ("seq", _ID, _NULLABLE),
        ("flags", _WORD, _NULLABLE),
    ),
    "bbo": (
        *_KEY,
        ("ts_event", TIME, _NULLABLE),
        ("ts_sent", TIME, _NULLABLE),
        ("conn", pa.int32(), _REQUIRED),
        ("last_id", _ID, _NULLABLE),
        ("bid_price", _EXACT, _NULLABLE),
        ("bid_size", _EXACT, _NULLABLE),
        ("bid_orders", pa.int32(), _NULLABLE),
        ("ask_price", _EXACT, _NULLABLE),
        ("ask_size", _EXACT, _NULLABLE),
        ("ask_orders", pa.int32(), _NULLABLE),
    ),
    "events": (
        *_KEY,
        ("kind", _WORD, _REQUIRED),
        ("conn", pa.int32(), _NULLABLE),
        ("channel", _WORD, _NULLABLE),
        ("last_id", _ID, _NULLABLE),
        ("next_id", _ID, _NULLABLE),
        ("detail", _WORD, _NULLABLE),
    ),
    "instruments": (
        *_KEY,
        ("source", _WORD, _REQUIRED),
        ("status", _WORD, _NULLABLE),
        ("base", _WORD, _NULLABLE),
        ("quote", _WORD, _NULLABLE),
        # Always wide: this table says how fine the other tables must be.
        ("tick_size", WIDE, _REQUIRED),
        ("lot_size", WIDE, _REQUIRED),
        ("min_size", WIDE, _NULLABLE),
        ("min_notional", WIDE, _NULLABLE),
        ("contract_value", WIDE, _NULLABLE),
        ("raw", _WORD, _NULLABLE),
    ),
    "quarantine": (
        *_KEY,
        ("conn", pa.int32(), _NULLABLE),
        ("error", _WORD, _REQUIRED),
        ("frame_text", _WORD, _REQUIRED),
    ),
}

TABLES: Final = tuple(_TABLES)
"""Names of all tables."""
EXACT_TABLES: Final = tuple(
    name for name, columns in _TABLES.items() if any(kind is _EXACT for _, kind, _ in columns)
)
"""The tables with prices or sizes: those that have a ``-wide`` twin."""

EVENT_KINDS: Final = (
    *("session_start", "connected", "subscribed", "snapshot", "synced", "gap", "resync", "disconnected"),
    *("silence", "notice", "clock", "instrument", "window_open", "window_close", "quarantine", "torn"),
    "session_end",
)
GAP_CAUSES: Final = ("missing", "disconnect", "torn", "backpressure", "clock")
SNAPSHOT_REASONS: Final = ("start", "gap", "audit")


def arrow_schema(table: str, *, wide: bool = False) -> pa.Schema:
    """Return the Arrow schema of ``table``; prices and sizes wide or narrow. KeyError: no such table."""
    exact = WIDE if wide else NARROW
    return pa.schema(
        [
            pa.field(name, exact if kind is _EXACT else kind, nullable=nullable)
            for name, kind, nullable in _TABLES[table]
        ]
    )


def exact_columns(table: str) -> tuple[str, ...]:
    """Return the names of the columns of ``table`` that hold prices or sizes."""
    return tuple(name for name, kind, _ in _TABLES[table] if kind is _EXACT)
