"""Exact numbers as plain text."""

from __future__ import annotations

import polars as pl
import pyarrow as pa


def text_of(column: pa.ChunkedArray) -> pl.Series:
    """Return decimals as people write them: no exponent, no trailing zeros, null as null.

    >>> from decimal import Decimal
    >>> text_of(pa.chunked_array([pa.array([Decimal("0.00000010"), Decimal("100.0"), None])])).to_list()
    ['0.0000001', '100', None]
    """
    text = pl.Series(column.cast(pa.decimal128(38, column.type.scale))).cast(pl.String)
    return text.str.strip_chars_end("0").str.strip_chars_end(".") if column.type.scale else text
