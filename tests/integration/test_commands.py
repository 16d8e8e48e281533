"""The command line: answers, exit codes, one object for machines, one sentence for what went wrong."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.cli.demo import demo_job
from mmdata.cli.main import main
from mmdata.recorder.config import load_job
from mmdata.replay import simulate, sweep
from tests.builders import spot_lines
from tests.integration.conftest import ENVIRONMENT, REPOSITORY, answered, mmdata


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """Return the demo's folder, its answer for machines, and what it said on stderr."""
    root = tmp_path_factory.mktemp("demo") / "data"
    run = mmdata("demo", "--out", root, "--json", timeout=120)
    assert run.returncode == 0, run.stderr
    return root, json.loads(run.stdout), run.stderr


def test_demo_job_is_the_shipped_configuration_with_one_gap_injected(tmp_path: Path) -> None:
    shipped = load_job(REPOSITORY / "config/demo.yaml").effective()
    ours = demo_job(tmp_path).effective()
    assert shipped.pop("sandbox") == "embedded"
    assert ours.pop("sandbox")["drop"] == ["8s"]
    assert ours.pop("root") == str(tmp_path)
    shipped.pop("root")
    assert ours == shipped


def test_demo_heals_one_gap_a_venue_and_proves_the_rest(demo: tuple[Path, dict[str, Any], str]) -> None:
    _, answer, _ = demo
    assert len(answer["healed"]) == 2
    assert all("the book was whole again" in sentence for sentence in answer["healed"])
    assert [venue["gaps"] for venue in answer["recorded"]["venues"]] == [1, 1]
    severities = {finding["severity"] for finding in answer["validation"]["findings"]}
    assert severities == {"warning"}


def test_demo_fills_every_model_at_least_20_times_with_four_different_results(
    demo: tuple[Path, dict[str, Any], str],
) -> None:
    _, answer, _ = demo
    assert [result["exchange"] for result in answer["results"]] == ["binance", "okx"]
    for result in answer["results"]:
        models = result["models"]
        assert [model["model"] for model in models] == ["price-cross", "trade-through", "poisson", "l2-queue"]
        assert min(model["fills"] for model in models) >= 20
        assert len({model["pnl"] for model in models}) == 4
        for model in models:
            parts = Decimal(model["spread"]) + Decimal(model["inventory"]) - Decimal(model["fees"])
            assert Decimal(model["pnl"]) == parts


def test_demo_is_done_within_a_minute(demo: tuple[Path, dict[str, Any], str]) -> None:
    assert demo[1]["seconds"] < 60


def test_line_of_polars_that_the_demo_ends_with_reads_its_trades_without_mmdata(
    demo: tuple[Path, dict[str, Any], str],
) -> None:
    _, answer, _ = demo
    without_us = os.environ | {"PYTHONPATH": ""}
    run = subprocess.run(
        [sys.executable, "-c", answer["polars"]], env=without_us, capture_output=True, text=True, check=True
    )
    assert "exchange" in run.stdout


