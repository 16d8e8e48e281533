"""Lines read many at once against lines read one by one: the same tables, notes and counts of any capture."""

from __future__ import annotations

import random
from itertools import pairwise
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmdata.recorder.capture import Event, format_event, format_frame
from tests.builders import NOON
from tests.plain import KINDS, Steps, capture, imported, message, same
from tests.property.test_skim import binance, texts

steps = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from([1, 1, 1, 1, 1, 1, 0, -1, 2, 5, -40]),
        st.sampled_from([0, 0, 0, 1, 1, 2]),
    ),
    min_size=1,
    max_size=60,
)


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


@given(
    exchanges,
    st.sampled_from(KINDS),
    st.lists(st.lists(st.booleans(), min_size=12, max_size=12), min_size=2, max_size=3),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=60)
def test_legs_are_merged_alike_when_ids_are_lost_and_begin_anew(
    exchange: str, kind: str, brought: list[list[bool]], draw: random.Random
) -> None:
    ids = [*pairwise(range(1000, 1014, 2)), *pairwise(range(100, 114, 2))]
    frames = [message(kind, "BTCUSDT", last, prev, usdm=exchange == "binance-usdm") for prev, last in ids]
    legs = [iter([f for f, is_brought in zip(frames, own, strict=True) if is_brought]) for own in brought]
    order = [conn for conn, own in enumerate(brought) for _ in range(sum(own))]
    draw.shuffle(order)
    lines = [(conn, next(legs[conn])) for conn in order]
    same(
        exchange,
        [format_frame(NOON + at, conn, text, is_text=True)[:-1] for at, (conn, text) in enumerate(lines)],
    )


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
