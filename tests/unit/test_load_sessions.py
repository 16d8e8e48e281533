"""A recording loaded a session at a time is the one loaded at once, in memory that sessions do not add to."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets import column_cache, compact
from mmdata.datasets._kernel import Columns
from mmdata.datasets.column_cache import COLUMN_CACHE, LIMIT
from mmdata.datasets.errors import DatasetError, ReplacedError, UsageError
from mmdata.datasets.grid import LOT, TICK, find_unit
from mmdata.datasets.layout import Partition, date_name, list_parts, part_name
from mmdata.datasets.loading import load_market, load_sessions
from mmdata.datasets.market import (
    BBO,
    DEPTH,
    EVENTS,
    TRADES,
    Grid,
    Market,
    chain_of,
    cut_columns,
    first_late,
    holes_of,
    is_gap,
    messages,
    quotes_of,
    read_instruments,
    read_rows,
    read_snapshots,
    session_order,
    single_trades,
    trades_of,
)
from mmdata.datasets.schema import arrow_schema
from tests.recordings import BEFORE_MIDNIGHT, STEPS, Recording

EXCHANGE, SYMBOL = "binance", "BTCUSDT"
MS = 1_000_000
ARRIVALS = ("trades", "quotes", "trade_holes")


def at_once(root: Path, end: int | None = None) -> Market:
    """Return a recording as it is when all rows are read, put in order and counted together."""
    last_date = "9999" if end is None else date_name(end - 1)
    tables = {
        table: [
            part
            for part in list_parts(root, table, exchange=EXCHANGE, symbol=SYMBOL)
            if part.partition.date <= last_date
        ]
        for table in ("depth", "snapshots", "events", "trades", "bbo", "instruments")
    }
    sessions = session_order(tables)
    depth = read_rows("depth", tables["depth"], DEPTH)
    snapshots = read_snapshots(tables["snapshots"])
    trades = read_rows("trades", tables["trades"], TRADES)
    bbo = read_rows("bbo", tables["bbo"], BBO)
    events = read_rows("events", tables["events"], EVENTS)
    gaps = events.filter(is_gap(events))
    instruments = read_instruments(tables["instruments"], sessions)
    grid = Grid(
        find_unit(TICK, instruments, [*_columns("price", depth, snapshots, trades, bbo)]),
        find_unit(LOT, instruments, [*_columns("size", depth, snapshots, trades, bbo)]),
    )
    of_depth, of_trades = (gaps.filter(pc.equal(gaps["channel"], name)) for name in ("depth", "trades"))
    columns, order, ts_recv, ts_event = messages(
        depth, snapshots, of_depth, sessions, range(len(sessions)), grid
    )
    market = Market(
        exchange=EXCHANGE,
        symbol=SYMBOL,
        chain=chain_of(EXCHANGE),
        tick_size=grid.tick.size,
        lot_size=grid.lot.size,
        tick_source=grid.tick.source,
        sessions=tuple(sessions),
        columns=columns,
        order=order,
        ts_recv=ts_recv,
        ts_event=ts_event,
        trades=trades_of(trades, sessions, grid, single_trades(trades, sessions)),
        lot_source=grid.lot.source,
        quotes=quotes_of(bbo, sessions, grid),
        trade_holes=holes_of(of_trades, sessions),
        instruments=instruments,
    )
    return market if end is None else _before(market, end)


def _columns(ending: str, *tables: pa.Table) -> list[pa.ChunkedArray]:
    return [table[name] for table in tables for name in table.column_names if name.endswith(ending)]


def _before(market: Market, end: int) -> Market:
    n = first_late(market.ts_recv, end)
    cut = {}
    for name in ARRIVALS:
        own = getattr(market, name)
        until = first_late(own.ts_recv, end)
        cut[name] = type(own)(**{f.name: getattr(own, f.name)[:until] for f in dataclasses.fields(own)})
    return dataclasses.replace(
        market,
        columns=cut_columns(market.columns, 0, n),
        order=market.order[:n],
        ts_recv=market.ts_recv[:n],
        ts_event=market.ts_event[:n],
        instruments=tuple(row for row in market.instruments if row.ts_recv < end),
        more=n < len(market.order) or len(cut["trades"].order) < len(market.trades.order),
        **cut,
    )


def joined(parts: list[Market]) -> Market:
    """Return the market that the arrays of ``parts`` make one after the other; all else must be the same."""
    assert not any(part.more for part in parts[:-1])
    told = ("exchange", "symbol", "chain", "tick_size", "lot_size", "tick_source", "lot_source")
    for at, part in enumerate(parts):
        assert all(
            getattr(part, name) == getattr(parts[0], name) for name in (*told, "sessions", "instruments")
        )
        assert [*part.own_sessions] == [at]
        assert part.columns.start[0] == 0
    levels = np.cumsum([0] + [part.columns.start[-1] for part in parts])
    start = [part.columns.start[1:] + first for part, first in zip(parts, levels[:-1], strict=True)]
    columns = {
        name: np.concatenate([getattr(part.columns, name) for part in parts])
        for name in Columns._fields
        if name != "start"
    }
    arrivals: dict[str, Any] = {
        name: type(getattr(parts[0], name))(
            *(
                np.concatenate([getattr(getattr(part, name), f.name) for part in parts])
                for f in dataclasses.fields(getattr(parts[0], name))
            )
        )
        for name in ARRIVALS
    }
    return dataclasses.replace(
        parts[-1],
        alone=None,
        columns=Columns(start=np.concatenate([np.zeros(1, np.int64), *start]), **columns),
        order=np.concatenate([part.order for part in parts]),
        ts_recv=np.concatenate([part.ts_recv for part in parts]),
        ts_event=np.concatenate([part.ts_event for part in parts]),
        **arrivals,
    )


def plain(value: Any) -> Any:
    """Return a market, or a part of it, as what can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if isinstance(value, Columns):
        return {name: plain(array) for name, array in value._asdict().items()}
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [plain(one) for one in value] if isinstance(value, tuple) else value


