"""The kernel that reads plain lines of Binance: which it takes, and that it decides as the machines do."""

from __future__ import annotations

from unittest.mock import patch

from mmdata.datasets.chain import CHAINS, PREVIOUS, RANGE
from mmdata.recorder.capture import format_frame, parse_line
from mmdata.recorder.ingest import _PLAIN, Ingest
from mmdata.recorder.merge import chain_name
from tests.builders import NOON, SESSION
from tests.plain import KINDS, NOWHERE, capture, imported, ingested, message, published, same


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
            ingest = Ingest(NOWHERE, "binance", SESSION, {})
            if plain:
                ingest.take_lines(b"\n".join([*lines, b""]), 0, lambda *line: None, is_tagged=True)
            else:
                for number, line in enumerate(lines):
                    ingest.take(parse_line(number, line))
            merge = ingest._merge.of(chain_name("depth", "BTCUSDT"))
            assert merge is not None
            states.append(merge.state())
    assert states[0] == states[1]


def test_lines_are_counted_on_their_dates_whoever_reads_them() -> None:
    day_ns = 86_400 * 10**9
    frames = capture([("depth", 1, 0)] * 6, ["BTCUSDT"], usdm=False)
    stamps = [NOON, NOON, NOON + day_ns, NOON + day_ns, NOON, NOON]
    lines = [
        format_frame(stamp, conn, text, is_text=True)[:-1]
        for stamp, (conn, text) in zip(stamps, frames, strict=True)
    ]
    told = []
    for plain in (True, False):
        with published([]):
            ingest = Ingest(NOWHERE, "binance", SESSION, {}, dry=True)
            if plain:
                ingest.take_lines(b"\n".join([*lines, b""]), 0, lambda *line: None, is_tagged=True)
            else:
                for number, line in enumerate(lines):
                    ingest.take(parse_line(number, line))
            ingest.flush()
            told.append(ingest.account(0))
    assert told[0] == told[1]
    assert [own.lines.decoded for _, own in sorted(told[0].days.items())] == [4, 2]


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


def test_more_connections_than_the_kernel_knows_are_merged_alike() -> None:
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


def test_an_import_ends_at_the_newest_stamp_whoever_has_read_its_line() -> None:
    lines = [
        b"1795262400000000001 " + BASE,
        b"1795262400000000002 " + ODD["white space"],
        b"damaged",
        b"damaged, too",
    ]
    plain = imported("binance", lines, plain=True)
    assert plain == imported("binance", lines, plain=False)
    *_, noted = [rows for partition, _, _, rows in plain[1] if partition.table == "events"]
    assert noted["kind"][-1].as_py() == "session_end"
    assert noted["ts_recv"][-1].value == 1795262400000000002
