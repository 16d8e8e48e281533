"""The clean twin: a small dataset without a flaw, recorded from markets that only a seed determines.

The sandbox's own engines and feeds, seven minutes over midnight UTC, as tables: nothing is rendered, nothing
decoded, and the recorder has no part in it. What the venues send is what the tables say, by the sandbox's own
reading of ``docs/schema.md``.

binance       BTCUSDT (trades and aggregates), ETHUSDT: diffs to a REST snapshot
binance-usdm  BTCUSDT (aggregates): ``pu`` chains, engine time beside emission time
okx           BTC-USDT (checksums), ETH-USDT (heartbeats, one maintenance reset)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import lru_cache
from itertools import count, zip_longest
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from mmdata.datasets.layout import NO_SYMBOL, Partition, date_name
from mmdata.datasets.publish import publish
from mmdata.datasets.version import version
from mmdata.sandbox.binance.feed import BinanceFeed
from mmdata.sandbox.binance.messages import AggTrade, BookTicker, DepthUpdate, Trade
from mmdata.sandbox.defects.columns import Columns
from mmdata.sandbox.engine import LevelView
from mmdata.sandbox.instruments import MARKETS, Instrument, e8
from mmdata.sandbox.instruments import shortest as shortest_decimal
from mmdata.sandbox.market import LiveMarket
from mmdata.sandbox.okx.feed import OkxFeed
from mmdata.sandbox.okx.messages import BestBidOffer, Books, Trades
from mmdata.sandbox.wire import NS_PER_MS, NS_PER_S

_DAY_NS = 86_400 * NS_PER_S
_LENGTH_NS = 390 * NS_PER_S
_GRID_NS = 100 * NS_PER_MS
_REST_EVERY_NS = 100 * NS_PER_S
_CLOCK_EVERY_NS = 60 * NS_PER_S
_UNITS_PER_S = 0.12  # of the flow: some nine changes of the book a second
_BURN_IN = 20.0
_SWEEP = 0.6
_USDM_IDS = 3  # of three ids on USDⓈ-M two belong to other symbols' messages: U is beyond pu + 1
_FIRST_DAY = 20_638  # 2026-07-04
_CODE = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class _Listing:
    """A symbol that a venue of the twin records."""

    exchange: str
    instrument: Instrument
    kinds: tuple[str, ...] = ("trade",)
    """Which of Binance's trade streams."""
    has_checksums: bool = False
    resets: bool = False


_SPOT_BTC, _SPOT_ETH, _OKX_BTC, _OKX_ETH = MARKETS
_USDM_BTC = replace(
    _SPOT_BTC, tick_e8=e8("0.1"), lot_e8=e8("0.001"), start_ticks=600_310, unit_lots=17,
    first_update_id=1_640_031_000, first_trade_id=5_201_774_000,
)  # fmt: skip
_LISTINGS = (
    _Listing("binance", _SPOT_BTC, ("trade", "agg")),
    _Listing("binance", _SPOT_ETH),
    _Listing("binance-usdm", _USDM_BTC, ("agg",)),
    _Listing("okx", _OKX_BTC, has_checksums=True),
    _Listing("okx", _OKX_ETH, resets=True),
)
EXCHANGES = tuple(dict.fromkeys(listing.exchange for listing in _LISTINGS))


class _Answer(NamedTuple):
    """A book that REST told."""

    reason: str
    ts_request: int
    ts_event: int | None
    last_id: int
    bids: list[LevelView]
    asks: list[LevelView]


class _Checked(NamedTuple):
    """A message of OKX's ``books``, and what the venue says of the book after it."""

    books: Books
    checksum: int | None


class _Row(NamedTuple):
    """A line that is told column by column: an event, an instrument."""

    table: str
    values: dict[str, Any]


class _Line(NamedTuple):
    """What stands at one ordinal of the session."""

    ts_recv: int
    symbol: str
    said: object
    ts_event: int | None = None
    """The engine's time where a message does not carry it."""


