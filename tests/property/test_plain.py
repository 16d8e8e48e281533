"""Lines read many at once against lines read one by one: the same tables, notes and counts of any capture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmdata.datasets.chain import CHAINS, PREVIOUS, RANGE
from mmdata.datasets.layout import Partition
from mmdata.recorder.capture import Event, format_event, format_frame, parse_line
from mmdata.recorder.formats import hftbacktest
from mmdata.recorder.importing import _ForeignReader
from mmdata.recorder.ingest import _PLAIN, Ingest, IngestReport
from mmdata.recorder.merge import chain_name
from tests.builders import NOON, SESSION
from tests.property.test_skim import binance, texts

Published = list[tuple[Partition, int, dict[str, str], pa.Table]]
Steps = list[tuple[str, int, int]]
"""Kind of message, by how much its id goes on, and connection."""

KINDS = ("depth", "depth", "depth", "trade", "aggTrade", "bookTicker")
steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from([1, 1, 1, 1, 1, 1, 0, -1, 2, 5, -40]),
        st.sampled_from([0, 0, 0, 1, 1, 2]),
    ),
    min_size=1,
    max_size=60,
)


def message(kind: str, symbol: str, last: int, before: int, *, usdm: bool) -> bytes:
    """Return a frame of one kind whose id is ``last``; that of the message before it was ``before``."""
    names = {"depth": "depth@100ms"}
    data: dict[str, object] = {"e": kind, "E": 1723161255208, "s": symbol}
    if kind == "depth":
        data |= {"U": before + 1, "u": last}
        if usdm:
            data |= {"T": 1723161255207, "pu": before}
        data |= {"b": [["61737.63", "1.5"]] * (last % 3), "a": [["61738", "0.00000001"]] * (last % 2)}
    elif kind == "bookTicker":
        data |= {"u": last, "b": "1.5", "B": "2", "a": "1.6", "A": "3"}
        data |= {"T": 1723161255207} if usdm else {}
    else:
        data |= {"p": "61737.63", "q": "0.014", "T": 1723161255207, "m": last % 2 == 0}
        data |= {"t": last} if kind == "trade" else {"a": last, "f": 2 * last, "l": 2 * last + 1}
        data |= {"X": "MARKET"} if usdm and kind == "trade" else {"M": True}
    stream = f"{symbol.lower()}@{names.get(kind, kind)}"
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":")).encode()


def capture(told: Steps, symbols: list[str], *, usdm: bool) -> list[tuple[int, bytes]]:
    """Return connection and frame of messages whose ids go on as told."""
    at: dict[tuple[str, str], int] = {}
    found = []
    for number, (kind, step, conn) in enumerate(told):
        symbol = symbols[number % len(symbols)]
        before = at.get((kind, symbol), 100)
        last = before + step
        found.append((conn, message(kind, symbol, last, min(before, last - 1), usdm=usdm)))
        at[kind, symbol] = last if step > -40 else 5
    return found


@contextmanager
def published(found: Published) -> Iterator[None]:
    """Keep what would be published, instead."""

    def publish(
        root: Path, partition: Partition, session: str, n: int, rows: pa.Table, facts: dict[str, str]
    ) -> None:
        found.append((partition, n, facts, rows.combine_chunks()))

    with patch("mmdata.recorder.ingest.publish", publish):
        yield


def ingested(exchange: str, lines: list[bytes], *, plain: bool) -> tuple[IngestReport, Published, int]:
    """Return what ingest says of our capture's lines, what it would publish, and how many lines were strict."""
    found: Published = []
    strict = 0
    with published(found):
        ingest = Ingest(Path("nowhere"), exchange, SESSION, {})

        def take(number: int, text: bytes) -> None:
            nonlocal strict
            strict += 1
            ingest.take(parse_line(number, text))

        if plain:
            text = b"".join(line + b"\n" for line in lines)
            assert ingest.take_lines(text, 7, take, is_tagged=True) == 7 + len(lines)
        else:
            for number, line in enumerate(lines, 7):
                take(number, line)
        ingest.flush()
    ingest.report.check()
    return ingest.report, found, strict


def imported(exchange: str, lines: list[bytes], *, plain: bool) -> tuple[IngestReport, Published, int]:
    """Return what an import says of a foreign capture's lines, what it would publish, and the gaps it noted."""
    found: Published = []
    with published(found), patch("mmdata.recorder.ingest._PLAIN", (exchange,) if plain else ()):
        ingest = Ingest(Path("nowhere"), exchange, SESSION, {})
        reader = _ForeignReader(ingest, exchange, "BTCUSDT", user_grid={})
        number = reader.take_lines(b"".join(line + b"\n" for line in lines), 0, hftbacktest.parse)
        reader.finish(number)
        ingest.flush()
    ingest.report.check()
    return ingest.report, found, reader.gaps


