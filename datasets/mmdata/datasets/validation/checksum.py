"""OKX's checksum of a book."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from decimal import Decimal

from mmdata.datasets.decimals import shortest


def okx_checksum(
    bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], tick: Decimal, lot: Decimal
) -> int:
    """Return OKX's checksum of a book: CRC-32 over its best 25 levels a side, as a signed 32-bit number.

    Levels alternate bid, ask; of a longer side the rest is appended. Numbers in their shortest form.

    Source: OKX v5 docs before 2026-06-23, "Checksum"; vectors in the tests.
    """
    words: list[str] = []
    for level in range(25):
        for side in (bids, asks):
            if level < len(side):
                price, size = side[level]
                words += (f"{shortest(price * tick):f}", f"{shortest(size * lot):f}")
    value = zlib.crc32(":".join(words).encode())
    return value - (1 << 32) if value >= 1 << 31 else value
