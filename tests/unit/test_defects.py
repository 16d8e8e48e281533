"""The generator of golden defects: what each kind does to a dataset, and how findings are scored."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.datasets.certificate.store import CERTIFICATES
from mmdata.datasets.errors import UsageError
from mmdata.datasets.schema import TABLES, arrow_schema
from mmdata.datasets.validation import Finding
from mmdata.sandbox.defects import KINDS, Kind, Label, generate, make_twin, read_labels, score
from mmdata.sandbox.defects.__main__ import main
from mmdata.sandbox.defects.labels import LABELS

ATTEMPTS = 20
"""Seeds that are tried for a kind that finds no place in a market of the one drawn."""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, defects_seed: int) -> Path:
    root = tmp_path_factory.mktemp("twin")
    make_twin(root, defects_seed)
    return root


@pytest.fixture(scope="module")
def twin_files(twin: Path) -> dict[str, str]:
    return files(twin)


def planted(twin: Path, root: Path, name: str, seed: int) -> list[Label]:
    """Plant one defect in a copy of the twin; places are drawn until there is one."""
    for attempt in range(ATTEMPTS):
        try:
            return generate(root, seed + attempt, kinds=[name], source=twin)
        except UsageError:
            for path in sorted(root.rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
    pytest.fail(f"no place for {name} in the twin of seed {seed}")


def files(root: Path) -> dict[str, str]:
    """Return the hash of each file but the labels."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file() and path.name != LABELS and CERTIFICATES not in path.parts
    }


def rows(root: Path, name: str) -> list[dict[str, Any]]:
    read = pq.read_table(root / name, partitioning=None)
    for at, field in enumerate(read.schema):
        if pa.types.is_timestamp(field.type):
            read = read.set_column(at, field.name, read[field.name].cast(pa.int64()))
    return read.to_pylist()  # type: ignore[no-any-return]


# --- the twin


def test_same_seed_gives_the_same_bytes_and_another_other_ones(tmp_path: Path, defects_seed: int) -> None:
    one, again, other = (tmp_path / name for name in ("one", "again", "other"))
    labels = generate(one, defects_seed, mixed=3)
    assert generate(again, defects_seed, mixed=3) == labels
    assert files(one) == files(again)
    generate(other, defects_seed + 1, mixed=3)
    assert files(one) != files(other)


def test_twin_has_the_tables_as_the_schema_has_them_and_a_few_thousand_rows_a_symbol(twin: Path) -> None:
    tables = set()
    for path in twin.rglob("*.parquet"):
        table = path.relative_to(twin).parts[0]
        tables.add(table)
        assert pq.read_schema(path).remove_metadata().equals(arrow_schema(table))
    assert tables == {*TABLES} - {"quarantine"}
    for folder in (twin / "depth").glob("*/*"):
        counts = [pq.read_metadata(path).num_rows for path in folder.rglob("*.parquet")]
        assert 2_000 < sum(counts) < 10_000
        assert len(counts) >= 2  # both sides of midnight


# --- each kind


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_defect_changes_only_what_its_label_names_and_the_rest_stays_readable(
    kind: Kind, twin: Path, twin_files: dict[str, str], tmp_path: Path, defects_seed: int
) -> None:
    labels = planted(twin, tmp_path, kind.name, defects_seed)
    assert read_labels(tmp_path) == labels
    assert {(label.kind, label.check, label.severity) for label in labels} == {
        (kind.name, kind.check, kind.severity)
    }
    assert {label.exchange for label in labels} <= {*kind.exchanges}
    after = files(tmp_path)
    changed = {name for name in twin_files.keys() | after if twin_files.get(name) != after.get(name)}
    assert changed
    exchange = labels[0].exchange
    symbols = {"_"} if kind.session_wide else {label.symbol for label in labels}
    for name in changed:
        assert name.startswith(f".captures/{exchange}/") or any(
            f"/exchange={exchange}/symbol={symbol}/" in name for symbol in symbols
        )
    if kind.check not in ("file", "schema", "name"):
        for name in changed & after.keys():
            if name.endswith(".parquet"):
                schema = arrow_schema(name.partition("/")[0])
                assert pq.read_schema(tmp_path / name).remove_metadata().equals(schema)
    for label in labels:
        check_place(label, tmp_path, changed)


def check_place(label: Label, root: Path, changed: set[str]) -> None:
    """Check that what a label says of its place is so."""
    if label.file is None:
        return
    assert label.file in changed or label.kind in SHOWS_ELSEWHERE
    if label.check in ("file", "schema", "name", "pending") or label.frame is None:
        return
    told = rows(root, label.file)
    if label.row is None:
        assert any((row["session"], row["frame"]) == (label.session, label.frame) for row in told)
    elif label.kind == "frames_swapped":
        assert told[label.row]["frame"] < told[label.row - 1]["frame"]
    else:
        assert (told[label.row]["session"], told[label.row]["frame"]) == (label.session, label.frame)


SHOWS_ELSEWHERE = {
    *("diff_lost", "ids_altered", "part_lost", "touch_size_wrong", "ghost_level"),
    *("agg_lost", "trade_lost"),
}
"""Kinds that are seen at another place than they are planted, which can lie in another file."""