def same(exchange: str, lines: list[bytes]) -> int:
    """Compare both ways of ingest; return how many lines were left to the strict one."""
    report, found, strict = ingested(exchange, lines, plain=True)
    assert (report, found) == ingested(exchange, lines, plain=False)[:2]
    return strict


exchanges = st.sampled_from(["binance", "binance-usdm"])


@given(exchanges, st.lists(binance.flatmap(texts), min_size=1, max_size=4))
@example(
    "binance",
    [b'{"stream":"btcusdt@depth","data":{"E":1,"s":"A","U":1,"u":2,"b":[["1","1"]],"a":[]},"stream":"a@b"}'],
)
@settings(deadline=None, max_examples=60)
def test_tables_of_any_frames_are_those_of_the_strict_reader(exchange: str, payloads: list[bytes]) -> None:
    same(
        exchange,
        [format_frame(NOON + at, 0, text, is_text=True)[:-1] for at, text in enumerate(payloads)],
    )


@given(exchanges, steps, st.sampled_from([["BTCUSDT"], ["BTCUSDT", "ETHUSDT"]]), st.data())
@settings(deadline=None)
def test_messages_enter_as_the_merge_of_the_connections_says(
    exchange: str, told: Steps, symbols: list[str], data: st.DataObject
) -> None:
    lines = [
        format_frame(NOON + at, conn, text, is_text=True)[:-1]
        for at, (conn, text) in enumerate(capture(told, symbols, usdm=exchange == "binance-usdm"))
    ]
    for _ in range(data.draw(st.integers(0, 3))):
        conn = data.draw(st.integers(0, 2))
        event = format_event(NOON, Event("disconnected", conn=conn))[:-1]
        lines.insert(data.draw(st.integers(0, len(lines))), event)
    with patch("mmdata.recorder.ingest._SETTLE_ROWS", data.draw(st.sampled_from([1, 3, 1000]))):
        same(exchange, lines)


