"""A dataset in an S3 bucket (moto's server on loopback): the same answers as from a folder."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.fs as fs
import pytest
from moto.server import ThreadedMotoServer

from mmdata.datasets import bars, books, catalog, scan, segments, stores, trades, validate
from mmdata.datasets.compaction import compact
from mmdata.datasets.errors import DiskError, UsageError
from mmdata.datasets.layout import list_parts, list_symbols
from mmdata.recorder.importing import import_sources
from mmdata.replay import tops
from tests.builders import spot_lines
from tests.integration.conftest import ENVIRONMENT, mmdata, write_job
from tests.recordings import Recording

SYMBOL: dict[str, Any] = {"exchange": "binance", "symbol": "BTCUSDT"}
BUCKET = "s3://research/data"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Run an object store until the module's tests are done."""
    server = ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "somebody")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset in a folder: two sessions of one symbol, and two names that are no plain words."""
    root = tmp_path_factory.mktemp("data")
    for name, skip in (("first", ()), ("second", (4,))):
        source = root / ".captures" / f"{name}.txt"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(b"".join(spot_lines(skip=skip, count=10 if name == "first" else 12)))
        import_sources([source], root, source_format="hftbacktest", **SYMBOL)
    for symbol in ("123", "币安/USDT"):
        recording = Recording(root, "okx", symbol)
        recording.instrument(recording.tick, recording.lot)
        recording.diff([("bid", 3, 2)])
        recording.snapshot()
        recording.part()
    return root


@pytest.fixture(scope="module")
def bucket(endpoint: str, local: Path) -> str:
    """Return the same dataset in a bucket."""
    store = fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    store.create_dir("research")
    fs.copy_files(str(local), "research/data", destination_filesystem=store)
    return BUCKET


@pytest.fixture
def requests() -> Iterator[Callable[[], list[str]]]:
    """Return a function that returns the requests that the store answered so far."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("werkzeug")
    log.addHandler(handler)
    yield lambda: [line.split('"')[1] for line in lines if '"' in line]
    log.removeHandler(handler)


@pytest.mark.parametrize(
    "read",
    [
        lambda root: scan(root, "depth").collect(),
        lambda root: scan(root, "depth", symbol="币安/USDT", prices="ticks").collect(),
        lambda root: scan(root, "trades", symbol="BTCUSDT", prices="float").collect(),
        lambda root: trades(root, **SYMBOL).collect(),
        lambda root: bars(root, **SYMBOL, every="5ms", clock="ts_recv"),
        lambda root: books(root, **SYMBOL, depth=2),
        lambda root: books(root, **SYMBOL, depth=2, every="1ms", layout="long"),
        lambda root: segments(root, **SYMBOL),
        lambda root: tops(root, exchange="okx", symbol="123"),
    ],
    ids=["scan", "ticks", "floats", "trades", "bars", "books", "sampled", "segments", "tops"],
)
def test_answers_are_those_from_a_folder(
    bucket: str, local: Path, read: Callable[[Any], pl.DataFrame]
) -> None:
    expected = read(local)
    assert not expected.is_empty()
    assert read(bucket).equals(expected)


def test_catalog_is_that_of_the_folder(bucket: str, local: Path) -> None:
    there, here = catalog(bucket).to_json_dict(), catalog(local).to_json_dict()
    assert (there.pop("root"), here.pop("root")) == (BUCKET, str(local))
    assert there == here
    assert list_symbols(bucket) == list_symbols(local)


def test_validator_says_of_a_bucket_what_it_says_of_the_folder(bucket: str, local: Path) -> None:
    there, here = validate(bucket).to_json_dict(), validate(local).to_json_dict()
    assert there["symbols"] == here["symbols"]
    assert json.dumps(there).replace(BUCKET, str(local)) == json.dumps(here)
    assert {day["is_open"] for own in there["symbols"] for day in own["days"]} == {False}


