"""The sandbox's frames beside the venues' own, key by key: names, order, JSON types, number format."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.sandbox.binance.feed import BinanceFeed
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.market import LiveMarket
from mmdata.sandbox.okx.feed import OkxFeed
from mmdata.sandbox.playback import read_recordings
from mmdata.sandbox.wire import Style

pytestmark = pytest.mark.real

_T0 = 1_795_600_000_000_000_000
_MS = 1_000_000


def _binance_frames(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the kind and the text of the first two thousand lines."""
    with gzip.open(path, "rt") as file:
        for _, line in zip(range(2000), file, strict=False):
            text = line.split(" ", 1)[1].rstrip("\n")
            frame = json.loads(text)
            yield (frame["stream"].partition("@")[2] if "stream" in frame else "snapshot"), text


@cache
def _ours_binance() -> list[tuple[str, str]]:
    return list(_run_binance(3))


def _run_binance(seconds: int) -> Iterator[tuple[str, str]]:
    feed = BinanceFeed(LiveMarket(MARKETS[0], np.random.SeedSequence(1), 20, _T0), _T0)
    for now_ns in range(_T0, _T0 + seconds * 1000 * _MS, 5 * _MS):
        for event in feed.market.advance(now_ns):
            for message in feed.observe(event, now_ns):
                yield message.key.partition("@")[2], message.render(Style())
        for message in feed.flush(now_ns):
            yield message.key.partition("@")[2], message.render(Style())
    yield "snapshot", feed.depth(1000)


def _keys(text: str) -> Any:
    """Return names in order and JSON types, arrays merged, whatever the numbers are."""
    return _types(json.loads(text))