def in_sessions(root: Path, end: int | None = None) -> list[Market]:
    return [*load_sessions(root, EXCHANGE, SYMBOL, end=end)]


def check(root: Path, end: int | None = None) -> Market:
    """Compare the three ways to load; return the whole."""
    whole = at_once(root, end)
    expected = plain(whole)
    parts = in_sessions(root, end)
    assert len(parts) == len(whole.sessions)
    for at, part in enumerate(parts):
        places = [part.order, *(getattr(part, name).order for name in ARRIVALS)]
        assert all((part.session_of(own) == at).all() for own in places)
    assert plain(joined(parts)) == expected
    assert plain(load_market(root, EXCHANGE, SYMBOL, end=end)) == expected
    return whole


_TRADES = st.tuples(
    st.just("trade"),
    st.tuples(
        st.integers(1, 6),
        st.sampled_from(["buy", "sell"]),
        st.integers(1, 9),
        st.integers(0, 3),
        st.sampled_from(["trade", "agg", "block"]),
        st.sampled_from([0, 0, 1]),
    ),
)
_QUOTES = st.tuples(st.just("quote"), st.tuples(*[st.one_of(st.none(), st.integers(1, 9))] * 2))
_TICKS = st.sampled_from(["0.25", "0.5", "0.1", "7"])
_INSTRUMENTS = st.tuples(
    st.just("instrument"), st.tuples(_TICKS, _TICKS, st.sampled_from(["venue", "user", "derived"]))
)
_HOLES = st.tuples(st.just("trade_hole"), st.just(()))
_SPECIAL = st.lists(st.one_of(_TRADES, _TRADES, _QUOTES, _INSTRUMENTS, _HOLES), max_size=12)
_UNITS = st.sampled_from(["0.25", "0.5", "0.75", "0.001", "0.000000000003", "100"])
RUNS = st.lists(
    st.tuples(st.integers(-15_000, 15_000), _UNITS, _UNITS, STEPS, _SPECIAL), min_size=1, max_size=3
)
"""Recorders that may run at once: when each starts (ms), tick and lot of what it sees, what it receives."""