def make_twin(root: Path, seed: int) -> None:
    """Write the clean twin of ``seed`` into the folder ``root``, one session a venue; always the same."""
    rng = Random(f"twin {seed}")
    midnight = (_FIRST_DAY + rng.randrange(100)) * _DAY_NS
    start = midnight - int(_LENGTH_NS * rng.uniform(0.4, 0.6)) // NS_PER_S * NS_PER_S
    seeds = iter(np.random.SeedSequence(seed).spawn(len(_LISTINGS)))
    for exchange in EXCHANGES:
        lines: list[_Line] = []
        for listing in _LISTINGS:
            if listing.exchange == exchange:
                lines += _market(listing, next(seeds), start, rng)
        lines += _session(exchange, start, rng)
        _publish(root, exchange, start, sorted(lines, key=lambda line: line.ts_recv), rng)


# --- what the venues say, and when it arrives


def _market(listing: _Listing, seed: np.random.SeedSequence, start: int, rng: Random) -> Iterator[_Line]:
    """Yield the lines of one symbol: its stream's in order, answers and notes by their own time."""
    market = LiveMarket(listing.instrument, seed, _UNITS_PER_S, start, _SWEEP, _BURN_IN)
    symbol = listing.instrument.symbol
    told = _Row("instruments", _instrument(listing.instrument))
    yield _Line(start + 3 * NS_PER_MS, symbol, told)
    yield _Line(start + 60 * NS_PER_MS, symbol, _event("subscribed", conn=1))
    arrival = 0
    for sent, line in (_okx if listing.exchange == "okx" else _binance)(listing, market, start, rng):
        if isinstance(line.said, _Answer):
            yield line
            yield from _noted(listing, line)
            continue
        # One connection: nothing overtakes.
        arrival = max(arrival + rng.randrange(2_000, 20_000), sent + int(rng.uniform(20, 60) * NS_PER_MS))
        yield line._replace(ts_recv=arrival)


def _noted(listing: _Listing, line: _Line) -> Iterator[_Line]:
    """Yield what the recorder writes down when a book came over REST."""
    assert isinstance(line.said, _Answer)
    last_id = _last_id(listing.exchange, line.said.last_id)
    detail = f'{{"reason":"{line.said.reason}"}}'
    said = _event("snapshot", channel="depth", last_id=last_id, detail=detail)
    yield _Line(line.ts_recv + 40_000, line.symbol, said)
    if line.said.reason == "start":
        yield _Line(line.ts_recv + 50_000, line.symbol, _event("synced", channel="depth", last_id=last_id))


def _moments(start: int, rng: Random) -> tuple[list[int], set[int]]:
    """Return when the feeds are looked at, and at which of these moments REST answers."""
    asked = {start + 300 * NS_PER_MS + rng.randrange(_GRID_NS)}
    asked |= {
        at + rng.randrange(_GRID_NS)
        for at in range(start + _REST_EVERY_NS, start + _LENGTH_NS, _REST_EVERY_NS)
    }
    grid = range(start + _GRID_NS, start + _LENGTH_NS, _GRID_NS)
    return sorted({*grid, *asked}), asked


def _binance(listing: _Listing, market: LiveMarket, start: int, rng: Random) -> Iterator[tuple[int, _Line]]:
    symbol, futures = listing.instrument.symbol, listing.exchange == "binance-usdm"
    wanted = {"trade": Trade, "agg": AggTrade}
    kinds = (*(wanted[kind] for kind in listing.kinds), BookTicker)
    feed = BinanceFeed(market, start)
    moments, asked = _moments(start, rng)
    for now in moments:
        for event in market.advance(now):
            sent = event.ts_event + NS_PER_MS
            for message in feed.observe(event, sent):
                if isinstance(message, kinds):
                    yield sent, _Line(0, symbol, message, event.ts_event)
        for message in feed.flush(now):
            if isinstance(message, DepthUpdate) and message.stream.endswith("@depth@100ms"):
                yield now, _Line(0, symbol, message, market.ts_last_event)
        if now in asked:
            engine = market.engine
            reason = "start" if now == min(asked) else "audit"
            answer = _Answer(
                reason, now - 40 * NS_PER_MS, market.ts_last_event if futures else None,
                engine.update_id, [*engine.bids()], [*engine.asks()],
            )  # fmt: skip
            yield now, _Line(now + 45 * NS_PER_MS, symbol, answer)