@given(exchanges, steps, st.sets(st.integers(0, 60)), st.integers(-1, 60), st.sampled_from([1, 4, 1000]))
@settings(deadline=None, max_examples=60)
def test_chains_of_an_import_are_watched_alike(
    exchange: str, told: Steps, lost: set[int], snapshot: int, settle: int
) -> None:
    frames = capture(told, ["BTCUSDT", "BTCUSDT", "ETHUSDT"], usdm=exchange == "binance-usdm")
    lines = [b"%d %s" % (NOON + at, text) for at, (_, text) in enumerate(frames) if at not in lost]
    if snapshot >= 0:
        book = b'{"lastUpdateId":%d,"bids":[["1.5","2"]],"asks":[]}' % (100 + snapshot // 8)
        lines.insert(min(snapshot, len(lines)), b"%d %s" % (NOON, book))
    with patch("mmdata.recorder.ingest._SETTLE_ROWS", settle):
        assert imported(exchange, lines, plain=True) == imported(exchange, lines, plain=False)


def test_frames_as_the_venue_writes_them_are_never_left_to_the_strict_reader() -> None:
    told = [(kind, 1, 0) for kind in KINDS * 5]
    for exchange in ("binance", "binance-usdm"):
        frames = capture(told, ["BTCUSDT", "ETHUSDT"], usdm=exchange == "binance-usdm")
        lines = [format_frame(NOON, conn, text, is_text=True)[:-1] for conn, text in frames]
        assert same(exchange, lines) == 0


def test_a_second_connection_is_merged_without_the_strict_reader() -> None:
    frames = capture([("depth", 1, 0)] * 20, ["BTCUSDT"], usdm=False)
    lines = [format_frame(NOON, conn, text, is_text=True)[:-1] for _, text in frames for conn in (0, 1)]
    assert same("binance", lines) == 0
    report, *_ = ingested("binance", lines, plain=True)
    assert (report.decoded, report.repeats) == (40, 20)


def test_a_kernels_state_is_the_machines() -> None:
    """What comes after a part goes on from it, whoever has read that."""
    frames = capture([("depth", 1, conn) for conn in (0, 1, 0, 1, 1, 0)], ["BTCUSDT"], usdm=False)
    lines = [format_frame(NOON, conn, text, is_text=True)[:-1] for conn, text in frames]
    states = []
    for plain in (True, False):
        with published([]):
            ingest = Ingest(Path("nowhere"), "binance", SESSION, {})
            if plain:
                ingest.take_lines(b"\n".join([*lines, b""]), 0, lambda *line: None, is_tagged=True)
            else:
                for number, line in enumerate(lines):
                    ingest.take(parse_line(number, line))
            merge = ingest._merge.of(chain_name("depth", "BTCUSDT"))
            assert merge is not None
            states.append(merge.state())
    assert states[0] == states[1]


BASE = message("depth", "BTCUSDT", 105, 100, usdm=False)
TRADE = message("trade", "BTCUSDT", 7, 6, usdm=False)
ODD = {
    "white space": BASE.replace(b":", b": "),
    "escaped key": BASE.replace(b'"U"', b'"\\u0055"'),
    "escaped symbol": BASE.replace(b"BTC", b"\\u0042TC"),
    "key twice": BASE.replace(b'"E":', b'"E":1,"E":'),
    "exponent": BASE.replace(b'"1"', b'"1e0"').replace(b"61738", b"6e4"),
    "nine decimals": BASE.replace(b"0.00000001", b"0.000000001"),
    "eleven digits": BASE.replace(b"61738", b"12345678901"),
    "id of 19 digits": BASE.replace(b'"u":105', b'"u":1234567890123456789'),
    "id with a leading zero": BASE.replace(b'"u":105', b'"u":0105'),
    "id as text": BASE.replace(b'"u":105', b'"u":"105"'),
    "negative id": BASE.replace(b'"U":101', b'"U":-101'),
    "time in ns": BASE.replace(b"1723161255208", b"1723161255208000000"),
    "no levels key": BASE.replace(b'"b":', b'"c":'),
    "asks first": BASE.replace(b'"b":', b'"x":').replace(b'"a":', b'"b":').replace(b'"x":', b'"a":'),
    "nested unknown key": BASE.replace(b'"e":"depth"', b'"e":{"x":[1]}'),
    "unknown float": BASE.replace(b'"e":"depth"', b'"e":1.5'),
    "unknown negative": BASE.replace(b'"e":"depth"', b'"e":-1'),
    "no symbol": BASE.replace(b'"s":"BTCUSDT"', b'"s":""'),
    "null time": BASE.replace(b'"e":"depth"', b'"T":null'),
    "something behind": BASE + b" ",
    "cut": BASE[:-1],
    "carriage return": BASE + b"\r",
    "more in the wrapper": BASE[:-1] + b',"x":1}',
    "unknown stream": BASE.replace(b"@depth@100ms", b"@kline_1m"),
    "price of a trade": TRADE.replace(b"61737.63", b"+1"),
    "maker as text": TRADE.replace(b'"m":false', b'"m":"false"'),
    "no maker": TRADE.replace(b'"m":false', b'"n":false'),
    "null flag": TRADE.replace(b'"M":true', b'"X":null'),
    "control reply": b'{"result":null,"id":1}',
    "bare frame": BASE[len(b'{"stream":"btcusdt@depth@100ms","data":') : -1],
}


def test_what_is_not_plain_is_left_to_the_strict_reader() -> None:
    for what, text in ODD.items():
        assert same("binance", [format_frame(NOON, 0, text, is_text=True)[:-1]]) == 1, what


def test_lines_of_another_form_are_left_to_the_strict_reader() -> None:
    for line in (
        b"0 0 " + BASE,
        b"1795262400000000000 b0 " + BASE,
        b"1795262400000000000  0 " + BASE,
        b"9223372036854775808 0 " + BASE,
        b"17952624000000000000 0 " + BASE,
        b"1795262400000000000 1234567890 " + BASE,
        b"1795262400000000000 s0 " + BASE,
        b"",
        b"0",
    ):
        assert same("binance", [line]) == 1, line


def test_keys_that_no_table_needs_are_passed_over() -> None:
    for more in (b'"zz":1', b'"zz":"x"', b'"zz":true', b'"zz":null', b'"z":false', b'"":0'):
        text = TRADE.replace(b'"m":', more + b',"m":')
        assert same("binance", [format_frame(NOON, 0, text, is_text=True)[:-1]]) == 0, more


def test_machines_and_kernel_part_ways_nowhere_when_there_are_more_connections_than_the_kernel_knows() -> (
    None
):
    frames = capture([("depth", 1, conn % 20) for conn in range(60)], ["BTCUSDT"], usdm=False)
    same("binance", [format_frame(NOON, conn, text, is_text=True)[:-1] for conn, text in frames])


def test_a_message_with_more_levels_than_there_is_room_for_is_left_to_the_strict_reader() -> None:
    levels = b",".join([b'["1.5","2"]'] * 20)
    long = BASE.replace(b'"b":[]', b'"b":[%s]' % levels)
    assert long != BASE
    lines = [format_frame(NOON, 0, text, is_text=True)[:-1] for text in (BASE, long, BASE)]
    with (
        patch("mmdata.recorder.ingest._SETTLE_ROWS", 4),
        patch("mmdata.recorder.plain._LONGEST_MESSAGE", 4),
    ):
        assert same("binance", lines) == 1


def test_rule_of_each_plain_exchange_is_one_that_the_kernel_knows() -> None:
    assert {CHAINS[exchange].rule for exchange in _PLAIN} <= {RANGE, PREVIOUS}
