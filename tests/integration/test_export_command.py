"""`mmdata export`."""

from __future__ import annotations

import json
from pathlib import Path

from mmdata.recorder.importing import import_sources
from tests.builders import spot_lines
from tests.integration.conftest import answered
from tests.integration.test_compacting import finished_day


def test_command_writes_files_and_says_which(tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    finished_day(root)
    finished_day(root, "ETHUSDT")
    wanted = ("--symbol", "ETHUSDT", "--to", "2024-08-08")
    run = answered("export", root, "-f", "csv", "--out", out, *wanted, "--json")
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    name = "binance/orderbook_ws_depth_ETHUSDT_20240808.csv"
    assert (answer["schema"], answer["format"]) == (1, "csv")
    assert [(file["path"], file["rows"]) for file in answer["files"]] == [(str(out / name), 6)]
    assert [str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()] == [name]

    again = answered("export", root, "-f", "csv", "--out", out, "--json")
    assert again.returncode == 2
    assert "nothing was overwritten" in json.loads(again.stderr)["error"]
    assert answered("export", root, "-f", "tape", "--out", out).returncode == 2
    assert answered("export", tmp_path / "none", "-f", "csv", "--out", out).returncode == 2


def test_table_names_files_units_and_what_was_done_to_the_clock(tmp_path: Path) -> None:
    source, root = tmp_path / "btcusdt.txt", tmp_path / "data"
    source.write_bytes(b"".join(spot_lines()))
    import_sources([source], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    run = answered("export", root, "-f", "hftbacktest", "--out", tmp_path / "npz")
    assert run.returncode == 0, run.stderr
    # A clear and three levels, nine changes, ten trades. All happened at one moment, when the exchange has
    # the trades first: the thirteen rows of the book stand twice.
    assert run.stdout.split("binance_BTCUSDT_20240808.npz")[1].split()[0] == "36"
    assert "binance BTCUSDT: tick 0.1, lot 0.25" in run.stdout
    assert "(least latency set to 1 ms)" in run.stdout
    assert answered("export", root, "-f", "csv", "--out", tmp_path / "csv", "--quiet").stdout == ""


def test_what_no_book_can_be_made_of_is_nothing_to_export(tmp_path: Path) -> None:
    root = tmp_path / "data"
    finished_day(root)
    run = answered("export", root, "-f", "hftbacktest", "--out", tmp_path / "out", "--exchange", "binance")
    assert run.returncode == 2
    assert "nothing that hftbacktest holds was received" in run.stderr


def test_what_csv_and_tardis_hold_comes_back_and_is_certified(tmp_path: Path) -> None:
    source, root = tmp_path / "btcusdt.txt", tmp_path / "data"
    source.write_bytes(b"".join(spot_lines()))
    import_sources([source], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    for form, trades in (("csv", "trades_ws_*"), ("tardis", "*_trades_*")):
        out, again = tmp_path / form, tmp_path / f"{form}-data"
        assert answered("export", root, "-f", form, "--out", out).returncode == 0
        files = [*out.rglob("*.csv*")] if form == "csv" else [*out.rglob("*incremental*"), *out.rglob(trades)]
        run = answered("import", *files, "-f", form, "--exchange", "binance", "--out", again, "--json")
        assert run.returncode == 0, run.stderr
        assert json.loads(run.stdout)["accounting"]["rows in trades"] == 10
        assert answered("verify", again).returncode == 0
    refused = answered("import", *files, "-f", "csv", "--symbol", "BTCUSDT", "--tick", "1", "--lot", "1")
    assert (refused.returncode, "its files hold the dataset's own instruments" in refused.stderr) == (2, True)
