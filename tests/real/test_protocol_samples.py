"""Every sample frame of the protocol sheets is decoded by the recorder, as the sheet says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from mmdata.recorder.records import Bbo, Depth, Trade, Untabled
from mmdata.recorder.venues import DECODERS, open_stream

pytestmark = pytest.mark.real

_ELLIPSIS = re.compile(r",\.\.\.\d*|\.\.\.\d*,?")


def samples(sheet: Path) -> list[str]:
    """Return the JSON objects and arrays of a sheet's fenced and inline code, one text each."""
    text = sheet.read_text(encoding="utf-8")
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL) + re.findall(r"`(\{.*?\})`", text)
    found = []
    for block in blocks:
        cleaned = _ELLIPSIS.sub("", block)
        decoder = json.JSONDecoder()
        at = 0
        while (start := min((i for i in (cleaned.find(c, at) for c in "{[") if i >= 0), default=-1)) >= 0:
            try:
                _, end = decoder.raw_decode(cleaned, start)
            except json.JSONDecodeError:
                at = start + 1
                continue
            found.append(cleaned[start:end])
            at = end
    return found


def of_kind(sheet: Path, *keys: str) -> list[bytes]:
    """Return the samples whose object has all of some keys."""
    found = []
    for text in samples(sheet):
        value = json.loads(text)
        if isinstance(value, dict) and all(key in value for key in keys):
            found.append(text.encode())
    return found


@pytest.mark.parametrize("sheet", ["binance-spot", "binance-usdm"])
def test_every_binance_market_frame_is_decoded(shared_folder: Path, sheet: str) -> None:
    decode = DECODERS["binance"].decode
    kinds: dict[str, type] = {"depthUpdate": Depth, "trade": Trade, "aggTrade": Trade, "bookTicker": Bbo}
    seen = set()
    for text in of_kind(shared_folder / f"protocols/{sheet}.md", "e"):
        event = json.loads(text)["e"]
        if event in kinds and b'"E":..' not in text:
            for wrapped in (text, b'{"stream":"btcusdt@%s","data":%s}' % (event.encode(), text)):
                [record] = decode(wrapped)
                if (
                    wrapped is text or event != "depthUpdate"
                ):  # a stream is called depth, its event depthUpdate
                    assert isinstance(record, kinds[event]), text
            seen.add(event)
    assert {"depthUpdate", "aggTrade"} <= seen


def test_bare_spot_book_ticker_has_no_event_name(shared_folder: Path) -> None:
    [text] = [t for t in of_kind(shared_folder / "protocols/binance-spot.md", "u", "B") if b'"e"' not in t]
    [record] = DECODERS["binance"].decode(text)
    assert isinstance(record, Bbo)
    assert (record.last_id, record.ts_event) == (400900217, None)
    assert record.bid == ("25.35190000", "31.21000000", None)


def test_every_binance_control_frame_is_told_from_market_data(shared_folder: Path) -> None:
    sheet = shared_folder / "protocols/binance-spot.md"
    stream = open_stream("binance", ["BTCUSDT"], ["trade"], "ws://x")
    control = of_kind(sheet, "result", "id") + of_kind(sheet, "code", "msg")
    shutdown = [t for t in samples(sheet) if "serverShutdown" in t]
    assert len(control) >= 4
    assert len(shutdown) == 3
    for text in [*control, *(t.encode() for t in shutdown)]:
        if b'"status"' in text:
            continue  # the WebSocket API's, not the streams'
        records = DECODERS["binance"].decode(text)
        assert all(isinstance(record, Untabled) for record in records), text
        stream.look(text)
    notices = [stream.look(text.encode())[0].channel for text in shutdown if '"E"' in text]
    assert notices == ["closing"] * 3


def test_every_binance_rest_sample_is_decoded(shared_folder: Path) -> None:
    binance = DECODERS["binance"]
    books = of_kind(shared_folder / "protocols/binance-spot.md", "lastUpdateId", "bids")
    books += of_kind(shared_folder / "protocols/binance-usdm.md", "lastUpdateId", "bids")
    assert len(books) >= 3
    for text in books:
        assert binance.decode_snapshot(text, "X").last_id in (1027024, 160)
    for sheet, notional in (("binance-spot", "10.0"), ("binance-usdm", "100")):
        [text] = of_kind(shared_folder / f"protocols/{sheet}.md", "symbols")
        [instrument] = binance.decode_instruments(text, [])
        assert instrument.min_notional == notional
        assert instrument.tick_size
        assert instrument.lot_size


def test_every_okx_channel_sample_is_decoded(shared_folder: Path) -> None:
    decode = DECODERS["okx"].decode
    seen = set()
    for text in of_kind(shared_folder / "protocols/okx.md", "arg", "data"):
        channel = json.loads(text)["arg"]["channel"]
        records = decode(text)
        assert records, text
        expected = {"books": Depth, "bbo-tbt": Bbo, "trades": Trade, "trades-all": Trade}.get(
            channel, Untabled
        )
        assert all(isinstance(record, expected) for record in records), text
        seen.add(channel)
    assert {"books", "bbo-tbt", "trades", "books5"} <= seen


def test_okx_aggregate_names_the_ids_that_it_covers(shared_folder: Path) -> None:
    texts = [
        text
        for text in of_kind(shared_folder / "protocols/okx.md", "arg", "data")
        if json.loads(text)["arg"]["channel"] == "trades"
    ]
    [trade] = DECODERS["okx"].decode(texts[0])
    assert isinstance(trade, Trade)
    assert (trade.kind, trade.first_trade_id, trade.last_trade_id) == ("agg", 130639472, 130639474)


def test_every_okx_control_frame_is_told_from_market_data(shared_folder: Path) -> None:
    texts = [t for t in of_kind(shared_folder / "protocols/okx.md", "event") if b"..." not in t]
    stream = open_stream("okx", ["BTC-USDT"], ["books"], "ws://x")
    assert len(texts) >= 4
    for text in [*texts, b"pong"]:
        records = DECODERS["okx"].decode(text)
        assert all(isinstance(record, Untabled) and record.control for record in records), text
        stream.look(text)
    notice = [t for t in texts if b"64008" in t]
    assert stream.look(notice[0])[0].channel == "closing"


def test_okx_rest_samples_are_decoded(shared_folder: Path) -> None:
    okx = DECODERS["okx"]
    books = [text for text in of_kind(shared_folder / "protocols/okx.md", "code", "data") if b"asks" in text]
    assert okx.decode_snapshot(books[0], "BTC-USDT").last_id == 3235851742
    [raw] = of_kind(shared_folder / "protocols/okx.md", "instType", "tickSz")
    [instrument] = okx.decode_instruments(b'{"code":"0","msg":"","data":[%s]}' % raw, ["BTC-USDT"])
    assert (instrument.tick_size, instrument.lot_size, instrument.status) == ("0.1", "0.00000001", "live")


def test_okx_error_answer_is_refused_with_its_code() -> None:
    with pytest.raises(msgspec.ValidationError, match="code 51001"):
        DECODERS["okx"].decode_instruments(b'{"code":"51001","msg":"no such","data":[]}', [])
