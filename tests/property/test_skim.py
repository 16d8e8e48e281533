"""Skimming against decoding: the fast reader and the slow one make the same tables of any frame."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmdata.datasets.layout import Partition
from mmdata.recorder.capture import Line, RestAnswer, format_frame, format_rest, parse_line
from mmdata.recorder.ingest import Ingest, IngestReport
from mmdata.recorder.venues import DECODERS, Decoder
from tests.builders import NOON, SESSION
from tests.plain import NOWHERE
from tests.strategies import levels, number

Json = dict[str, Any]

ids = st.one_of(st.integers(-5, 2**40), st.integers(-(2**65), 2**65), st.none(), st.just("7"))
times = st.one_of(st.just(1723161255208), st.just(1723161255208123), st.integers(-1, 2**64))
symbols = st.one_of(st.just("BTCUSDT"), st.sampled_from(["ETHUSDT", "币安", "", "a/b"]))


def optional(required: dict[str, Any], more: dict[str, Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(required, optional=more)


unknown = {"zz": st.one_of(st.integers(), st.text(max_size=3), st.lists(st.integers(), max_size=2))}
binance_depth = optional(
    {"E": times, "s": symbols, "U": ids, "u": ids, "b": levels(0), "a": levels(0)},
    {"T": times, "pu": ids, "e": st.just("depthUpdate"), **unknown},
)
binance_trade = optional(
    {"E": times, "s": symbols, "t": ids, "p": number, "q": number, "T": times, "m": st.booleans()},
    {"X": st.one_of(st.none(), st.text(max_size=3)), "e": st.just("trade"), **unknown},
)
binance_agg = optional(
    {
        "E": times,
        "s": symbols,
        "a": ids,
        "p": number,
        "q": number,
        "f": ids,
        "l": ids,
        "T": times,
        "m": st.booleans(),
    },
    unknown,
)
binance_ticker = optional(
    {"u": ids, "s": symbols, "b": number, "B": number, "a": number, "A": number},
    {"E": times, "T": times, **unknown},
)


def wrapped(channel: str, data: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return data.map(lambda message: {"stream": f"btcusdt@{channel}", "data": message})


binance = st.one_of(
    wrapped("depth@100ms", binance_depth),
    wrapped("depth@100ms", binance_depth),
    wrapped("trade", binance_trade),
    wrapped("aggTrade", binance_agg),
    wrapped("bookTicker", binance_ticker),
    wrapped("kline_1m", binance_trade),
    binance_depth,
)
okx_times = st.one_of(times.map(str), st.just("x"))
okx_book = optional(
    {"asks": levels(2), "bids": levels(2), "ts": okx_times},
    {
        "checksum": st.one_of(st.integers(-(2**31), 2**31), st.just(0)),
        "seqId": ids,
        "prevSeqId": ids,
        **unknown,
    },
)
okx_trade = optional(
    {
        "instId": symbols,
        "tradeId": ids.map(str),
        "px": number,
        "sz": number,
        "side": st.sampled_from(["buy", "sell", "hold"]),
        "ts": okx_times,
    },
    {"count": ids.map(str), "source": st.text(max_size=2), "seqId": ids, **unknown},
)


def pushed(channels: list[str], data: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """Return frames of OKX; ``action`` and ``instId`` may be missing, ``event`` may be there."""
    argument = optional({"channel": st.sampled_from(channels)}, {"instId": symbols, **unknown})
    return optional(
        {"arg": argument, "data": st.lists(data, max_size=3)},
        {
            "action": st.sampled_from(["snapshot", "update", "update", "other"]),
            "event": st.sampled_from([None, "error"]),
        },
    )


okx = st.one_of(
    pushed(["books", "books-l2-tbt"], okx_book),
    pushed(["books"], okx_book),
    pushed(["trades", "trades-all"], okx_trade),
    pushed(["bbo-tbt", "books5"], okx_book),
)


@st.composite
def texts(draw: st.DrawFn, message: Json) -> bytes:
    """Return a message as a venue might write it: white space or none, escapes or none, maybe damaged."""
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (",", ":"), (", ", ": "), (" ,", " :")]))
    text = json.dumps(message, separators=separators, ensure_ascii=draw(st.booleans())).encode()
    damage = draw(st.sampled_from(["none", "none", "none", "cut", "byte", "twice"]))
    if damage == "cut":
        return text[: draw(st.integers(0, len(text)))]
    if damage == "byte":
        at = draw(st.integers(0, len(text) - 1))
        return text[:at] + bytes([draw(st.integers(0x20, 0xFF))]) + text[at + 1 :]
    if damage == "twice":  # a key that comes again; the last one counts
        key = draw(st.sampled_from(["stream", "data", "arg", "event"]))
        return text[:-1] + b',"%s":%s}' % (
            key.encode(),
            draw(st.sampled_from([b"null", b'"x@trade"', b"{}"])),
        )
    return text


class Strict:
    """A venue's slow decoder in the place of its fast one."""

    def __init__(self, decoder: Decoder) -> None:
        self.decode = self.skim = decoder.decode
        self.decode_snapshot = self.skim_snapshot = decoder.decode_snapshot
        self.decode_instruments = decoder.decode_instruments
        self.decode_time, self.TIME_PATH = decoder.decode_time, decoder.TIME_PATH


