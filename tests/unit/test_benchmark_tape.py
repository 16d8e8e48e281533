"""The frames that benchmarks play: no hole at any seam, and a book that is known everywhere."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from benchmarks.feed import as_text_frame
from benchmarks.tape import Tape, make_tape


def depth(first_id: int, last_id: int, bids: dict[str, str], asks: dict[str, str]) -> bytes:
    data = {"e": "depthUpdate", "E": 5, "s": "BTCUSDT", "U": first_id, "u": last_id}
    data |= {"b": [*bids.items()], "a": [*asks.items()]}
    return wrapped("depth@100ms", data)


def trade(trade_id: int) -> bytes:
    data = {"e": "trade", "E": 5, "s": "BTCUSDT", "t": trade_id, "p": "10.0", "q": "1.0", "T": 5, "m": True}
    return wrapped("trade", data)


def wrapped(stream: str, data: dict[str, Any]) -> bytes:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": data}, separators=(",", ":")).encode()


@pytest.fixture
def tape() -> Tape:
    snapshot = {"lastUpdateId": 7, "bids": [["10.0", "1.0"], ["9.0", "4.0"]], "asks": [["11.0", "2.0"]]}
    return make_tape(
        [
            depth(3, 5, {}, {}),
            trade(70),
            json.dumps(snapshot, separators=(",", ":")).encode(),
            depth(6, 9, {"10.0": "3.0"}, {}),
            trade(71),
            depth(10, 14, {"10.0": "0.0"}, {"10.5": "1.0"}),
            trade(72),
            depth(15, 15, {"8.0": "2.0"}, {"11.0": "5.0"}),
        ]
    )


def play(tape: Tape, count: int) -> list[dict[str, Any]]:
    return [json.loads(tape.render(position, 1_000 + position))["data"] for position in range(count)]


def test_ids_go_on_over_the_seams_without_hole_or_repeat(tape: Tape) -> None:
    frames = play(tape.select(["depth@100ms", "trade"]), 23)
    books = [frame for frame in frames if frame["e"] == "depthUpdate"]
    assert tape.start.last_id == 9
    assert books[0]["U"] == 10
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in pairwise(books))
    trades = [frame["t"] for frame in frames if frame["e"] == "trade"]
    assert trades == [*range(71, 71 + len(trades))]


def test_the_book_is_what_the_frames_before_make_of_the_start(tape: Tape) -> None:
    chosen = tape.select(["depth@100ms"])
    bids, asks, last_id = dict(chosen.start.bids), dict(chosen.start.asks), chosen.start.last_id
    assert bids == {"10.0": "3.0", "9.0": "4.0"}
    for position, frame in enumerate(play(chosen, 10)):
        assert chosen.book(position) == (bids, asks, last_id)
        for side, levels in ((bids, frame["b"]), (asks, frame["a"])):
            side.update(levels)
            for price in [price for price, size in side.items() if float(size) == 0]:
                del side[price]
        last_id = frame["u"]


def test_an_aggregate_holds_the_one_trade(tape: Tape) -> None:
    first = play(tape.select(["aggTrade"]), 1)[0]
    assert (first["a"], first["f"], first["l"], first["p"], first["m"]) == (71, 71, 71, "10.0", True)


def test_times_are_those_of_sending(tape: Tape) -> None:
    assert [frame["E"] for frame in play(tape, 3)] == [1_000, 1_001, 1_002]


def test_a_stream_that_is_not_on_the_tape_is_refused(tape: Tape) -> None:
    with pytest.raises(ValueError, match="bookTicker"):
        tape.select(["bookTicker"])


def test_a_capture_without_a_snapshot_is_refused() -> None:
    with pytest.raises(ValueError, match="no snapshot"):
        make_tape([depth(1, 2, {}, {})])


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_client_reads_the_frame_whatever_its_size(size: int) -> None:
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    client.receive_data(as_text_frame(b"x" * size))
    [frame] = client.events_received()
    assert bytes(frame.data) == b"x" * size  # type: ignore[union-attr]