def record(root: Path, runs: list[Any]) -> None:
    for at, (offset, tick, lot, steps, special) in enumerate(runs):
        recording = Recording(
            root,
            tick=Decimal(tick),
            lot=Decimal(lot),
            now=BEFORE_MIDNIGHT + offset * MS,
            _sessions=60 * (len(runs) - at),  # names that say nothing of their order
        )
        recording.diff([("bid", 1, 1)])
        # What is special comes between the steps, as evenly as it goes.
        for step in range(max(len(steps), len(special))):
            for what, told in special[step : step + 1]:
                _play_special(recording, what, told)
            recording.play(steps[step : step + 1])


def _play_special(recording: Recording, what: str, told: Any) -> None:
    match what:
        case "trade":
            number, side, price, size, kind, again = told
            recording.trade(number, side, price, size, kind=kind, ts_event=BEFORE_MIDNIGHT + again)
        case "quote":
            recording.quote(*told)
        case "instrument":
            recording.instrument(Decimal(told[0]), Decimal(told[1]), told[2])
        case "trade_hole":
            recording.event("gap", cause="missing")
            recording._rows[next(key for key in reversed(recording._rows) if key[0] == "events")][-1][
                "channel"
            ] = "trades"


@given(RUNS, st.one_of(st.none(), st.integers(-15_000, 40_000)), st.booleans(), st.booleans())
@settings(deadline=None, max_examples=40)
def test_sessions_in_a_row_are_the_recording_read_at_once(
    runs: list[Any], end: int | None, is_compacted: bool, is_kept: bool
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(column_cache, "LEAST_BYTES", 0 if is_kept else 1 << 40)
        root = Path(folder)
        record(root, runs)
        check(root)
        if is_compacted:
            compact(root)
        first = BEFORE_MIDNIGHT + min(run[0] for run in runs) * MS
        check(root, None if end is None else max(first + 1, BEFORE_MIDNIGHT + end * MS))
        check(root)


# Situations, one at a time.


@pytest.fixture(params=["kept", "decoded"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(column_cache, "LEAST_BYTES", 0 if request.param == "kept" else 1 << 40)
    monkeypatch.delenv(LIMIT, raising=False)
    return tmp_path


def recorder(root: Path, number: int, seconds: int, **how: Any) -> Recording:
    """Return the recorder of session ``number``, with a book that it received after so many seconds."""
    recording = Recording(root, _sessions=number, now=BEFORE_MIDNIGHT + seconds * 1000 * MS, **how)
    recording.diff([("bid", 3, 2)])
    recording.snapshot()
    return recording


def test_a_trade_that_several_sessions_tell_is_in_the_first(root: Path) -> None:
    for number, ids in enumerate(([1, 2, 3], [3, 4], [2, 5], [1, 5, 6])):
        recording = recorder(root, number, number)
        for trade_id in ids:
            recording.trade(trade_id, "buy", 1, 1, ts_event=BEFORE_MIDNIGHT + trade_id)
        recording.part()
    assert [part.trades.trade_id.tolist() for part in in_sessions(root)] == [[1, 2, 3], [4], [5], [6]]
    check(root)


def test_no_trades_are_held_that_no_later_session_can_tell_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdata.datasets import loading

    held: list[int] = []
    without = loading._ToldBefore.without

    def noted(own: Any, *args: Any) -> Any:
        found = without(own, *args)
        held.append(sum(len(number) for number, _ in own._held.values()))
        return found

    monkeypatch.setattr(loading._ToldBefore, "without", noted)
    for number, ids in enumerate((range(10), range(10, 20), range(18, 25), range(30, 40))):
        recording = recorder(root, number, number)
        for trade_id in ids:
            recording.trade(trade_id, "buy", 1, 1, ts_event=BEFORE_MIDNIGHT + trade_id)
        recording.part()
    assert sum(len(part.trades.order) for part in in_sessions(root)) == 35
    assert held == [0, 2, 0, 0]


def test_trades_in_one_session_alone_and_a_session_over_midnight(root: Path) -> None:
    recorder(root, 0, 0).part()
    over = recorder(root, 1, 5)
    over.trade(1, "sell", 1, 1)
    over.now += 10_000 * MS
    over.trade(2, "sell", 1, 1)
    over.diff([("bid", 3, 1)])
    over.part()
    recorder(root, 2, 20).part()
    whole = check(root)
    assert len({part.partition.date for part in list_parts(root, "depth") if "0801" in part.session}) == 2
    assert [len(part.trades.order) for part in in_sessions(root)] == [0, 2, 0]
    for ms in range(0, 25_000, 1_000):
        check(root, BEFORE_MIDNIGHT + ms * MS + 1)
    assert compact(root).exit_code() == 0
    assert plain(check(root)) == plain(whole)


def test_what_comes_after_the_end_is_cut_in_later_sessions_too(root: Path) -> None:
    recorder(root, 0, 5).part()
    late = recorder(root, 1, 6)
    late.now = BEFORE_MIDNIGHT + 5_200 * MS  # the clock stepped back
    late.diff([("bid", 3, 1)])
    late.trade(1, "buy", 1, 1)
    late.part()
    end = BEFORE_MIDNIGHT + 5_500 * MS
    first, second = in_sessions(root, end)
    assert [len(first.order), len(second.order)] == [3, 1] == [3, len(check(root, end).order) - 3]
    assert (first.more, second.more) == (False, True)
    assert second.trades.trade_id.tolist() == [1]


def test_a_later_session_off_the_told_tick_makes_the_unit_of_all_finer(root: Path) -> None:
    told = recorder(root, 0, 0)
    told.instrument(told.tick, told.lot)
    told.quote(3, None)
    told.trade(1, "buy", 1, 1)
    told.part()
    assert (check(root).tick_size, check(root).tick_source) == (Decimal("0.25"), "venue")
    finer = recorder(root, 1, 1, tick=Decimal("0.1"))
    finer.part()
    whole = check(root)
    assert (whole.tick_size, whole.tick_source, whole.lot_source) == (Decimal("0.05"), "derived", "venue")
    first, second = in_sessions(root)
    assert {*first.columns.price.tolist()} == {15}  # 3 ticks of 0.25
    assert {*second.columns.price.tolist()} == {6}
    assert first.quotes.ask_price.tolist() == [-(2**63)]


def test_zeros_tell_nothing_of_a_unit(root: Path) -> None:
    empty = Recording(root)
    empty.trade(1, "buy", 1, 0)
    empty.part()
    recorder(root, 1, 1, lot=Decimal(5)).part()
    recorder(root, 2, 2, lot=Decimal("0.5")).part()
    assert check(root).lot_size == Decimal(1)
    assert at_once(root).lot_source == "derived"


def test_a_value_beyond_64_bits_in_the_units_of_all_is_an_error(root: Path) -> None:
    recorder(root, 0, 0, tick=Decimal(10**9)).part()
    recorder(root, 1, 1, tick=Decimal("1E-18")).part()
    for load in (load_market, lambda *args: [*load_sessions(*args)]):
        with pytest.raises(DatasetError, match=r"a value of 10{27} units of 3E-18 does not fit 64 bits"):
            load(root, EXCHANGE, SYMBOL)


def test_a_symbol_that_is_not_there_is_said_with_the_first_session(root: Path) -> None:
    recorder(root, 0, 0).part()
    with pytest.raises(UsageError, match="no depth and no trades of binance ETHUSDT; it holds binance BTC"):
        next(load_sessions(root, EXCHANGE, "ETHUSDT"))


def test_whoever_stops_early_leaves_nothing_behind(root: Path) -> None:
    for number in range(4):
        recorder(root, number, number).part()
    sessions = load_sessions(root, EXCHANGE, SYMBOL)
    assert next(sessions).order[0] == 0
    sessions.close()  # type: ignore[attr-defined]
    check(root)


def test_a_day_that_is_compacted_meanwhile_has_the_same_sessions(root: Path) -> None:
    for number in range(5):
        recorder(root, number, number).part()
    expected = plain(at_once(root))
    sessions = load_sessions(root, EXCHANGE, SYMBOL)
    first = next(sessions)
    assert compact(root).exit_code() == 0
    assert plain(joined([first, *sessions])) == expected


def test_a_session_that_became_another_meanwhile_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "0")
    for number in range(5):
        recorder(tmp_path, number, number).part()
    sessions = load_sessions(tmp_path, EXCHANGE, SYMBOL)
    next(sessions)
    more = recorder(tmp_path, 3, 3, tick=Decimal("0.1"), _part=9)
    more.part()
    compact(tmp_path)
    with pytest.raises(ReplacedError, match=r"session 20261121T080300Z-abcdef of binance BTCUSDT is no lon"):
        list(sessions)


# Memory.


_PEAK = """
import re, sys
from pathlib import Path
from mmdata.datasets.loading import load_market, load_sessions
if sys.argv[2] == "sessions":
    rows = sum(len(part.columns.price) for part in load_sessions(sys.argv[1], "binance", "BTCUSDT"))
elif sys.argv[2] == "whole":
    rows = len(load_market(sys.argv[1], "binance", "BTCUSDT").columns.price)
else:
    rows = 0
print(rows, re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""
ROWS = 300_000


def peak_kib(root: Path, what: str) -> int:
    """Return the most memory that a process had in use which loaded a recording."""
    told = subprocess.run(
        [sys.executable, "-c", _PEAK, str(root), what], capture_output=True, text=True, check=True
    ).stdout
    rows, peak = map(int, told.split())
    assert rows == (0 if what == "nothing" else ROWS * len(list_parts(root, "depth")))
    return peak


def write_sessions(root: Path, first: int, last: int) -> None:
    """Write sessions of many levels each, whose bytes do not compress."""
    draw = np.random.default_rng(1)
    for number in range(first, last):
        session = f"20261121T08{number:02d}00Z-abcdef"
        begun = BEFORE_MIDNIGHT - 3_600_000 * MS + number * 60_000 * MS
        ticks = draw.integers(1, 10_000_000, (2, ROWS))
        given: dict[str, Any] = {
            "session": [session] * ROWS,
            "frame": np.arange(ROWS) // 100,
            "ts_recv": begun + np.arange(ROWS) // 100,
            "first_id": np.arange(ROWS) // 100,
            "conn": np.zeros(ROWS, np.int32),
            "side": ["bid"] * ROWS,
            "price": pa.array(ticks[0]).cast(pa.decimal128(19, 0)),
            "size": pa.array(ticks[1]).cast(pa.decimal128(19, 0)),
            "is_snapshot": np.zeros(ROWS, np.bool_),
            "is_last": np.arange(ROWS) % 100 == 99,
        }
        schema = arrow_schema("depth")
        columns = [
            pa.array(given[f.name]).cast(f.type) if f.name in given else pa.nulls(ROWS, f.type)
            for f in schema
        ]
        partition = Partition("depth", False, EXCHANGE, SYMBOL, "2026-11-21")
        path = root / partition.folder / part_name(begun, session, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns, schema=schema), path)


def test_peak_memory_does_not_grow_with_the_number_of_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded, decoded and kept, mapped: eight sessions take about what two do, and all at once far more."""
    monkeypatch.delenv(LIMIT, raising=False)
    few, many = tmp_path / "few", tmp_path / "many"
    write_sessions(few, 0, 2)
    write_sessions(many, 0, 8)
    nothing = peak_kib(few, "nothing")

    def peaks(what: str) -> tuple[int, int]:
        return peak_kib(few, what) - nothing, peak_kib(many, what) - nothing

    monkeypatch.setenv(LIMIT, "0")
    decoded = peaks("sessions")
    monkeypatch.delenv(LIMIT)
    kept = peaks("sessions")
    assert len([*(many / COLUMN_CACHE).glob("*/*/*/facts.json")]) == 8
    mapped, whole = peaks("sessions"), peaks("whole")
    for two, eight in (decoded, kept, mapped):
        assert eight < 1.5 * two
    assert whole[1] > 2 * whole[0]