def finding(label: Label) -> Finding:
    """Return the finding that says just what a label does."""
    return Finding(
        severity=label.severity,
        check=label.check,
        exchange=label.exchange,
        symbol=label.symbol,
        count=1 if label.count is None else label.count,
        sentence="",
        session=label.session,
        frame=label.frame,
        id=label.id,
        ts_recv=label.ts_recv,
        table=label.table,
        file=label.file,
        row=label.row,
    )


# --- mixed


def test_mixed_defects_touch_no_market_twice(tmp_path: Path, defects_seed: int) -> None:
    labels = generate(tmp_path, defects_seed, mixed=6)
    names = {label.kind for label in labels}
    assert len(names) == 6
    lanes = [
        (label.exchange, "_" if KINDS[label.kind].session_wide else label.symbol, lane)
        for label in {label.kind: label for label in labels}.values()
        for lane in KINDS[label.kind].touches
    ]
    assert len(lanes) == len({*lanes})


# --- the score

LABEL = Label(
    kind="diff_lost",
    check="chain",
    severity="error",
    exchange="binance",
    symbol="BTCUSDT",
    count=1,
    table="depth",
    file="depth/a.parquet",
    session="s",
    frame=7,
)
FOUND = finding(LABEL)


def test_finding_in_its_place_names_the_label() -> None:
    told = score([LABEL], [replace(FOUND, file="/data/depth/a.parquet", row=3, ts_recv=5)])
    assert told.perfect
    assert [label for label, _ in told.named] == [LABEL]


@pytest.mark.parametrize(
    "other",
    [
        {"frame": 8},
        {"session": "t"},
        {"file": "/data/depth/b.parquet"},
        {"count": 2},
        {"severity": "warning"},
        {"frame": None, "session": None},
        {"table": "bbo"},
    ],
)
def test_other_place_count_or_severity_is_wrong(other: dict[str, Any]) -> None:
    told = score([LABEL], [replace(FOUND, **other)])
    assert [label for label, _ in told.wrong] == [LABEL]
    assert not told.perfect
    assert "diff_lost" in str(told)


@pytest.mark.parametrize("other", [{"check": "bbo"}, {"symbol": "ETHUSDT"}, {"exchange": "okx"}])
def test_finding_of_another_check_or_market_is_extra_and_the_label_missed(other: dict[str, Any]) -> None:
    found = replace(FOUND, **other)
    told = score([LABEL], [found])
    assert (told.missed, told.extra) == ([LABEL], [found])


def test_one_finding_names_one_label() -> None:
    told = score([LABEL, LABEL], [FOUND])
    assert (len(told.named), told.missed) == (1, [LABEL])


def test_same_finding_twice_is_one_too_many() -> None:
    assert score([LABEL], [FOUND, FOUND]).extra == [FOUND]


def test_what_was_known_before_is_no_extra_finding_but_counts_once() -> None:
    known = replace(FOUND, check="latency", severity="warning", count=3, frame=None, session=None, file=None)
    assert score([LABEL], [FOUND, replace(known, count=2)], [known]).perfect
    assert score([LABEL], [FOUND, known, known], [known]).extra == [known]


def test_known_finding_does_not_hide_one_of_the_same_check_elsewhere() -> None:
    anywhere = replace(FOUND, frame=None, session=None, file=None)
    assert score([LABEL], [FOUND, anywhere], [anywhere]).perfect


# --- the command, and the page


def test_command_makes_the_dataset_and_its_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["--seed", "3", "--out", str(out), "--kinds", "trade_lost,file_empty"]) == 0
    assert "2 labels of" in capsys.readouterr().out
    told = json.loads((out / LABELS).read_text(encoding="utf-8"))
    assert [label["kind"] for label in told["labels"]] == ["trade_lost", "file_empty"]
    assert (told["schema"], told["seed"]) == (1, 3)


def test_command_refuses_a_folder_that_is_not_empty_and_a_kind_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_text("x", encoding="utf-8")
    assert main(["--seed", "3", "--out", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["--seed", "3", "--out", str(tmp_path / "new"), "--kinds", "nonsense"]) == 2
    assert "nonsense" in capsys.readouterr().err


def test_kind_without_a_place_is_refused_by_name(tmp_path: Path) -> None:
    make_twin(tmp_path / "twin", 1)
    for path in sorted((tmp_path / "twin/trades").rglob("*.parquet")):
        path.unlink()
    with pytest.raises(UsageError, match="trade_lost"):
        generate(tmp_path / "out", 1, kinds=["trade_lost"], source=tmp_path / "twin")


PAGE = Path(__file__).parents[2] / "docs/defects.md"


def page_rows() -> Iterator[tuple[str, ...]]:
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = re.fullmatch(r"\| `(\w+)` \| `(\w+)` \| (\w+) \| ([^|]+) \| ([^|]+) \|", line)
        if cells is not None:
            yield cells.groups()


def test_page_lists_every_kind_as_the_code_has_it() -> None:
    held = [
        (kind.name, kind.check, kind.severity, ", ".join(kind.exchanges), kind.meaning)
        for kind in KINDS.values()
    ]
    assert [*page_rows()] == held


def test_there_are_at_least_forty_kinds_and_each_has_a_sentence() -> None:
    assert len(KINDS) >= 40
    assert all(kind.meaning.endswith(".") for kind in KINDS.values())