def _okx(listing: _Listing, market: LiveMarket, start: int, rng: Random) -> Iterator[tuple[int, _Line]]:
    symbol = listing.instrument.symbol
    feed = OkxFeed(market, start, heartbeat_s=0.5)
    moments, asked = _moments(start, rng)
    reset_at = moments[int(len(moments) * rng.uniform(0.2, 0.8))] if listing.resets else None

    def line(said: object) -> _Line:
        if isinstance(said, Books):
            said = _Checked(said, _checksum(feed, said.ts_sent) if listing.has_checksums else None)
        return _Line(0, symbol, said)

    for message in (*feed.greet("bbo-tbt", start), *feed.greet("books", start)):
        yield start + 50 * NS_PER_MS, line(message)
    synced = _event("synced", conn=1, channel="depth", last_id=feed.last_id)
    yield start + 50 * NS_PER_MS, _Line(0, symbol, synced)
    for now in moments:
        for event in market.advance(now):
            for message in (*feed.observe(event, event.ts_event), *feed.flush(event.ts_event)):
                yield event.ts_event + NS_PER_MS, line(message)
        for message in feed.flush(now):
            yield now + NS_PER_MS, line(message)
        if now in asked:
            [book] = feed.greet("books", now)
            assert isinstance(book, Books)
            answer = _Answer("audit", now - 40 * NS_PER_MS, now, book.seq_id, book.bids, book.asks)
            yield now, _Line(now + 45 * NS_PER_MS, symbol, answer)
        if now == reset_at:
            feed.reset_ids(50_000)


_word = lru_cache(maxsize=None)(shortest_decimal)


