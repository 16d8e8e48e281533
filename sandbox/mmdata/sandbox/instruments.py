"""What is traded: the four markets of the sandbox, and how ticks and lots become decimal strings."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeAlias

Venue: TypeAlias = Literal["binance", "okx"]

_E8 = 10**8


def fixed8(units: int, step_e8: int) -> str:
    """Return ``units * step`` with eight decimals, as Binance writes every number.

    >>> fixed8(6000123, 10**6)
    '60001.23000000'
    """
    whole, rest = divmod(units * step_e8, _E8)
    return f"{whole}.{rest:08d}"


def shortest(units: int, step_e8: int) -> str:
    """Return ``units * step`` without trailing zeros, as OKX writes every number.

    >>> shortest(787430, 10**7), shortest(1020, 1), shortest(0, 1)
    ('78743', '0.0000102', '0')
    """
    whole, rest = divmod(units * step_e8, _E8)
    return f"{whole}.{rest:08d}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Instrument:
    """One market: ``tick_e8`` and ``lot_e8`` are the steps of price and size in units of 1e-8."""

    venue: Venue
    symbol: str
    base: str
    quote: str
    tick_e8: int
    lot_e8: int
    start_ticks: int = 0
    unit_lots: int = 1
    first_update_id: int = 0
    first_trade_id: int = 0

    def price(self, px_ticks: int) -> str:
        """Return a price as this venue writes it."""
        return self._decimal(px_ticks, self.tick_e8)

    def size(self, qty_lots: int) -> str:
        """Return a size as this venue writes it."""
        return self._decimal(qty_lots, self.lot_e8)

    def _decimal(self, units: int, step_e8: int) -> str:
        return (fixed8 if self.venue == "binance" else shortest)(units, step_e8)


def e8(text: str) -> int:
    """Return a decimal string in units of 1e-8; ValueError when it has more than eight decimals."""
    scaled = Decimal(text).scaleb(8)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{text} has more than eight decimals")
    return int(scaled)


# Ids start where the venues' were in 2024 to 2026: small ones would hide a 32-bit mistake in a reader.
MARKETS = (
    Instrument(
        "binance", "BTCUSDT", "BTC", "USDT", e8("0.01"), e8("0.00001"),
        start_ticks=6_000_000, unit_lots=1_273,
        first_update_id=50_093_239_000, first_trade_id=3_735_683_000,
    ),
    Instrument(
        "binance", "ETHUSDT", "ETH", "USDT", e8("0.01"), e8("0.0001"),
        start_ticks=300_000, unit_lots=2_117,
        first_update_id=36_401_117_000, first_trade_id=1_527_090_000,
    ),
    Instrument(
        "okx", "BTC-USDT", "BTC", "USDT", e8("0.1"), e8("0.00000001"),
        start_ticks=600_000, unit_lots=1_273_920,
        first_update_id=80_274_874_000, first_trade_id=734_864_000,
    ),
    Instrument(
        "okx", "ETH-USDT", "ETH", "USDT", e8("0.01"), e8("0.000001"),
        start_ticks=300_000, unit_lots=211_743,
        first_update_id=60_118_205_000, first_trade_id=512_337_000,
    ),
)  # fmt: skip
