"""What the recorder sees in a frame: one is sound for it exactly when it is for ingest."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from mmdata.recorder.venues import DECODERS, open_stream

BINANCE = open_stream("binance", ["BTCUSDT"], ["depth@100ms", "trade", "aggTrade", "bookTicker"], "ws://x")
OKX = open_stream("okx", ["BTC-USDT"], ["books", "trades", "bbo-tbt"], "ws://x")

DIFF = {"e": "depthUpdate", "E": 1_795_262_400_000_000, "s": "BTCUSDT", "U": 5, "u": 9}
TRADE = {"e": "trade", "E": 1_795_262_400_000_000, "s": "BTCUSDT", "t": 7, "p": "1.5", "q": "2", "m": True}
AGGREGATE = {"e": "aggTrade", "E": 1, "s": "BTCUSDT", "a": 7, "p": "1.5", "q": "2", "f": 1, "l": 2, "m": True}
TICKER = {"u": 5, "s": "BTCUSDT", "b": "1", "B": "2", "a": "3", "A": "4"}
SPOT = {
    "depth@100ms": {**DIFF, "b": [["1.0", "2.0"]], "a": []},
    "trade": {**TRADE, "T": 1_795_262_400_000_000},
    "aggTrade": {**AGGREGATE, "T": 1},
    "bookTicker": TICKER,
}
BOOK = {"asks": [["2", "1", "0", "1"]], "bids": [["1", "1", "0", "1"]], "ts": "1795262400000", "checksum": 0}
MATCH = {"instId": "BTC-USDT", "tradeId": "7", "px": "1", "sz": "2", "side": "buy", "ts": "1795262400000"}
OKX_DATA = {
    "books": {**BOOK, "seqId": 9, "prevSeqId": 5},
    "trades": {**MATCH, "count": "2", "seqId": 9},
    "bbo-tbt": {**BOOK, "seqId": 9},
}


def frames() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        *(("binance", channel, data) for channel, data in SPOT.items()),
        *(("okx", channel, data) for channel, data in OKX_DATA.items()),
    ]


def written(venue: str, channel: str, data: dict[str, Any]) -> bytes:
    message: dict[str, Any] = {"stream": f"btcusdt@{channel}", "data": data}
    if venue == "okx":
        message = {"arg": {"channel": channel, "instId": "BTC-USDT"}, "action": "update", "data": [data]}
    return json.dumps(message, separators=(",", ":")).encode()


def is_sound(read: Any, frame: bytes) -> bool:
    try:
        read(frame)
    except (msgspec.MsgspecError, ValueError):
        return False
    return True


@pytest.mark.parametrize(("venue", "channel", "data"), frames())
def test_a_frame_is_a_hole_for_the_recorder_exactly_when_ingest_cannot_decode_it(
    venue: str, channel: str, data: dict[str, Any]
) -> None:
    """A level of a wrong type was seen as sound while recording, and its absence was on no record."""
    look = (BINANCE if venue == "binance" else OKX).look
    assert look(written(venue, channel, data))
    refused = 0
    for field, value in data.items():
        others: tuple[Any, ...] = (None, 0, "x", {}, [], True)
        for other in others:
            if type(other) is type(value):
                continue
            frame = written(venue, channel, {**data, field: other})
            sound = is_sound(DECODERS[venue].skim, frame)
            assert is_sound(look, frame) == sound, frame
            refused += not sound
    assert refused >= 3 * (len(data) - 3)


def test_ids_of_an_okx_frame_do_not_depend_on_the_order_of_its_keys() -> None:
    usual = written("okx", "books", OKX_DATA["books"])
    turned = usual.replace(
        b'{"channel":"books","instId":"BTC-USDT"}', b'{"instId":"BTC-USDT","channel":"books"}'
    )
    assert turned != usual
    assert OKX.look(turned) == OKX.look(usual)