def _checksum(feed: OkxFeed, now: int) -> int:
    """Return the checksum of the book as last pushed: CRC-32 over its best 25 levels a side.

    Source: OKX v5 docs before 2026-06-23, "Checksum".
    """
    [book] = feed.greet("books", now)
    assert isinstance(book, Books)
    tick, lot = feed.instrument.tick_e8, feed.instrument.lot_e8
    words = (
        f"{_word(level.px_ticks, tick)}:{_word(level.qty_lots, lot)}"
        for pair in zip_longest(book.bids[:25], book.asks[:25])
        for level in pair
        if level is not None
    )
    value = zlib.crc32(":".join(words).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def _session(exchange: str, start: int, rng: Random) -> Iterator[_Line]:
    """Yield what the recorder does beside the symbols."""
    end = start + _LENGTH_NS + 200 * NS_PER_MS
    window = {"start": _moment(start), "end": _moment(end)}
    begun = '{"stamp":"data_received","host":"twin"}'
    yield _Line(start, NO_SYMBOL, _event("session_start", detail=begun))
    detail = f'{{"start":"{window["start"]}","end":"{window["end"]}"}}'
    yield _Line(start + 1, NO_SYMBOL, _event("window_open", detail=detail))
    url = f"ws://{exchange}.twin/stream"
    yield _Line(
        start + 50 * NS_PER_MS,
        NO_SYMBOL,
        _event("connected", conn=1, detail=f'{{"url":"{url}","leg":0}}'),
    )
    for at in range(start + NS_PER_S, start + _LENGTH_NS, _CLOCK_EVERY_NS):
        offset = int(rng.gauss(0, 0.2) * NS_PER_MS)
        detail = (
            f'{{"offset_ns":{offset},"uncertainty_ns":{rng.randrange(1, 3) * NS_PER_MS},'
            f'"url":"http://{exchange}.twin/time"}}'
        )
        yield _Line(at, NO_SYMBOL, _event("clock", detail=detail))
    yield _Line(end, NO_SYMBOL, _event("window_close", detail=f'{{"end":"{window["end"]}"}}'))
    yield _Line(end + NS_PER_MS, NO_SYMBOL, _event("session_end", detail='{"gaps":0,"connections":1}'))


def _moment(ts_ns: int) -> str:
    return str(np.datetime64(ts_ns, "ns").astype("datetime64[s]")).replace("T", " ") + "+00:00"


def _event(kind: str, **columns: Any) -> _Row:
    return _Row("events", {"kind": kind, **columns})


def _instrument(instrument: Instrument) -> dict[str, Any]:
    return {
        "source": "venue",
        "status": "TRADING" if instrument.venue == "binance" else "live",
        "base": instrument.base,
        "quote": instrument.quote,
        "tick_size": Decimal(instrument.tick_e8).scaleb(-8),
        "lot_size": Decimal(instrument.lot_e8).scaleb(-8),
    }


# --- lines as rows


def _publish(root: Path, exchange: str, start: int, lines: Sequence[_Line], rng: Random) -> None:
    """Publish the lines of a session: as the recorder does, in flushes, each split at midnight."""
    second = _moment(start).replace("-", "").replace(":", "").replace(" ", "T").partition("+")[0]
    session = f"{second}Z-{''.join(rng.choices(_CODE, k=6))}"
    listings = {own.instrument.symbol: own for own in _LISTINGS if own.exchange == exchange}
    # Twice while it goes on, within a minute: else a part that is lost would be silence, too.
    first, length = rng.uniform(0.1, 0.8), rng.uniform(0.07, 0.12)
    flushes = [int(len(lines) * share) for share in (first, first + length)]
    numbers: dict[str, Iterator[int]] = {}
    frame = 0
    tables: dict[tuple[str, str, str], Columns] = {}
    for at, line in enumerate(lines):
        if at in flushes:
            _flush(root, exchange, session, tables, numbers, listings)
        key = (line.symbol, _table(line.said), date_name(line.ts_recv))
        if key not in tables:
            tables[key] = Columns(key[1])
        fixed = {"session": session, "frame": frame, "ts_recv": line.ts_recv}
        _add(tables[key], fixed, listings.get(line.symbol), line)
        # What was sent, pongs and replies have an ordinal of the capture too, and no row.
        frame += 2 if rng.random() < 0.1 else 1
    _flush(root, exchange, session, tables, numbers, listings)


def _flush(
    root: Path,
    exchange: str,
    session: str,
    tables: dict[tuple[str, str, str], Columns],
    numbers: dict[str, Iterator[int]],
    listings: dict[str, _Listing],
) -> None:
    for (symbol, table, date), columns in sorted(tables.items()):
        facts = {"version": version(), "config": "0" * 12, "source": "twin"}
        if symbol in listings:
            instrument = listings[symbol].instrument
            for name, step in (("tick_size", instrument.tick_e8), ("lot_size", instrument.lot_e8)):
                facts[name] = shortest_decimal(1, step)
        n = next(numbers.setdefault(table, count()))
        publish(root, Partition(table, False, exchange, symbol, date), session, n, columns.to_table(), facts)
    tables.clear()


def _table(said: object) -> str:
    if isinstance(said, _Row):
        return said.table
    tables = {
        DepthUpdate: "depth", _Checked: "depth", Trade: "trades", AggTrade: "trades", Trades: "trades",
        BookTicker: "bbo", BestBidOffer: "bbo", _Answer: "snapshots",
    }  # fmt: skip
    return tables[type(said)]


def _add(columns: Columns, fixed: dict[str, Any], listing: _Listing | None, line: _Line) -> None:
    said = line.said
    if isinstance(said, _Row):
        columns.add(**fixed, **said.values)
        return
    assert listing is not None
    if isinstance(said, DepthUpdate):
        _add_diff(columns, fixed, listing, said, line.ts_event)
    elif isinstance(said, _Checked):
        _add_books(columns, fixed, listing.instrument, said)
    elif isinstance(said, _Answer):
        _add_answer(columns, fixed, listing, said)
    elif isinstance(said, Trade | AggTrade | Trades):
        _add_trade(columns, fixed, listing.instrument, said)
    elif isinstance(said, BookTicker | BestBidOffer):
        _add_bbo(columns, fixed, listing, said, line.ts_event)


def _add_diff(
    columns: Columns, fixed: dict[str, Any], listing: _Listing, said: DepthUpdate, engine_ns: int | None
) -> None:
    futures = listing.exchange == "binance-usdm"
    assert engine_ns is not None
    message = {
        **fixed,
        "ts_event": _ms(engine_ns if futures else said.ts_sent),
        "ts_sent": _ms(said.ts_sent) if futures else None,
        "first_id": _last_id(listing.exchange, said.first_id - 1) + (2 if futures else 1),
        "last_id": _last_id(listing.exchange, said.last_id),
        "prev_id": _last_id(listing.exchange, said.first_id - 1),
    }
    _add_levels(columns, message, listing.instrument, said.bids, said.asks, has_orders=False)


def _add_books(columns: Columns, fixed: dict[str, Any], instrument: Instrument, said: _Checked) -> None:
    books = said.books
    message = {
        **fixed,
        "ts_event": _ms(books.ts_sent),
        "first_id": books.seq_id,
        "last_id": books.seq_id,
        "prev_id": books.prev_id,
        "checksum": said.checksum,
        "is_snapshot": books.action == "snapshot",
    }
    _add_levels(columns, message, instrument, books.bids, books.asks, has_orders=True)


def _add_levels(
    columns: Columns,
    message: dict[str, Any],
    instrument: Instrument,
    bids: Sequence[LevelView],
    asks: Sequence[LevelView],
    *,
    has_orders: bool,
) -> None:
    """Add a book message of the stream, a row a level; one without any is one row."""
    message = {"is_snapshot": False, **message, "conn": 1, "is_last": False}
    levels = [*(("bid", view) for view in bids), *(("ask", view) for view in asks)]
    if not levels:
        columns.add(**message | {"is_last": True})
    for at, (side, view) in enumerate(levels):
        message |= {"is_last": at == len(levels) - 1, "side": side}
        columns.add(**message, **_level(instrument, view, has_orders=has_orders))


def _add_answer(columns: Columns, fixed: dict[str, Any], listing: _Listing, said: _Answer) -> None:
    message = {
        **fixed,
        "ts_request": said.ts_request,
        "ts_event": None if said.ts_event is None else _ms(said.ts_event),
        "last_id": _last_id(listing.exchange, said.last_id),
        "reason": said.reason,
    }
    for side, views in (("bid", said.bids), ("ask", said.asks)):
        for at, view in enumerate(views):
            level = _level(listing.instrument, view, has_orders=False)
            columns.add(**message, side=side, level=at, **level)


def _level(instrument: Instrument, view: LevelView, *, has_orders: bool) -> dict[str, int]:
    level = {"price": view.px_ticks * instrument.tick_e8, "size": view.qty_lots * instrument.lot_e8}
    return level | {"orders": view.orders} if has_orders else level


def _add_trade(
    columns: Columns, fixed: dict[str, Any], instrument: Instrument, said: Trade | AggTrade | Trades
) -> None:
    row = fixed | {"ts_event": _ms(said.ts_event), "conn": 1, "origin": "stream"}
    if isinstance(said, Trades):
        first = said.last_trade_id - said.fills + 1
        ids = (said.last_trade_id, first, said.last_trade_id)
        row |= {"kind": "agg", "side": said.taker, "seq": said.seq_id, "flags": "0"}
    else:
        row |= {"side": "sell" if said.buyer_is_maker else "buy", "ts_sent": _ms(said.ts_sent)}
        if isinstance(said, Trade):
            ids = (said.trade_id, said.trade_id, said.trade_id)
            row |= {"kind": "trade"}
        else:
            ids = (said.agg_id, said.first_trade_id, said.last_trade_id)
            row |= {"kind": "agg"}
    row |= dict(zip(("trade_id", "first_trade_id", "last_trade_id"), ids, strict=True))
    price, size = said.px_ticks * instrument.tick_e8, said.qty_lots * instrument.lot_e8
    columns.add(**row, price=price, size=size)


def _add_bbo(
    columns: Columns,
    fixed: dict[str, Any],
    listing: _Listing,
    said: BookTicker | BestBidOffer,
    engine_ns: int | None,
) -> None:
    row = fixed | {"conn": 1}
    if isinstance(said, BookTicker):
        sides = {"bid": said.bid, "ask": said.ask}
        row["last_id"] = _last_id(listing.exchange, said.update_id)
        if listing.exchange == "binance-usdm":
            assert engine_ns is not None
            row |= {"ts_event": _ms(engine_ns), "ts_sent": _ms(engine_ns + NS_PER_MS)}
    else:
        sides = {"bid": said.bid[0], "ask": said.ask[0]}
        row |= {"last_id": said.seq_id, "ts_event": _ms(said.ts_event)}
        row |= {f"{side}_orders": view.orders for side, view in sides.items()}
    for side, view in sides.items():
        row[f"{side}_price"] = view.px_ticks * listing.instrument.tick_e8
        row[f"{side}_size"] = view.qty_lots * listing.instrument.lot_e8
    columns.add(**row)


def _last_id(exchange: str, update_id: int) -> int:
    return update_id * _USDM_IDS if exchange == "binance-usdm" else update_id


def _ms(ts_ns: int) -> int:
    """Return a time as the venues tell it: in whole milliseconds."""
    return ts_ns // NS_PER_MS * NS_PER_MS
