"""Two datasets united or compared: what either has, once; what neither has, on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets import compact, verify
from mmdata.datasets.comparing import compare
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats.importing import import_tables
from mmdata.datasets.layout import list_parts
from mmdata.datasets.merging import MergeReport, merge
from mmdata.datasets.validation import validate
from mmdata.recorder.importing import import_sources
from tests.builders import DAY, TS, rows, spot_lines


def recorded(
    root: Path,
    *,
    skip: tuple[int, ...] = (),
    lag: int = 0,
    count: int = 20,
    edits: dict[str, bytes] | None = None,
) -> Path:
    """Record a tiny market by a recorder whose clock is ``lag`` ns behind; ``edits`` replace some bytes."""
    # Each message bears the time of its place, whatever of the others is missing.
    whole = spot_lines(count=count)
    lines = [line for at, line in enumerate(whole) if (at - 1) // 2 not in skip or at == 0]
    text = b"".join(
        b"%d %s" % (int(stamp) + lag, rest) for stamp, _, rest in (line.partition(b" ") for line in lines)
    )
    for old, new in (edits or {}).items():
        text = text.replace(old.encode(), new)
    source = root.with_suffix(".log")
    source.write_bytes(text)
    import_sources([source], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    return root


def united(one: Path, other: Path, out: Path) -> MergeReport:
    """Merge; what comes of it has certificates that bear it out."""
    report = merge(one, other, out)
    found = verify(out)
    assert (found.differences, len(found.verified)) == ([], report.certified)
    assert report.warnings == []
    return report


def gaps(root: Path) -> list[tuple[Any, ...]]:
    return [
        (row["channel"], row["last_id"], row["next_id"])
        for row in rows(root, "events")
        if row["kind"] == "gap"
    ]


def contents(root: Path) -> dict[Path, bytes]:
    return {path.relative_to(root): path.read_bytes() for path in root.rglob("*.parquet")}


@pytest.mark.parametrize("lag", [0, 300_000, 5_000_000, -40_000_000])
def test_holes_of_one_are_filled_from_the_other_whatever_their_clocks_say(tmp_path: Path, lag: int) -> None:
    one = recorded(tmp_path / "one", skip=(4, 5, 12))
    other = recorded(tmp_path / "other", skip=(8, 15, 16), lag=lag)
    before = contents(one), contents(other)
    report = united(one, other, tmp_path / "out")
    whole = recorded(tmp_path / "whole")
    values = ("first_id", "last_id", "prev_id", "side", "price", "size", "is_snapshot", "is_last")
    told = [
        [{name: row[name] for name in values} for row in rows(root, "depth")]
        for root in (tmp_path / "out", whole)
    ]
    assert told[0] == told[1]
    assert [row["trade_id"] for row in rows(tmp_path / "out", "trades")] == [*range(20)]
    assert gaps(tmp_path / "out") == []
    assert (report.gaps, report.repeats) == (0, 2 * (17 + 17 - 20))
    assert (contents(one), contents(other)) == before
    assert validate(tmp_path / "out").exit_code() == 0


def test_conn_tells_who_gave_a_row_and_the_session_where_they_came_from(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=(4,))
    other = recorded(tmp_path / "other", lag=300_000)
    report = united(one, other, tmp_path / "out")
    conns = [row["conn"] for row in rows(tmp_path / "out", "depth")]
    assert conns == [0, 0, 0, 0, 1, *[0] * 15]
    assert report.taken["depth", 1] == 1
    [start] = [row for row in rows(tmp_path / "out", "events") if row["kind"] == "session_start"]
    told = json.loads(start["detail"])["recordings"]
    assert [(own["conn"], own["root"]) for own in told] == [(0, str(one)), (1, str(other))]
    assert {row["session"] for row in rows(tmp_path / "out", "depth")} == {report.session}


def test_hole_of_both_is_a_gap_and_the_next_snapshot_of_either_heals_it(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=(3, 4))
    other = recorded(tmp_path / "other", skip=(4,), lag=300_000)
    report = united(one, other, tmp_path / "out")
    assert gaps(tmp_path / "out") == [("depth", 124, 130), ("trades", 3, 5)]
    assert report.gaps == 2
    found = validate(tmp_path / "out")
    assert found.exit_code() == 0
    assert [own.unrecorded_breaks for own in found.symbols] == [0]


def test_recordings_one_after_the_other_are_one(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=tuple(range(10, 20)))
    other = recorded(tmp_path / "other", skip=tuple(range(8)), lag=DAY)
    united(one, other, tmp_path / "out")
    assert [row["last_id"] for row in rows(tmp_path / "out", "depth")] == [109 + 5 * at for at in range(20)]
    dates = [part.partition.date for part in list_parts(tmp_path / "out", "depth")]
    assert dates == ["2024-08-08", "2024-08-09"]
    assert gaps(tmp_path / "out") == []


def test_compacted_and_wide_datasets_are_united_too(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=(4,), edits={'"7.25"': b'"7.2500000001"'})
    other = recorded(tmp_path / "other", lag=300_000, edits={'"7.25"': b'"7.2500000001"'})
    compact(one)
    united(one, other, tmp_path / "out")
    assert {part.partition.wide for part in list_parts(tmp_path / "out", "depth")} == {True}
    assert len(rows(tmp_path / "out", "depth")) == 20


def test_merging_again_makes_the_same_rows(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=(4,))
    other = recorded(tmp_path / "other", lag=300_000)
    for name in ("out", "again"):
        united(one, other, tmp_path / name)
    for table in ("depth", "trades", "snapshots", "events", "instruments"):
        assert rows(tmp_path / "out", table) == rows(tmp_path / "again", table)
    assert [path.name for path in tmp_path.iterdir() if "merging" in path.name] == []


def test_what_is_there_already_or_has_no_ids_is_refused(tmp_path: Path) -> None:
    one, other = recorded(tmp_path / "one"), recorded(tmp_path / "other", lag=1)
    with pytest.raises(UsageError, match="is there already, and a merge makes a new dataset"):
        merge(one, other, one)
    with pytest.raises(UsageError, match="there is no such folder"):
        merge(one, tmp_path / "none", tmp_path / "out")
    with pytest.raises(UsageError, match="hold nothing of that exchange and symbol"):
        merge(one, other, tmp_path / "out", exchange="okx")
    source = tmp_path / "book.csv"
    source.write_text(
        "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"
        "binance,BTCUSDT,1700000000000000,1700000000000000,true,ask,100.2,1\n"
    )
    import_tables([source], tmp_path / "tardis", source_format="tardis")
    with pytest.raises(UsageError, match="some book messages have no ids"):
        merge(one, tmp_path / "tardis", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- comparing


def test_equal_recordings_do_not_differ_beyond_their_common_span(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", count=15)
    other = recorded(tmp_path / "other", skip=(0, 1), lag=2_000_000)
    found = compare(one, other)
    assert found.exit_code() == 0
    assert [(own.table, own.both, own.lacking, own.outside, own.lag_ns) for own in found.tables] == [
        ("depth", 13, (0, 0), (2, 5), 2_000_000),
        ("trades", 13, (0, 0), (2, 5), 2_000_000),
    ]


def test_what_each_lacks_and_what_is_told_differently_is_named(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=(4, 5))
    other = recorded(
        tmp_path / "other",
        skip=(8,),
        edits={'"11.25"': b'"11.26"', '"t":3,"p":"100.2"': b'"t":3,"p":"100.3"'},
    )
    found = compare(one, other)
    assert found.exit_code() == 1
    depth, trades = found.tables
    assert (depth.lacking, depth.different) == ((2, 1), 1)
    assert depth.ids == {"first": [129, 134], "second": [149], "different": [159]}
    assert (trades.lacking, trades.different) == ((2, 1), 1)
    assert trades.ids == {"first": [4, 5], "second": [8], "different": [3]}


def test_best_bids_and_asks_are_compared_by_id(tmp_path: Path) -> None:
    def tickers(name: str, ids: range, bid: str = "100.10") -> Path:
        ticker = '%d {"stream":"btcusdt@bookTicker","data":{"u":%d,"s":"BTCUSDT","b":"%s","B":"1",%s}}'
        ask = '"a":"100.20","A":"2"'
        lines = [ticker % (TS + id_, id_, bid if id_ == 7 else "100.10", ask) for id_ in ids]
        source = tmp_path / f"{name}.log"
        source.write_text("\n".join(lines) + "\n")
        import_sources(
            [source], tmp_path / name, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT"
        )
        return tmp_path / name

    one = tickers("one", range(1, 10))
    assert compare(one, tickers("other", range(3, 12))).exit_code() == 0
    [found] = compare(one, tickers("third", range(5, 12, 2), bid="100.11")).tables
    assert (found.table, found.both, found.lacking, found.outside) == ("bbo", 3, (0, 2), (4, 1))
    assert (found.different, found.ids) == (1, {"first": [], "second": [6, 8], "different": [7]})


def test_recordings_without_anything_in_common_are_refused_or_differ(tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", skip=tuple(range(10, 20)))
    other = recorded(tmp_path / "other", skip=tuple(range(10)))
    assert compare(one, other).exit_code() == 1
    with pytest.raises(UsageError, match="no book, trades or best bids and asks of one symbol are in both"):
        compare(one, other, symbol="ETHUSDT")
