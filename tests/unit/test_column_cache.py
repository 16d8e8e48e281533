"""What is loaded once is kept: the same the second time, never stale, never trusted when damaged, bounded."""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.datasets import column_cache, compact, validate, verify
from mmdata.datasets.column_cache import COLUMN_CACHE, LIMIT, limit
from mmdata.datasets.errors import UsageError
from mmdata.datasets.layout import list_parts
from mmdata.datasets.loading import load_market, load_sessions
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.session_columns import Session
from tests.recordings import Recording

EXCHANGE, SYMBOL = "binance", "BTCUSDT"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small recording of two sessions, whose columns are kept all the same."""
    monkeypatch.setattr(column_cache, "LEAST_BYTES", 0)
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
    """Return a list that grows by a session whenever one is decoded."""
    sessions: list[str] = []
    decode = Session._decode

    def counted(own: Session) -> Any:
        sessions.append(own.name)
        return decode(own)

    monkeypatch.setattr(Session, "_decode", counted)
    return sessions


def test_what_is_kept_is_what_was_loaded_and_nothing_is_decoded_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = decoded(monkeypatch)
    first = load(root)
    assert first["trades"]["trade_id"][1] == [7]
    assert first["instruments"][0]["tick_size"] == Decimal("0.25")
    assert sessions == first["sessions"]
    assert load(root) == first
    assert len([*load_sessions(root, EXCHANGE, SYMBOL)]) == 2
    assert sessions == first["sessions"]
    assert len(entries(root)) == 2


def test_sessions_that_are_looked_at_one_by_one_are_decoded_once(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = decoded(monkeypatch)
    for _ in range(2):
        assert len([*load_sessions(root, EXCHANGE, SYMBOL)]) == 2
    load(root)
    assert len(sessions) == len(set(sessions)) == 2


def test_a_recording_of_one_session_is_mapped_not_copied(tmp_path: Path, root: Path) -> None:
    recording = Recording(tmp_path / "one")
    recording.play([(("snapshot", None), 1), (("diff", [("bid", 1, 2)]), 1)])
    recording.trade(1, "buy", 1, 1)
    recording.part()
    load(recording.root)
    market = load_market(recording.root, EXCHANGE, SYMBOL)
    arrays: list[Any] = [*market.columns, market.order, market.ts_recv, market.trades.order]
    assert all(isinstance(array.base, np.memmap) for array in arrays)


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
    sessions = decoded(monkeypatch)
    assert len(load(root)["sessions"]) == 3
    assert len(sessions) == 1  # the others are as they were
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "edited")
    load(root)
    assert len(sessions) == 4
    assert len(entries(root)) == 6


def test_what_is_told_of_the_tick_makes_another_entry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root)
    more = Recording(root, _sessions=5)
    more.instrument(more.tick / 5, more.lot)
    more.part()
    sessions = decoded(monkeypatch)
    assert load_market(root, EXCHANGE, SYMBOL).tick_size == Decimal("0.05")
    assert len(sessions) == 3


def test_a_session_stays_the_same_entry_when_an_earlier_one_is_removed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(root)
    first, second = (part.session for part in list_parts(root, "snapshots"))
    for path in root.rglob(f"*{first}*.parquet"):
        if "instruments" not in str(path):
            path.unlink()
    sessions = decoded(monkeypatch)
    market = load_market(root, EXCHANGE, SYMBOL)
    assert (market.sessions, set(market.order >> FRAME_BITS)) == ((first, second), {0, 1})
    assert sessions == [first]


def test_a_compacted_day_is_decoded_anew_and_the_cache_is_nobody_elses_business(root: Path) -> None:
    first = load(root)
    assert compact(root).exit_code() == 0
    again = load(root)
    assert again == first
    assert len(entries(root)) == 4
    found = [finding for finding in validate(root).findings if ".cache" in str(finding)]
    assert found == []
    assert not [line for line in verify(root).to_json_dict().values() if ".cache" in str(line)]


@pytest.mark.parametrize("name", ["arrays", "facts.json"])
@pytest.mark.parametrize("harm", ["flip", "cut"])
def test_damage_is_said_and_the_session_decoded_again(
    root: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(root)
    entry = entries(root)[0]
    data = bytearray((entry / name).read_bytes())
    if harm == "flip":
        data[len(data) // 2] ^= 0x80
    (entry / name).write_bytes(data if harm == "flip" else data[: len(data) // 2])
    sessions = decoded(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert load(root) == first
    assert "is not used" in caplog.text
    assert "its session is decoded again" in caplog.text
    assert load(root) == first
    assert len(sessions) == 1


@pytest.mark.parametrize("name", ["arrays", "facts.json"])
def test_an_entry_of_which_half_is_gone_is_made_again(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(root)
    (entries(root)[0] / name).unlink()
    sessions = decoded(monkeypatch)
    assert load(root) == first
    assert load(root) == first
    assert len(sessions) == 1
    assert len(entries(root)) == 2


def test_a_byte_of_the_facts_that_changes_is_noticed_wherever_it_stands(root: Path) -> None:
    first = load(root)
    facts = entries(root)[0] / "facts.json"
    data = facts.read_bytes()
    for at in range(0, len(data), 61):
        facts.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert load(root) == first
    assert facts.read_bytes() == data


def size_of(folders: Iterable[Path]) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.iterdir())


def test_no_more_is_kept_than_was_said_and_what_was_used_longest_ago_goes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(root)
    first = {*entries(root)}
    size = size_of(first)
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "second")
    load(root)
    second = {*entries(root)} - first
    for at, folders in enumerate((first, second)):
        for folder in folders:
            os.utime(folder, ns=(1 + at, 1 + at))
    monkeypatch.undo()
    monkeypatch.setattr(column_cache, "LEAST_BYTES", 0)
    load(root)  # used: it is the newest now
    monkeypatch.setenv(LIMIT, f"{2 * size + 100}B")
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "third")
    load(root)
    third = {*entries(root)} - first - second
    assert len(third) == 2
    assert {*entries(root)} == first | third
    monkeypatch.setenv(LIMIT, "10B")
    monkeypatch.setattr(column_cache, "source_digest", lambda modules: "fourth")
    load(root)
    assert {*entries(root)} == first | third


def test_sessions_of_one_look_do_not_drive_one_another_out(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a month that is larger than the limit would be decoded whole each time."""
    first = load(root)
    size = size_of(entries(root))
    shutil.rmtree(root / COLUMN_CACHE)
    monkeypatch.setenv(LIMIT, f"{size - 1}B")
    sessions = decoded(monkeypatch)
    assert load(root) == first
    assert sessions == first["sessions"]
    [kept] = entries(root)
    for _ in range(2):
        assert load(root) == first
        assert sum(len(market.order) for market in load_sessions(root, EXCHANGE, SYMBOL)) == len(
            first["order"][1]
        )
    assert {*sessions[2:]} == {first["sessions"][1]}
    assert entries(root) == [kept]
    assert size_of([kept]) < size
    assert not [*(root / COLUMN_CACHE).glob(".new-*")]


def test_nothing_is_kept_of_little_or_where_nothing_is_wanted(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LIMIT, "0")
    load(root)
    monkeypatch.delenv(LIMIT)
    monkeypatch.setattr(column_cache, "LEAST_BYTES", 1 << 20)
    load(root)
    monkeypatch.setattr(column_cache, "LEAST_BYTES", 0)
    monkeypatch.setattr(column_cache, "_LEAST_FREE", 1 << 62)
    load(root)
    assert entries(root) == []
    assert not [*(root / COLUMN_CACHE).glob(".new-*")]


def test_folder_that_cannot_be_written_is_no_reason_to_fail(root: Path) -> None:
    (root / ".cache").write_text("a file is in the way")
    first = load(root)
    assert load(root) == first


def test_two_that_keep_the_same_at_once_leave_one(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Session._decode

    def slow(own: Session) -> Any:
        found = decode(own)
        monkeypatch.setattr(Session, "_decode", decode)
        load(root)  # somebody else is faster
        return found

    monkeypatch.setattr(Session, "_decode", slow)
    first = load(root)
    assert load(root) == first
    assert len(entries(root)) == 2
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
