"""What is loaded once is kept: the same the second time, never stale, never trusted when damaged, bounded."""

from __future__ import annotations

import dataclasses
import logging
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.datasets import column_cache, compact, loading, validate, verify
from mmdata.datasets.column_cache import COLUMN_CACHE, LIMIT, limit
from mmdata.datasets.errors import UsageError
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import NO_TIME, Market
from tests.recordings import Recording

EXCHANGE, SYMBOL = "binance", "BTCUSDT"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small recording of which columns are kept all the same."""
    monkeypatch.setattr(loading, "LEAST_BYTES", 0)
    monkeypatch.delenv(LIMIT, raising=False)
    recording = Recording(tmp_path)
    recording.instrument(recording.tick, recording.lot)
    levels = [("bid", 3, 2), ("bid", 1, 1), ("ask", 1, 4)]
    steps = [(("diff", levels), 1), (("snapshot", None), 1), (("diff", []), 1), (("disconnect", []), 1)]
    recording.play(steps)
    recording.trade(7, "buy", 1, 2)
    recording.session()
    recording.play(steps)
    return tmp_path


def told(value: Any) -> Any:
    """Return a market, or a part of it, as what can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.tolist()
    if dataclasses.is_dataclass(value):
        return {field.name: told(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [told(one) for one in value] if isinstance(value, tuple) else value


def load(root: Path, **how: Any) -> Any:
    return told(load_market(root, EXCHANGE, SYMBOL, **how))


def entries(root: Path) -> list[Path]:
    return sorted(path.parent for path in (root / COLUMN_CACHE).glob("*/*/*/facts.json"))


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by a symbol whenever one is decoded."""
    symbols: list[str] = []
    decode = loading._decode

    def counted(*args: Any) -> Market:
        symbols.append(args[1])
        return decode(*args)

    monkeypatch.setattr(loading, "_decode", counted)
    return symbols


def test_what_is_kept_is_what_was_loaded_and_nothing_is_decoded_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbols = decoded(monkeypatch)
    first = load(root)
    assert first["trades"]["trade_id"][1] == [7]
    assert first["instruments"][0]["tick_size"] == Decimal("0.25")
    assert load(root) == first
    assert symbols == [SYMBOL]
    assert len(entries(root)) == 1


def test_a_cut_of_what_is_kept_is_a_cut_of_what_is_decoded(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = sorted({when for when in load(root)["ts_recv"][1] if when != NO_TIME})
    assert len(ends) > 3
    monkeypatch.setenv(LIMIT, "0")
    expected = [load(root, end=end) for end in ends[1:]]
    monkeypatch.delenv(LIMIT)
    assert [load(root, end=end) for end in ends[1:]] == expected


def test_arrays_may_be_written_to_and_no_file_changes(root: Path) -> None:
    first = load(root)
    load_market(root, EXCHANGE, SYMBOL).columns.size[:] = 77
    assert load(root) == first


def test_rows_that_are_added_and_code_that_is_edited_make_another_entry(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(load(root)["sessions"]) == 2
    more = Recording(root, _sessions=5)
    more.diff([("bid", 2, 2)])
    more.part()
    symbols = decoded(monkeypatch)
    assert len(load(root)["sessions"]) == 3
    assert len(symbols) == 1
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "edited")
    load(root)
    assert len(symbols) == 2
    assert len(entries(root)) == 3


def test_a_compacted_day_is_decoded_anew_and_the_cache_is_nobody_elses_business(root: Path) -> None:
    first = load(root)
    assert compact(root).exit_code() == 0
    again = load(root)
    assert again == first
    assert len(entries(root)) == 2
    found = [finding for finding in validate(root).findings if ".cache" in str(finding)]
    assert found == []
    assert not [line for line in verify(root).to_json_dict().values() if ".cache" in str(line)]


@pytest.mark.parametrize("name", ["arrays", "facts.json"])
@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_damage_is_said_and_the_recording_decoded_again(
    root: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(root)
    [entry] = entries(root)
    data = bytearray((entry / name).read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 0x80
    (entry / name).write_bytes(data if harm == "flip" else data[: len(data) // 2])
    symbols = decoded(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert load(root) == first
    assert "is not used" in caplog.text
    assert "its recording is decoded again" in caplog.text
    assert load(root) == first
    assert symbols == [SYMBOL]


def test_no_more_is_kept_than_was_said_and_what_was_used_longest_ago_goes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(root)
    [first] = entries(root)
    size = sum(path.stat().st_size for path in first.iterdir())
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "second")
    load(root)
    [second] = {*entries(root)} - {first}
    os.utime(first, ns=(1, 1))
    os.utime(second, ns=(2, 2))
    monkeypatch.undo()
    monkeypatch.setattr(loading, "LEAST_BYTES", 0)
    load(root)  # used: it is the newest now
    monkeypatch.setenv(LIMIT, f"{2 * size + 100}B")
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "third")
    load(root)
    [third] = {*entries(root)} - {first, second}
    assert entries(root) == sorted([first, third])
    monkeypatch.setenv(LIMIT, "10B")
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "fourth")
    load(root)
    assert entries(root) == sorted([first, third])


def test_nothing_is_kept_of_little_or_where_nothing_is_wanted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "0")
    load(root)
    monkeypatch.delenv(LIMIT)
    monkeypatch.setattr(loading, "LEAST_BYTES", 1 << 20)
    load(root)
    monkeypatch.setattr(loading, "LEAST_BYTES", 0)
    monkeypatch.setattr(column_cache, "_LEAST_FREE", 1 << 62)
    load(root)
    assert entries(root) == []
    assert not [*(root / COLUMN_CACHE).glob(".new-*")]


def test_folder_that_cannot_be_written_is_no_reason_to_fail(root: Path) -> None:
    (root / ".cache").write_text("a file is in the way")
    first = load(root)
    assert load(root) == first


def test_two_that_keep_the_same_at_once_leave_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = loading._decode

    def slow(*args: Any) -> Market:
        found = decode(*args)
        monkeypatch.setattr(loading, "_decode", decode)
        load(root)  # somebody else is faster
        return found

    monkeypatch.setattr(loading, "_decode", slow)
    first = load(root)
    assert load(root) == first
    assert len(entries(root)) == 1
    assert not [*(root / COLUMN_CACHE).glob(".new-*")]


def test_what_a_dead_process_left_is_removed_when_it_is_old(root: Path) -> None:
    old, young = (root / COLUMN_CACHE / f".new-{name}" for name in ("old", "young"))
    for left in (old, young):
        left.mkdir(parents=True)
        (left / "arrays").write_bytes(b"some")
    os.utime(old, ns=(1, 1))
    load(root)
    assert young.exists()
    assert not old.exists()


def test_limit_is_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIMIT, raising=False)
    assert limit() == 20 << 30
    for text, size in (("0", 0), ("5GiB", 5 << 30), ("300MiB", 300 << 20), ("7B", 7)):
        monkeypatch.setenv(LIMIT, text)
        assert limit() == size
    monkeypatch.setenv(LIMIT, "much")
    with pytest.raises(UsageError, match="MMDATA_COLUMN_CACHE was 'much', expected a size such as 20GiB"):
        limit()
