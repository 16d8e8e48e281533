"""Captures: their lines, what is learnt from them, and how they are played. Time is a number."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmdata.datasets.errors import DatasetError, DiskError
from mmdata.sandbox.binance.rest import BinanceRest
from mmdata.sandbox.captures import Frame, RestBody, capture_files, read_capture
from mmdata.sandbox.okx.rest import OkxRest
from mmdata.sandbox.playback import Playback, Recording, played_frame, read_recordings
from mmdata.sandbox.wire import Style

_S = 1_000_000_000
_NOW = 1_795_600_000 * _S
_HEADER = '# mmdata-capture 1 {"exchange":"binance"}\n'


def _trade(n: int, symbol: str = "btcusdt", price: str = "61837.63000000") -> str:
    return (
        f'{{"stream":"{symbol}@trade","data":{{"e":"trade","E":{n},"s":"{symbol.upper()}","t":{n},'
        f'"p":"{price}","q":"0.02000000","T":{n},"m":true,"M":true}}}}'
    )


def _diff(first: int, last: int) -> str:
    return (
        f'{{"stream":"btcusdt@depth@100ms","data":{{"e":"depthUpdate","E":1,"s":"BTCUSDT","U":{first},'
        f'"u":{last},"b":[["61837.62000000","1.50000000"]],"a":[["61837.65000000","0.25000000"]]}}}}'
    )


_SNAPSHOT = '{"lastUpdateId":%d,"bids":[["61837.59000000","3.75000000"]],"asks":[]}'


def _rest(url: str, body: str, status: int = 200) -> str:
    return json.dumps({"t0": 1, "url": url, "status": status, "headers": {}, "body": body})


def _written(path: Path, lines: list[str]) -> Path:
    data = "".join(f"{line}\n" for line in lines).encode()
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(data))
    elif path.name.endswith(".zst"):
        with pa.CompressedOutputStream(str(path), "zstd") as file:
            file.write(data)
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["000001.cap", "000001.open", "000001.cap.zst"])
def test_our_capture_yields_frames_and_rest_bodies_plain_open_or_packed(tmp_path: Path, name: str) -> None:
    packed = base64.b64encode(b"text with a\ttab").decode()
    path = _written(
        tmp_path / name,
        [
            _HEADER.strip(),
            f"10 1 {_trade(1)}",
            '11 s1 {"method":"SUBSCRIBE"}',
            f"12 r1 {_rest('https://h/api/v3/depth?symbol=BTCUSDT', 'BODY')}",
            f"13 r2 {_rest('https://h/api/v3/depth?symbol=BTCUSDT', 'NO', status=500)}",
            '14 e {"kind":"gap"}',
            f"15 2b {packed}",
        ],
    )
    assert list(read_capture(path)) == [
        Frame(10, _trade(1)),
        RestBody(12, "https://h/api/v3/depth?symbol=BTCUSDT", "BODY"),
        Frame(15, "text with a\ttab"),
    ]


def test_collectors_capture_yields_frames_and_its_bare_snapshot(tmp_path: Path) -> None:
    path = _written(tmp_path / "btcusdt.gz", [f"10 {_trade(1)}", f"11 {_SNAPSHOT % 5}"])
    assert list(read_capture(path)) == [Frame(10, _trade(1)), RestBody(11, None, _SNAPSHOT % 5)]


def test_last_line_without_its_end_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "000001.open"
    path.write_text(f"{_HEADER}10 1 {_trade(1)}\n11 1 {_trade(2)[:40]}")
    assert list(read_capture(path)) == [Frame(10, _trade(1))]


@pytest.mark.parametrize("line", ["hello", "10 x1 {}", "10 r1 {}", "ten {}"])
def test_line_of_no_format_is_named_by_its_number(tmp_path: Path, line: str) -> None:
    path = _written(tmp_path / "a.cap", [_HEADER.strip(), line])
    with pytest.raises(DatasetError, match="line 2"):
        list(read_capture(path))


def test_capture_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="cannot be read"):
        list(read_capture(tmp_path / "nowhere.cap"))
    cut = _written(tmp_path / "cut.gz", [f"10 {_trade(1)}"] * 50)
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(DiskError, match=r"cut\.gz"):
        list(read_capture(cut))


def test_folder_of_segments_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("000002.open", "000001.cap.zst", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in capture_files(tmp_path)] == ["000001.cap.zst", "000002.open"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no capture"):
        capture_files(tmp_path / "empty")


@pytest.mark.parametrize(
    "text",
    ["pong", "{", '{"result":null,"id":1}', '{"event":"subscribe","arg":{"channel":"books","instId":"A-B"}}'],
)
def test_frame_that_belongs_to_no_subscription_is_not_played(text: str) -> None:
    assert played_frame(text) is None


def test_ids_of_played_diffs_are_known_and_other_frames_have_none() -> None:
    def ids(text: str) -> tuple[int, int] | None:
        frame = played_frame(text)
        assert frame is not None
        return frame.book_ids

    okx = '{"arg":{"channel":"books","instId":"A-B"},"action":"%s","data":[{"seqId":%d,"prevSeqId":%d}]}'
    assert ids(_diff(5, 9)) == (5, 9)
    assert ids(_trade(1)) is None
    assert ids(okx % ("update", 8, 7)) == (7, 8)
    assert ids(okx % ("update", 8, 8)) is None
    assert ids(okx % ("snapshot", 8, -1)) is None
    assert ids('{"arg":{"channel":"trades","instId":"A-B"},"data":[{"seqId":3}]}') is None


def test_bare_connection_gets_the_bytes_that_lay_in_the_wrapper() -> None:
    frame = played_frame('{"stream": "a@trade", "data": {"t":  1, "p":"1.0"} }')
    assert frame is not None
    assert frame.render(Style()) == '{"stream": "a@trade", "data": {"t":  1, "p":"1.0"} }'
    assert frame.render(Style(combined=False)) == '{"t":  1, "p":"1.0"}'


def _playback(tmp_path: Path, pace: float, stamps: list[int]) -> Playback:
    path = _written(tmp_path / "a.cap", [f"{ts} 1 {_trade(n)}" for n, ts in enumerate(stamps)])
    return Playback(read_recordings([path])["binance"], pace)


def _sent(playback: Playback, now_ns: int) -> list[int]:
    return [json.loads(m.render(Style(combined=False)))["t"] for m in playback.due(now_ns)]


def test_playback_waits_for_the_first_subscription_and_keeps_the_recorded_pace(tmp_path: Path) -> None:
    playback = _playback(tmp_path, 1, [5 * _S, 6 * _S, 6 * _S, 8 * _S])
    assert _sent(playback, _NOW + 100 * _S) == []
    playback.greet("anything", _NOW + 100 * _S)
    playback.greet("another", _NOW + 101 * _S)
    assert _sent(playback, _NOW + 100 * _S) == [0]
    assert _sent(playback, _NOW + 101 * _S - 1) == []
    assert _sent(playback, _NOW + 101 * _S) == [1, 2]
    assert _sent(playback, _NOW + 102 * _S) == []
    assert not playback.finished
    assert _sent(playback, _NOW + 103 * _S) == [3]
    assert _sent(playback, _NOW + 999 * _S) == []
    assert playback.finished


def test_pace_divides_the_recorded_times(tmp_path: Path) -> None:
    playback = _playback(tmp_path, 4, [0, 4 * _S, 8 * _S])
    playback.greet("anything", _NOW)
    assert _sent(playback, _NOW + _S - 1) == [0]
    assert _sent(playback, _NOW + _S) == [1]
    assert _sent(playback, _NOW + 2 * _S) == [2]


def test_frame_whose_clock_stepped_back_follows_the_one_before_it(tmp_path: Path) -> None:
    playback = _playback(tmp_path, 1, [5 * _S, 7 * _S, 6 * _S])
    playback.greet("anything", _NOW)
    assert _sent(playback, _NOW + _S) == [0]
    assert _sent(playback, _NOW + 2 * _S) == [1, 2]


def test_one_pass_sends_a_bounded_number_of_frames_and_loses_none(tmp_path: Path) -> None:
    playback = _playback(tmp_path, 1000, list(range(1300)))
    playback.greet("anything", _NOW)
    passes = [_sent(playback, _NOW + _S) for _ in range(4)]
    assert [len(sent) for sent in passes] == [512, 512, 276, 0]
    assert [n for sent in passes for n in sent] == list(range(1300))


def test_depth_is_the_last_snapshot_passed_and_before_any_the_first(tmp_path: Path) -> None:
    url = "https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000"
    lines = [
        f"{1 * _S} 1 {_trade(1)}",
        f"{2 * _S} r1 {_rest(url, _SNAPSHOT % 20)}",
        f"{3 * _S} 1 {_trade(2)}",
        f"{4 * _S} r2 {_rest(url, _SNAPSHOT % 40)}",
        f"{5 * _S} 1 {_trade(3)}",
    ]
    playback = Playback(read_recordings([_written(tmp_path / "a.cap", lines)])["binance"], 1)
    playback.greet("anything", _NOW)
    seen = []
    for second in range(5):
        list(playback.due(_NOW + second * _S))
        answer = BinanceRest(playback).answer("/api/v3/depth?symbol=BTCUSDT", {}, _NOW)
        seen.append(json.loads(answer.body)["lastUpdateId"])
    assert seen == [20, 20, 20, 20, 40]


def test_recorded_exchange_info_is_told_row_by_row_as_it_was(tmp_path: Path) -> None:
    rows = ['{"symbol":"BTCUSDT","odd":  1}', '{"symbol":"ETHUSDT","odd":2}']
    body = f'{{"timezone":"UTC","symbols":[{",".join(rows)}]}}'
    lines = [f"1 1 {_trade(1)}", f"2 r1 {_rest('https://x/api/v3/exchangeInfo', body)}"]
    recording = read_recordings([_written(tmp_path / "a.cap", lines)])["binance"]
    answer = BinanceRest(Playback(recording, 1)).answer("/api/v3/exchangeInfo?symbol=BTCUSDT", {}, _NOW)
    assert f'"symbols":[{rows[0]}]' in answer.body


def _filters(recording: Recording, symbol: str) -> tuple[str, str]:
    row: dict[str, Any] = json.loads(recording.rows[symbol])
    filters = {entry["filterType"]: entry for entry in row["filters"]}
    return filters["PRICE_FILTER"]["tickSize"], filters["LOT_SIZE"]["stepSize"]


def test_steps_that_no_answer_tells_are_the_greatest_common_divisors_seen(tmp_path: Path) -> None:
    lines = [f"1 {_diff(1, 2)}", f"2 {_SNAPSHOT % 5}"]
    recording = read_recordings([_written(tmp_path / "a.gz", lines)])["binance"]
    assert _filters(recording, "BTCUSDT") == ("0.03000000", "0.25000000")
    # a trade off that grid narrows it
    lines.append(f"3 {_trade(1)}")
    recording = read_recordings([_written(tmp_path / "b.gz", lines)])["binance"]
    assert _filters(recording, "BTCUSDT") == ("0.01000000", "0.01000000")


def test_order_counts_of_okx_are_not_taken_for_prices(tmp_path: Path) -> None:
    text = (
        '{"arg":{"channel":"books","instId":"BTC-USDT"},"action":"snapshot","data":[{"asks":'
        '[["30243.5","1.4","0","6"]],"bids":[["30240","0.7","0","7"]],"ts":"1","seqId":1,"prevSeqId":-1}]}'
    )
    recording = read_recordings([_written(tmp_path / "a.cap", [f"1 1 {text}"])])["okx"]
    row = json.loads(recording.rows["BTC-USDT"])
    assert (row["tickSz"], row["lotSz"], row["instType"]) == ("3.5", "0.7", "SPOT")
    assert (row["baseCcy"], row["quoteCcy"]) == ("BTC", "USDT")


def test_okx_answers_come_from_the_capture_and_without_a_snapshot_say_so(tmp_path: Path) -> None:
    frame = '{"arg":{"channel":"trades","instId":"%s"},"data":[{"px":"1","sz":"2"}]}'
    data = '[{"asks":[],"bids":[["1","2","0","1"]],"ts":"1","seqId":7}]'
    books = f'{{"code":"0","msg":"","data":{data}}}'
    url = "https://www.okx.com/api/v5/market/books?instId=BTC-USDT&sz=400"
    lines = [f"1 1 {frame % 'BTC-USDT'}", f"2 1 {frame % 'ETH-USDT'}", f"3 r1 {_rest(url, books)}"]
    rest = OkxRest(Playback(read_recordings([_written(tmp_path / "a.cap", lines)])["okx"], 1))
    assert rest.answer("/api/v5/market/books?instId=BTC-USDT", _NOW).body == books
    assert rest.answer("/api/v5/market/books?instId=ETH-USDT", _NOW).status == 503


def test_files_of_both_venues_and_several_of_one_are_each_their_own_stream(tmp_path: Path) -> None:
    okx = '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"px":"1","sz":"2"}]}'
    paths = [
        _written(tmp_path / "1.gz", [f"1 {_trade(1)}"]),
        _written(tmp_path / "2.cap", [f"9 1 {okx}"]),
        _written(tmp_path / "3.gz", [f"2 {_trade(2)}"]),
    ]
    recordings = read_recordings(paths)
    assert [ts for ts, _ in recordings["binance"].frames()] == [1, 2]
    assert [ts for ts, _ in recordings["okx"].frames()] == [9]
    assert recordings["okx"].keys == {"trades:BTC-USDT"}


def test_snapshot_without_symbol_in_a_file_of_two_is_refused(tmp_path: Path) -> None:
    lines = [f"1 {_trade(1)}", f"1 {_trade(1, 'ethusdt')}", f"2 {_SNAPSHOT % 5}"]
    with pytest.raises(DatasetError, match="BTCUSDT, ETHUSDT; it must hold exactly one symbol"):
        read_recordings([_written(tmp_path / "a.gz", lines)])


def test_capture_in_which_nothing_can_be_played_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.cap", ['1 1 {"result":null,"id":1}'])
    with pytest.raises(DatasetError, match="nothing can be played"):
        read_recordings([path])


def test_rest_tells_the_trades_that_were_played_and_no_others(tmp_path: Path) -> None:
    trade = '{"stream":"btcusdt@trade","data":{"t":%d,"p":"1.50","q":"0.20","T":1700000000%03d,"m":true}}'
    agg = '{"stream":"btcusdt@aggTrade","data":{"a":7,"p":"1.50","q":"0.20","f":1,"l":2,"T":1700000000000000,"m":false}}'  # noqa: E501
    broken = '{"stream":"btcusdt@trade","data":{"t":9,"p":"cheap","q":"0.20","T":1700000000000,"m":true}}'
    frames = [trade % (1, 0), agg, broken, trade % (2, 1), trade % (3, 2)]
    lines = [f"{n * 1000} 1 {frame}" for n, frame in enumerate(frames)]
    playback = Playback(read_recordings([_written(tmp_path / "a.cap", lines)])["binance"], 1)
    playback.greet("btcusdt@trade", 0)
    list(playback.due(3_500))
    rest = BinanceRest(playback)
    trades = json.loads(rest.answer("/api/v3/trades?symbol=BTCUSDT", {}, _NOW).body)
    assert [(t["id"], t["quoteQty"], t["time"]) for t in trades] == [
        (1, "0.30000000", 1_700_000_000_000),
        (2, "0.30000000", 1_700_000_000_001),
    ]
    [aggregate] = json.loads(rest.answer("/api/v3/aggTrades?symbol=BTCUSDT&fromId=7", {}, _NOW).body)
    assert (aggregate["f"], aggregate["l"], aggregate["T"], aggregate["m"]) == (
        1,
        2,
        1_700_000_000_000,
        False,
    )


def test_rest_tells_okx_trades_as_aggregated_as_they_were_recorded(tmp_path: Path) -> None:
    frame = (
        '{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"%d",'
        '"px":"9.5","sz":"2","side":"sell","ts":"1700000000000","count":"3"}]}'
    )
    lines = [f"{n} 1 {frame % (130 + 3 * n)}" for n in range(2)]
    playback = Playback(read_recordings([_written(tmp_path / "a.cap", lines)])["okx"], 1)
    playback.greet("trades:BTC-USDT", 0)
    list(playback.due(5))
    body = OkxRest(playback).answer("/api/v5/market/history-trades?instId=BTC-USDT", _NOW).body
    assert [(t["tradeId"], t["side"]) for t in json.loads(body)["data"]] == [("133", "sell"), ("130", "sell")]