def _types(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _types(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return ("list", frozenset(_types(inner) for inner in value))
    return type(value).__name__


def _decimals(text: str) -> set[str]:
    return set(re.findall(r'"(\d+(?:\.\d+)?)"', text))


@pytest.mark.parametrize("kind", ["depth@100ms", "trade", "bookTicker", "snapshot"])
def test_binance_frame_has_the_keys_types_and_decimals_of_the_captured_ones(
    shared_data: Path, kind: str
) -> None:
    real = [t for k, t in _binance_frames(shared_data / "binance/btcusdt_20240808.gz") if k == kind]
    ours = [text for k, text in _ours_binance() if k == kind]
    assert real
    assert ours
    # an empty side is legal: its list says nothing of what may stand in it
    full_real = {_keys(text) for text in real if "[]" not in text}
    full_ours = {_keys(text) for text in ours if "[]" not in text}
    assert full_ours == full_real
    for text in real + ours:
        assert all(re.fullmatch(r"\d+\.\d{8}", number) for number in _decimals(text))
        assert json.dumps(json.loads(text), separators=(",", ":")) == text, "not compact"


def test_binance_diff_orders_bids_down_and_asks_up_as_the_captured_ones(shared_data: Path) -> None:
    real = [t for k, t in _binance_frames(shared_data / "binance/btcusdt_20240808.gz") if k == "depth@100ms"]
    ours = [text for k, text in _ours_binance() if k == "depth@100ms"]
    for text in real + ours:
        data = json.loads(text)["data"]
        bids, asks = ([float(level[0]) for level in data[side]] for side in "ba")
        assert bids == sorted(bids, reverse=True)
        assert asks == sorted(asks)
        assert len(set(bids)) == len(bids)


def _okx_updates(shared_data: Path) -> list[str]:
    lines = (shared_data / "okx/books_updates_20260824.jsonl").read_text().splitlines()
    return [line for line in lines if '"action":"update"' in line]


def _okx_log(shared_data: Path, channel: str) -> list[str]:
    with gzip.open(shared_data / "okx/books_20220513.log.gz", "rt") as file:
        texts = [line.split(": ", 1)[1].rstrip("\n") for line in file if " <" not in line]
    start = f'{{"arg":{{"channel":"{channel}","instId":"BTC-USDT"}}'
    return [text for text in texts if text.startswith(start)]


@cache
def _ours_okx(channel: str, seconds: int = 3) -> list[str]:
    feed = OkxFeed(LiveMarket(MARKETS[2], np.random.SeedSequence(1), 20, _T0), _T0, 60)
    texts = [message.render(Style()) for message in feed.greet(channel, _T0)]
    for now_ns in range(_T0, _T0 + seconds * 1000 * _MS, 5 * _MS):
        messages = [m for event in feed.market.advance(now_ns) for m in feed.observe(event, now_ns)]
        messages += feed.flush(now_ns)
        texts += [m.render(Style()) for m in messages if m.key.startswith(f"{channel}:")]
    return texts


def _shortest(text: str) -> bool:
    return all(re.fullmatch(r"0|[1-9]\d*|(0|[1-9]\d*)\.\d*[1-9]", number) for number in _decimals(text))


def test_okx_update_has_the_keys_types_and_decimals_of_2026(shared_data: Path) -> None:
    real, (_, *ours) = _okx_updates(shared_data), _ours_okx("books")
    assert len(real) == 6
    assert len(ours) > 20
    assert {_keys(t) for t in ours if "[]" not in t} == {_keys(t) for t in real if "[]" not in t}
    for text in real + ours:
        assert _shortest(text)
        assert json.dumps(json.loads(text), separators=(",", ":")) == text, "not compact"
        for side, down in (("asks", False), ("bids", True)):
            levels = json.loads(text)["data"][0][side]
            prices = [float(level[0]) for level in levels]
            assert prices == sorted(prices, reverse=down)
            assert all(level[2] == "0" and (level[1] == "0") == (level[3] == "0") for level in levels)


def test_okx_snapshot_is_that_of_2022_and_the_ids_since(shared_data: Path) -> None:
    (real, *_) = _okx_log(shared_data, "books")
    (ours, *_) = _ours_okx("books")
    ids = (("seqId", "int"), ("prevSeqId", "int"))
    head, action, (data, (_, (row,))) = _keys(real)
    assert _keys(ours) == (head, action, (data, ("list", frozenset({row + ids}))))
    assert _shortest(ours)
    assert _shortest(real)


def test_okx_trade_is_that_of_2022_and_the_fields_since(shared_data: Path) -> None:
    real, ours = _okx_log(shared_data, "trades"), _ours_okx("trades")
    assert len(real) > 10
    assert len(ours) > 20
    since = (("count", "str"), ("source", "str"), ("seqId", "int"))
    (shape,) = {_keys(text) for text in real}
    head, (data, (_, (row,))) = shape
    assert {_keys(text) for text in ours} == {(head, (data, ("list", frozenset({row + since}))))}
    assert all(_shortest(text) for text in real + ours)


def test_real_capture_can_be_played_whole_and_its_steps_are_those_of_its_values(shared_data: Path) -> None:
    paths = [shared_data / f"binance/btcusdt_2024080{day}.gz" for day in (8, 9)]
    recording = read_recordings(paths)["binance"]
    assert recording.keys == {"btcusdt@depth@100ms", "btcusdt@trade", "btcusdt@bookTicker"}
    ((_, body),) = recording.snapshots["BTCUSDT"]
    assert json.loads(body)["lastUpdateId"] == 50093239218
    filters = {entry["filterType"]: entry for entry in json.loads(recording.rows["BTCUSDT"])["filters"]}
    assert filters["PRICE_FILTER"]["tickSize"] == "0.01000000"
    # The venue's step is 0.00001, but seven old orders far from the market (74,000 to 200,000) are finer.
    assert filters["LOT_SIZE"]["stepSize"] == "0.00000100"
    counts = dict.fromkeys(recording.keys, 0)
    last = None
    for _, frame in recording.frames():
        counts[frame.key] += 1
        if frame.key.endswith("ms"):
            ids = frame.book_ids
            assert ids is not None
            assert last is None or ids[0] == last + 1
            last = ids[1]
    assert counts == {"btcusdt@depth@100ms": 6495, "btcusdt@trade": 19904, "btcusdt@bookTicker": 73174}