def test_validator_names_a_foreign_object_of_a_bucket(endpoint: str, local: Path) -> None:
    store = fs.S3FileSystem(
        endpoint_override=endpoint, scheme="http", region="us-east-1", allow_bucket_creation=True
    )
    store.create_dir("foreign")
    fs.copy_files(str(local), "foreign/data", destination_filesystem=store)
    with store.open_output_stream("foreign/data/depth/exchange=binance/notes.txt") as stream:
        stream.write(b"x")
    [found] = [own for own in validate("s3://foreign/data").findings if own.check == "name"]
    assert found.file == "s3://foreign/data/depth/exchange=binance/notes.txt"


def test_compacted_days_are_read_by_what_their_files_say(endpoint: str, bucket: str, local: Path) -> None:
    compact(local)
    store = fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1")
    fs.copy_files(str(local), "research/compacted", destination_filesystem=store)
    there = list_parts("s3://research/compacted", "depth", **SYMBOL)
    assert [(part.session, part.offset, part.rows) for part in there] == [
        (part.session, part.offset, part.rows) for part in list_parts(local, "depth", **SYMBOL)
    ]
    compacted = books("s3://research/compacted", **SYMBOL, depth=2)
    assert compacted.equals(books(bucket, **SYMBOL, depth=2))


def test_only_objects_of_what_is_asked_for_are_read_and_a_table_is_listed_by_one_request(
    bucket: str, requests: Callable[[], list[str]]
) -> None:
    rows = scan(bucket, "trades", symbol="BTCUSDT").select("price").collect()
    assert rows.height
    asked = [line for line in requests() if "GET " in line]
    assert sum("list-type" in line for line in asked) == 2  # narrow and wide
    read = [line for line in asked if ".parquet" in line]
    assert read
    assert all("/data/trades/exchange=binance/symbol=BTCUSDT/" in line for line in read)


@pytest.mark.parametrize("root", ["s3://research/nothing", "s3://nobody/data"])
def test_prefix_or_bucket_without_a_dataset_holds_nothing(bucket: str, root: str) -> None:
    assert scan(root, "depth").collect().is_empty()
    with pytest.raises(UsageError, match="no depth of binance BTCUSDT; it holds nothing"):
        books(root, **SYMBOL)


def test_store_that_refuses_is_said(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("AWS Error ACCESS_DENIED during ListObjectsV2")

    monkeypatch.setattr(stores, "_filesystem", lambda: type("Refusing", (), {"get_file_info": refused})())
    with pytest.raises(DiskError, match=r"s3://research/data/depth: .* could not be listed .*ACCESS_DENIED"):
        scan(bucket, "depth")
    with pytest.raises(DiskError, match=r"s3://research/data: .* cannot be asked .*ACCESS_DENIED"):
        catalog(bucket)


def test_ls_takes_a_bucket(bucket: str) -> None:
    store = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    run = mmdata("ls", bucket, "--json", env=ENVIRONMENT | store)
    assert run.returncode == 0, run.stderr
    assert [held["symbol"] for held in json.loads(run.stdout)["symbols"]] == [
        "BTCUSDT",
        "_",
        "123",
        "币安/USDT",
    ]


@pytest.mark.parametrize(
    "command", ["compact", "recover", "import", "record", "verify", "certify", "merge", "export"]
)
def test_what_writes_refuses_a_bucket_and_leaves_nothing(tmp_path: Path, command: str) -> None:
    source = tmp_path / "capture.txt"
    source.write_bytes(b"".join(spot_lines()))
    venue = {"exchange": "binance", "symbols": ["BTCUSDT"]}
    arguments: dict[str, list[str | Path]] = {
        "compact": [BUCKET],
        "recover": [BUCKET],
        "import": [
            source,
            "-f",
            "hftbacktest",
            "--exchange",
            "binance",
            "--symbol",
            "BTCUSDT",
            "--out",
            BUCKET,
        ],
        "record": [write_job(tmp_path / "job.yaml", root=BUCKET, venues=[venue], duration="1s")],
        "verify": [BUCKET],
        "certify": [BUCKET],
        "merge": [tmp_path, tmp_path, "--out", BUCKET],
        "export": [tmp_path, "-f", "csv", "--out", BUCKET],
    }
    run = mmdata(command, *arguments[command], cwd=tmp_path)
    assert run.returncode == 2
    assert "local folder" in run.stderr
    assert not (tmp_path / "s3:").exists()
