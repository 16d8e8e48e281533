"""The command line over table formats: import, compare, merge; answers, exit codes, what is left."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest

from tests.builders import rows, spot_lines
from tests.integration.conftest import answered
from tests.unit.test_table_formats import BOOK, L2, SPOT_MS, TRADES, trade, zipped

TICK = ("--tick", "0.01", "--lot", "0.00001")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "BTCUSDT-trades-2023-11-14.zip"
    path.write_bytes(zipped("BTCUSDT-trades-2023-11-14.csv", SPOT_MS))
    return path


def test_import_tells_what_it_did_and_ends_with_1_for_a_line_in_quarantine(tmp_path: Path) -> None:
    book, trades = tmp_path / "book.csv", tmp_path / "trades.csv"
    book.write_text(L2 + "".join(BOOK))
    trades.write_text(TRADES + trade(1, 5))
    done = answered("import", book, trades, "-f", "tardis", "--out", tmp_path / "data", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["exchange"], told["accounting"]["rows in depth"], told["accounting"]["rows in trades"]) == (
        "binance",
        5,
        1,
    )
    assert told["derived"] == {"BTCUSDT": ["0.05", "0.0000001"]}
    assert told["certified"] == 2
    assert answered("verify", tmp_path / "data").returncode == 0
    book.write_text(L2 + "nonsense\n" + "".join(BOOK))
    done = answered("import", book, "-f", "tardis", "--out", tmp_path / "bad")
    assert done.returncode == 1
    assert "quarantined" in done.stdout


def test_comparison_with_an_archive_leaves_nothing_and_ends_with_1_where_they_differ(
    tmp_path: Path, archive: Path
) -> None:
    asked = ("-f", "binance-public", "--exchange", "binance")
    assert answered("import", archive, *asked, "--out", tmp_path / "data").returncode == 0
    before = set(tmp_path.rglob("*"))
    left = {*Path(tempfile.gettempdir()).glob("mmdata-compare-*")}
    same = answered("import", archive, *asked, "--compare", tmp_path / "data")
    assert same.returncode == 0, same.stderr
    assert "0 of 1 differ" in same.stdout
    archive.write_bytes(zipped("x.csv", SPOT_MS.replace("100.10", "100.11")))
    other = answered("import", archive, *asked, "--compare", tmp_path / "data", "--json")
    assert other.returncode == 1
    [table] = json.loads(other.stdout)["tables"]
    assert (table["both"], table["different"], table["ids"]["different"]) == (2, 1, [1])
    assert set(tmp_path.rglob("*")) == before
    assert {*Path(tempfile.gettempdir()).glob("mmdata-compare-*")} == left


def test_merge_says_what_came_from_where_and_two_datasets_are_compared_as_they_are(tmp_path: Path) -> None:
    for name, skip in (("one", (4,)), ("other", (8,))):
        source = tmp_path / f"{name}.log"
        source.write_bytes(b"".join(spot_lines(skip=skip)))
        asked = ("-f", "hftbacktest", "--exchange", "binance", "--symbol", "BTCUSDT", *TICK)
        assert answered("import", source, *asked, "--out", tmp_path / name).returncode == 0
    done = answered("merge", tmp_path / "one", tmp_path / "other", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["rows"]["depth"], told["gaps"]) == (10, 0)
    assert (told["certified"], told["warnings"]) == (2, [])
    assert answered("verify", tmp_path / "out").returncode == 0
    assert len(rows(tmp_path / "out", "depth")) == 10
    again = answered("merge", tmp_path / "one", tmp_path / "other", "--out", tmp_path / "out")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    compared = answered("import", tmp_path / "one", "--compare", tmp_path / "out")
    assert compared.returncode == 1
    assert "A lacks ids 129" in compared.stdout


def test_ticks_of_a_file_are_taken_and_an_unknown_format_names_all(tmp_path: Path) -> None:
    book, steps = tmp_path / "book.csv", tmp_path / "steps.yaml"
    book.write_text(L2 + "".join(BOOK))
    steps.write_text("BTCUSDT: ['0.01', '0.00001']\n")
    asked = ("-f", "tardis", "--instruments", steps, "--out", tmp_path / "data")
    assert answered("import", book, *asked).returncode == 0
    assert [row["source"] for row in rows(tmp_path / "data", "instruments")] == ["user"]
    done = answered("import", book, "-f", "tradis")
    assert done.returncode == 2
    assert "hftbacktest, cryptofeed, tardis, binance-public, okx-public" in done.stderr