Published = list[tuple[Partition, int, dict[str, str], pa.Table]]


def ingested(exchange: str, lines: list[Line], *, strict: bool = False) -> tuple[IngestReport, Published]:
    """Return what ingest says of lines, and what it would publish."""
    found: Published = []

    def publish(
        root: Path, partition: Partition, session: str, n: int, rows: pa.Table, facts: dict[str, str]
    ) -> None:
        found.append((partition, n, facts, rows.combine_chunks()))

    with patch("mmdata.datasets.published.publish", publish):
        ingest = Ingest(NOWHERE, exchange, SESSION, {})
        if strict:
            ingest._decoder = Strict(DECODERS[exchange])
        for line in lines:
            ingest.take(line)
        ingest.flush()
    ingest.report.check()
    return ingest.report, found


def lines_of(payloads: list[bytes]) -> list[Line]:
    return [
        parse_line(number, format_frame(NOON + number, 0, payload, is_text=True)[:-1])
        for number, payload in enumerate(payloads)
    ]


@given(st.lists(binance.flatmap(texts), min_size=1, max_size=4))
@example(
    [b'{"stream":"btcusdt@depth","data":{"E":1,"s":"A","U":1,"u":2,"b":[["1","1"]],"a":[]},"stream":"a@b"}']
)
@settings(deadline=None)
def test_tables_of_binance_frames_are_those_of_the_strict_decoder(payloads: list[bytes]) -> None:
    lines = lines_of(payloads)
    assert ingested("binance", lines) == ingested("binance", lines, strict=True)


@given(st.lists(okx.flatmap(texts), min_size=1, max_size=4))
@settings(deadline=None)
def test_tables_of_okx_frames_are_those_of_the_strict_decoder(payloads: list[bytes]) -> None:
    lines = lines_of(payloads)
    assert ingested("okx", lines) == ingested("okx", lines, strict=True)


binance_book = optional({"lastUpdateId": ids, "bids": levels(0), "asks": levels(0)}, {"T": times, **unknown})


@given(
    st.one_of(
        st.tuples(st.just("binance"), st.lists(binance_book.flatmap(texts), min_size=1, max_size=3)),
        st.tuples(
            st.just("okx"),
            st.lists(
                okx_book.map(lambda book: {"code": "0", "data": [book]}).flatmap(texts),
                min_size=1,
                max_size=3,
            ),
        ),
    )
)
@settings(deadline=None)
def test_snapshots_are_those_of_the_strict_decoder(case: tuple[str, list[bytes]]) -> None:
    exchange, bodies = case
    lines = [
        parse_line(
            number,
            format_rest(
                NOON,
                number,
                RestAnswer(NOON, "u", 200, {}, body.decode(errors="replace"), "snapshot", "BTCUSDT", "start"),
            )[:-1],
        )
        for number, body in enumerate(bodies)
    ]
    assert ingested(exchange, lines) == ingested(exchange, lines, strict=True)