def test_each_table_of_the_demo_is_read_by_polars(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    for table in ("depth", "snapshots", "trades", "bbo", "events", "instruments"):
        rows = pl.scan_parquet(f"{root}/{table}/**/*.parquet", hive_partitioning=True).collect()
        assert set(rows["exchange"]) == {"binance", "okx"}, table


def test_what_the_demo_holds_is_listed(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    run = answered("ls", root, "--exchange", "okx")
    assert run.returncode == 0, run.stderr
    assert f"{root}: 2 symbols" in run.stdout.replace("\n", "")
    assert "BTC-USDT" in run.stdout
    assert "BTCUSDT" not in run.stdout
    answer = json.loads(answered("ls", root, "--json").stdout)
    assert answer["schema"] == 1
    assert all(held["coverage"] > 0.5 for held in answer["symbols"] if held["symbol"] != "_")
    assert answered("ls", root / "none").returncode == 2
    assert answered("ls", root, "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("example", "said"), [("spread_and_depth.py", "spread"), ("bars_and_books.py", "correlation")]
)
def test_example_reads_the_demo(demo: tuple[Path, dict[str, Any], str], example: str, said: str) -> None:
    root, _, _ = demo
    run = subprocess.run(
        [
            sys.executable,
            REPOSITORY / "examples" / example,
            root,
            "--exchange",
            "okx",
            "--symbol",
            "BTC-USDT",
        ],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert said in run.stdout


def test_the_example_of_the_strategies_page_runs(
    demo: tuple[Path, dict[str, Any], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root, _, _ = demo
    page = (REPOSITORY / "docs/strategies.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(root.parent)
    names: dict[str, Any] = {}
    exec(block, names)
    result = names["result"]
    assert (result.strategy, result.parameter("lots").value) == ("join", 100.0)
    assert result.model("l2-queue").fills > 20
    assert "outcome" in capsys.readouterr().out


def test_a_sweep_over_the_demo_is_what_each_set_finds_alone(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    told: dict[str, Any] = {"exchange": "okx", "symbol": "BTC-USDT", "fills": "poisson,l2-queue", "seed": 3}
    sets: list[dict[str, object]] = [{"gamma": 0.0001}, {"gamma": 0.01, "max_inventory": 3}]
    for own, result in zip(sets, sweep(root, sets=sets, **told), strict=True):
        assert simulate(root, settings=own, **told).to_json_dict() == result.to_json_dict()


def test_a_strategy_of_a_file_trades_the_demo(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    ladder = REPOSITORY / "examples" / "ladder.py"
    told = ("replay", root, "--exchange", "binance", "--symbol", "BTCUSDT", "--strategy", f"{ladder}:ladder")
    fills = ("--fills", "at-or-through,l2-queue,hybrid")
    ran = answered(*told, *fills, "--set", "lots=100", "--set", "A=1", "--set", "k=0.1", "--json")
    assert ran.returncode == 0, ran.stderr
    answer = json.loads(ran.stdout)
    assert answer["strategy"] == "ladder"
    assert len(answer["hash"]) == 64
    assert [day["certificate"] for day in answer["data"] if len(day["certificate"]) == 64]
    assert all(model["fills"] > 20 for model in answer["models"])
    refused = answered(*told, "--set", "offset=-1")
    assert refused.returncode == 2
    assert "parameter offset of ladder was '-1', expected a number from 0 to 1000" in refused.stderr


def test_replay_of_the_demo_twice_gives_the_same_answer(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    told = ("replay", root, "--exchange", "binance", "--symbol", "BTCUSDT", "--seed", "3", "--json")
    first, second = mmdata(*told), answered(*told)
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    answer = json.loads(first.stdout)
    assert (answer["schema"], answer["seed"]) == (1, 3)
    named = {parameter["name"]: parameter for parameter in answer["parameters"]}
    for name in ("A", "k", "sigma"):
        assert named[name]["unit"]
        assert named[name]["source"].startswith("estimated from the first tenth")
    assert answer["clock"]["sessions"][0]["source"]
    assert answer["touch"] == "bbo"


def test_setting_that_is_set_stands_in_the_result(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    told = ("replay", root, "--exchange", "okx", "--symbol", "BTC-USDT", "--json")
    run = answered(*told, "--set", "A=30", "--set", "k=1.5", "--fills", "l2-queue")
    answer = json.loads(run.stdout)
    named = {parameter["name"]: parameter for parameter in answer["parameters"]}
    assert (named["A"]["value"], named["A"]["source"]) == (30.0, "set")
    assert [model["model"] for model in answer["models"]] == ["l2-queue"]


def test_table_for_people_names_every_model_and_parameter(demo: tuple[Path, dict[str, Any], str]) -> None:
    root, _, _ = demo
    run = answered("replay", root, "--exchange", "binance", "--symbol", "BTCUSDT")
    for word in (
        "price-cross",
        "trade-through",
        "poisson",
        "l2-queue",
        "sigma",
        "tick/√s",
        "seed 0",
        "shifted by",
    ):
        assert word in run.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--fills", "psychic"], "fill model 'psychic' is not known"),
        (["--set", "gama=1"], "did you mean gamma?"),
        (["--set", "gamma"], "expected name=value"),
        (["--set", "gamma=-1"], "setting gamma was '-1', expected a number"),
        (["--strategy", "magic"], "magic"),
        (["--from", "noon"], "'noon' is not a moment"),
        (["--clock", "sundial"], "sundial"),
    ],
)
def test_wrong_replay_is_exit_2_with_a_sentence(
    demo: tuple[Path, dict[str, Any], str], args: list[str], sentence: str
) -> None:
    root, _, _ = demo
    run = answered("replay", root, "--exchange", "binance", "--symbol", "BTCUSDT", *args)
    assert run.returncode == 2
    assert run.stdout == ""
    assert sentence in run.stderr
    assert "Traceback" not in run.stderr


STRATEGIES = """
from mmdata.replay.desk import ASK, BID, keep
from mmdata.replay.view import best_bid

def lost(view, desk):
    keep(desk, 0, BID, float("nan"), 1)

def crossed(view, desk):
    keep(desk, 0, BID, best_bid(view), 1)
    keep(desk, 1, ASK, best_bid(view) - 3, 1)
"""


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("lost", "it asked for 1 lots at nan ticks in slot 0, expected whole ticks"),
        ("crossed", "expected the bid below the ask"),
        ("none", "own.py:none: the file has no strategy of this name"),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "for machines"])
def test_strategy_that_quotes_what_cannot_be_is_exit_2_without_a_result(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path, name: str, sentence: str, form: tuple[str, ...]
) -> None:
    root, _, _ = demo
    path = tmp_path / "own.py"
    path.write_text(STRATEGIES, encoding="utf-8")
    told = ("--exchange", "okx", "--symbol", "BTC-USDT", "--fills", "l2-queue", *form)
    run = answered("replay", root, *told, "--strategy", f"{path}:{name}")
    assert (run.returncode, run.stdout) == (2, "")
    assert sentence in (json.loads(run.stderr)["error"] if form else run.stderr)
    assert [own.name for own in tmp_path.iterdir() if own.suffix] == ["own.py"]


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["for people", "for machines"])
def test_dataset_without_snapshots_is_exit_2_without_a_result(
    demo: tuple[Path, dict[str, Any], str], tmp_path: Path, form: tuple[str, ...]
) -> None:
    root, _, _ = demo
    shutil.copytree(root / "depth", tmp_path / "data" / "depth")
    run = answered("replay", tmp_path / "data", "--exchange", "binance", "--symbol", "BTCUSDT", *form)
    assert (run.returncode, run.stdout) == (2, "")
    said = json.loads(run.stderr)["error"] if form else run.stderr
    assert "the strategy never saw a valid book" in said
    assert "book messages and 0 snapshots, and a book takes a snapshot" in said


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"".join(spot_lines()))
    return path


def import_(source: Path, out: Path, *args: str) -> subprocess.CompletedProcess[str]:
    told = ("--format", "hftbacktest", "--exchange", "binance", "--symbol", "BTCUSDT", "--out", out)
    return answered("import", source, *told, *args)


def test_import_tells_what_it_derived_and_counts_every_line(source: Path, tmp_path: Path) -> None:
    run = import_(source, tmp_path / "data")
    assert run.returncode == 0, run.stderr
    assert "BTCUSDT: tick 0.1, lot 0.25 (derived from the values seen)" in run.stdout
    answer = json.loads(import_(source, tmp_path / "other", "--json").stdout)
    assert answer["accounting"]["lines"] == 21


def test_import_with_a_quarantined_line_is_exit_1(source: Path, tmp_path: Path) -> None:
    source.write_bytes(b"".join(spot_lines()).replace(b'"t":4', b'"t":"four"'))
    run = import_(source, tmp_path / "data", "--json")
    assert run.returncode == 1
    assert json.loads(run.stdout)["accounting"]["quarantined"] == 1


def test_parquet_of_length_0_is_told_by_validate_and_by_replay(source: Path, tmp_path: Path) -> None:
    import_(source, tmp_path / "data")
    [path] = (tmp_path / "data/trades").rglob("*.parquet")
    path.write_bytes(b"")
    told = answered("validate", tmp_path / "data")
    assert told.returncode == 1
    assert "is empty (0 bytes), expected a Parquet file" in told.stdout.replace("\n", " ")
    run = answered("replay", tmp_path / "data", "--exchange", "binance", "--symbol", "BTCUSDT")
    assert run.returncode == 1
    assert f"{path}: cannot be read as Parquet (0 bytes" in run.stderr


def test_validate_exits_0_for_recorded_flaws_and_1_with_strict(source: Path, tmp_path: Path) -> None:
    source.write_bytes(b"".join(spot_lines(skip=(4,))))
    import_(source, tmp_path / "data")
    assert answered("validate", tmp_path / "data").returncode == 0
    assert answered("validate", tmp_path / "data", "--strict").returncode == 1
    answer = json.loads(answered("validate", tmp_path / "data", "--json").stdout)
    assert (answer["schema"], answer["exit"]) == (2, 0)


def test_data_comes_from_the_environment(source: Path, tmp_path: Path) -> None:
    import_(source, tmp_path / "data")
    run = subprocess.run(
        [sys.executable, "-m", "mmdata.cli.main", "validate"],
        env=ENVIRONMENT | {"MMDATA_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    "args", [["validate", "nowhere"], ["record", "nowhere.yaml"], ["rcord"], ["replay", "--nope"]]
)
def test_error_for_machines_is_one_object_on_stderr(args: list[str]) -> None:
    run = mmdata(*args, "--json")
    assert run.returncode == 2
    assert run.stdout == ""
    told = json.loads(run.stderr)
    assert (told["schema"], told["exit"]) == (1, 2)
    assert told["error"]


def test_bug_of_ours_is_exit_70_with_the_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def broken(path: Path) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("mmdata.recorder.config.load_job", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(SystemExit) as done:
        main(["config", "show", "x.yaml"])
    assert done.value.code == 70
    said = capsys.readouterr().err
    assert "this is a bug in mmdata (ZeroDivisionError: by zero)" in said
    [file] = tmp_path.glob("mmdata-bug-*.txt")
    assert str(file) in said
    assert "ZeroDivisionError" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "verb", ["demo", "record", "status", "recover", "import", "validate", "replay", "sandbox"]
)
def test_help_of_every_verb_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main([verb, "--help"])
    assert done.value.code == 0
    assert f"Example: mmdata {verb}" in " ".join(capsys.readouterr().out.split())


def test_configuration_is_shown_with_every_default_and_its_schema_is_json() -> None:
    run = answered("config", "show", REPOSITORY / "config/binance.yaml", "--json")
    assert json.loads(run.stdout)["job"]["connect_timeout"] == "30s"
    assert json.loads(answered("config", "schema").stdout)["title"] == "mmdata recording job"


def test_version_is_told() -> None:
    assert answered("--version").stdout.startswith("mmdata ")


def test_sandbox_prints_its_addresses_and_ends_by_a_signal() -> None:
    command = [sys.executable, "-m", "mmdata.cli.main", "sandbox", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as child:
        assert child.stdout is not None
        addresses = json.loads(child.stdout.readline())
        assert addresses["binance"]["ws_url"].startswith("ws://127.0.0.1:")
        child.terminate()
        assert child.wait(timeout=10) == 0
