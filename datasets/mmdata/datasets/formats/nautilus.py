"""NautilusTrader's Parquet catalog, written by its own library: order book deltas and trade ticks.

Needs the extra ``nautilus``. ``ts_event`` is when it happened, ``ts_init`` when it was received, mapped
to the exchange's clock, so that nothing is received before it happened.

Source: nautilus_trader 1.221 (``persistence/catalog/parquet.py``, ``model/data.pyx``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.datasets._kernel import BID
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.decimals import shortest
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.flow import CLEAR, LEVEL, TRADE, WHOLE, Rows, open_flow
from mmdata.datasets.formats.output import Output

F_LAST: Final = 128
"""The last delta of a message."""
F_SNAPSHOT: Final = 32
"""A delta of a whole book."""
_CHUNK = 1 << 17  # objects in memory at once; each is some hundred bytes


def instrument_name(exchange: str, symbol: str) -> str:
    """Return what NautilusTrader's own adapters call an instrument.

    >>> instrument_name("binance", "BTCUSDT"), instrument_name("binance-usdm", "BTCUSDT")
    ('BTCUSDT.BINANCE', 'BTCUSDT-PERP.BINANCE')
    """
    perpetual = exchange == "binance-usdm" and "_" not in symbol
    return f"{symbol}{'-PERP' if perpetual else ''}.{exchange.partition('-')[0].upper()}"


def write(
    root: Path, out: Output, exchange: str, symbol: str, start: int | None, end: int | None
) -> dict[str, Any]:
    """Add what was received of one symbol in ``[start, end)`` (ns, None: open) to a catalog.

    Trades that were asked for later are left out: nobody saw them. UsageError: the library is missing, the
    catalog has this instrument already, tick or lot are finer than it can hold, or a value is larger; else as
    `open_flow`.
    """
    try:
        from nautilus_trader.persistence.catalog import ParquetDataCatalog
    except ImportError as error:
        raise UsageError(
            "format nautilus needs NautilusTrader, which is not installed: pip install "
            "'mmdata-toolkit[nautilus]'; nothing was exported"
        ) from error
    name = instrument_name(exchange, symbol)
    for folder in ("order_book_delta", "trade_tick"):
        out.refuse(Path("data", folder, name))
    flow = open_flow(root, exchange, symbol, start, end)
    ticks, lots = _Raw.of("tick", flow.grid.tick.size, name), _Raw.of("lot", flow.grid.lot.size, name)
    catalog = ParquetDataCatalog(out.folder)
    for rows in _cut(flow.rows()):
        ticks.check(rows.price)
        lots.check(rows.size)
        of_book = rows.kind != TRADE
        for objects in (
            _deltas(rows.take(of_book), name, ticks, lots),
            _trades(rows.take(~of_book), name, ticks, lots),
        ):
            if objects:
                catalog.write_data(objects)
    for path in out.folder.glob(f"data/*/{name}/*.parquet"):
        out.count(path.relative_to(out.folder), pq.read_metadata(path).num_rows)
    return flow.facts() | {"instrument": name}


@dataclass(frozen=True, slots=True)
class _Raw:
    """How whole ticks, or lots, become the fixed-point integers of a price, or a quantity."""

    what: str
    name: str
    factor: int
    precision: int
    most: int
    """Units that still fit."""

    @staticmethod
    def of(what: str, unit: Decimal, name: str) -> _Raw:
        from nautilus_trader.model import objects

        digits = -int(shortest(unit).as_tuple().exponent)
        if digits > objects.FIXED_PRECISION:
            raise UsageError(
                f"{name}: the {what} {unit:f} has {digits} decimals, and this NautilusTrader holds "
                f"{objects.FIXED_PRECISION}; nothing was exported"
            )
        factor = int(unit.scaleb(objects.FIXED_PRECISION))
        limit = int(objects.PRICE_MAX if what == "tick" else objects.QUANTITY_MAX)
        return _Raw(what, name, factor, digits, limit * 10**objects.FIXED_PRECISION // factor)

    def check(self, units: NDArray[np.int64]) -> None:
        """Raise UsageError where a value does not fit."""
        if units.size and int(units.max()) > self.most:
            raise UsageError(
                f"{self.name}: a value of {int(units.max())} times the {self.what} is larger than this "
                f"NautilusTrader holds; nothing was exported"
            )


def _cut(blocks: Iterator[Rows]) -> Iterator[Rows]:
    """Yield rows so that no two blocks have a moment in common: a block is a file, and files are disjoint."""
    held: list[Rows] = []
    for block in blocks:
        held.append(block)
        rows = Rows.joined(held)
        settled = int(np.searchsorted(rows.seen, rows.seen[-1]))
        begin = 0
        while settled - begin >= _CHUNK:
            end = int(np.searchsorted(rows.seen, rows.seen[begin + _CHUNK - 1], side="right"))
            if end > settled:
                break
            yield rows.take(slice(begin, end))
            begin = end
        held = [rows.take(slice(begin, None))]
    if held and len(held[0]):
        yield held[0]


def _deltas(rows: Rows, name: str, ticks: _Raw, lots: _Raw) -> list[Any]:
    from nautilus_trader.model.data import OrderBookDelta
    from nautilus_trader.model.enums import BookAction, OrderSide
    from nautilus_trader.model.identifiers import InstrumentId

    instrument = InstrumentId.from_str(name)
    sides = {True: OrderSide.BUY, False: OrderSide.SELL}
    # A clear carries the precisions too: the library takes those of a file from its first row.
    actions = {CLEAR: BookAction.CLEAR, WHOLE: BookAction.ADD, LEVEL: BookAction.UPDATE}
    flags = np.where(rows.kind == LEVEL, 0, F_SNAPSHOT) | np.where(rows.is_last, F_LAST, 0)
    made = []
    for kind, side, price, size, number, flag, happened, received in zip(
        rows.kind.tolist(),
        (rows.side == BID).tolist(),
        rows.price.tolist(),
        rows.size.tolist(),
        np.where(rows.number == NO_ID, 0, rows.number).tolist(),
        flags.tolist(),
        rows.acts.tolist(),
        rows.seen.tolist(),
        strict=True,
    ):
        made.append(
            OrderBookDelta.from_raw(
                instrument,
                BookAction.DELETE if kind == LEVEL and not size else actions[kind],
                OrderSide.NO_ORDER_SIDE if kind == CLEAR else sides[side],
                price * ticks.factor,
                ticks.precision,
                size * lots.factor,
                lots.precision,
                0,
                flag,
                number,
                happened,
                received,
            )
        )
    return made


def _trades(rows: Rows, name: str, ticks: _Raw, lots: _Raw) -> list[Any]:
    from nautilus_trader.model.data import TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import InstrumentId, TradeId

    instrument = InstrumentId.from_str(name)
    sides = {True: AggressorSide.BUYER, False: AggressorSide.SELLER}
    return [
        TradeTick.from_raw(
            instrument,
            price * ticks.factor,
            ticks.precision,
            size * lots.factor,
            lots.precision,
            sides[side],
            TradeId(str(number)),
            happened,
            received,
        )
        for side, price, size, number, happened, received in zip(
            (rows.side == BID).tolist(),
            rows.price.tolist(),
            rows.size.tolist(),
            rows.number.tolist(),
            rows.acts.tolist(),
            rows.seen.tolist(),
            strict=True,
        )
    ]
