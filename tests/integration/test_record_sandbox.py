"""Half a minute of both venues with messages withheld: what is recorded against what really happened."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.datasets.book import rebuild
from mmdata.datasets.layout import list_parts
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import read_part
from mmdata.datasets.schema import TABLES
from mmdata.datasets.validation import validate
from mmdata.recorder.capture import FRAME, Line, read_segment
from mmdata.recorder.segments import ingest_segment
from mmdata.sandbox import Truth, read_truth
from tests.books import compare_books
from tests.builders import rows
from tests.integration.conftest import mmdata, running_sandbox, write_job

SYMBOLS = {"binance": ["BTCUSDT", "ETHUSDT"], "okx": ["BTC-USDT", "ETH-USDT"]}
VENUES = sorted(SYMBOLS)
DROPS = (6.0, 13.0, 20.0)
DURATION = "30s"


class Recording(NamedTuple):
    """A dataset, what really happened, and what the command said of it."""

    root: Path
    truth: Truth
    told: dict[str, Any]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """Return both venues recorded by the command line while one diff each is withheld three times."""
    folder = tmp_path_factory.mktemp("recording")
    with running_sandbox(folder / "truth", drop=DROPS, seed=7, speed=10.0) as sandbox:
        venues = [sandbox.venue(exchange, SYMBOLS[exchange]) for exchange in VENUES]
        segment = {"seconds": "4s", "bytes": "64MiB"}
        job = write_job(
            folder / "job.yaml", root=str(folder / "data"), venues=venues, duration=DURATION, segment=segment
        )
        run = mmdata("record", job, "--json")
    assert run.returncode == 0, run.stderr
    return Recording(folder / "data", read_truth(folder / "truth"), json.loads(run.stdout))


def captured(root: Path, exchange: str) -> list[Line]:
    segments = sorted((root / ".captures" / exchange).glob("*/*"))
    return [line for path in segments for line in read_segment(path).lines]


def gaps(root: Path, exchange: str, channel: str = "depth") -> list[dict[str, Any]]:
    found = []
    for symbol in SYMBOLS[exchange]:
        for part in list_parts(root, "events", exchange=exchange, symbol=symbol):
            table = pq.read_table(
                part.path, columns=["kind", "channel", "last_id", "next_id", "detail", "frame"]
            )
            found += [row for row in table.to_pylist() if (row["kind"], row["channel"]) == ("gap", channel)]
    return found


@pytest.mark.parametrize("exchange", VENUES)
def test_each_withheld_message_is_one_gap_with_the_ids_around_it(recording: Recording, exchange: str) -> None:
    withheld = [dropped for dropped in recording.truth.dropped if dropped.venue == exchange]
    assert len(withheld) == len(DROPS)
    expected = [
        # The book stood just before what was withheld; the next message began just after it.
        (d.first_id - 1, d.last_id + 1) if exchange == "binance" else (d.first_id, d.last_id)
        for d in withheld
    ]
    found = gaps(recording.root, exchange)
    assert [(gap["last_id"], gap["next_id"]) for gap in found] == expected
    assert {json.loads(gap["detail"])["cause"] for gap in found} == {"missing"}
    assert gaps(recording.root, exchange, "trades") == []


@pytest.mark.parametrize("exchange", VENUES)
def test_book_is_invalid_from_each_gap_to_the_next_snapshot_and_valid_after_it(
    recording: Recording, exchange: str
) -> None:
    symbol = SYMBOLS[exchange][0]
    market = load_market(recording.root, exchange, symbol)
    valid = rebuild(market.columns, market.chain).valid
    changes = np.flatnonzero(np.diff(valid.astype(np.int8)))
    # up at the start, then down and up again at each of the three gaps
    assert valid[changes].tolist() == [False, True, False, True, False, True, False]
    assert valid[-1]
    frames = market.order & ((1 << 40) - 1)
    broke = frames[changes[1::2] + 1]
    healed = frames[changes[2::2] + 1]
    for gap, broken, whole in zip(gaps(recording.root, exchange), broke, healed, strict=True):
        assert broken < gap["frame"] < whole


@pytest.mark.parametrize("exchange", VENUES)
def test_everything_else_that_was_sent_is_recorded_byte_for_byte(recording: Recording, exchange: str) -> None:
    sent = [frame for frame in recording.truth.frames if frame.venue == exchange]
    lines = [line for line in captured(recording.root, exchange) if line.kind == FRAME]
    assert len({frame.conn for frame in sent}) == len({line.conn for line in lines}) == 1
    received = [line.payload.decode() for line in lines]
    assert received == [frame.frame for frame in sent[: len(received)]]
    # What is missing at the end was still under way when the recorder hung up.
    tail = sent[len(received) :]
    assert all(frame.ts > lines[-1].ts_recv - 1_000_000_000 for frame in tail)
    assert len(received) > 2_000


@pytest.mark.parametrize("exchange", VENUES)
def test_rebuilt_book_is_the_matching_engines_own_at_every_message(
    recording: Recording, exchange: str
) -> None:
    compared = sum(
        compare_books(recording.root, exchange, symbol, partial(recording.truth.book, exchange, symbol))
        for symbol in SYMBOLS[exchange]
    )
    assert compared > 400


@pytest.mark.parametrize("exchange", VENUES)
def test_trades_are_the_engines_fills(recording: Recording, exchange: str) -> None:
    for symbol in SYMBOLS[exchange]:
        fills = {
            order.trade_id: order.qty_lots
            for order in recording.truth.orders
            if (order.venue, order.symbol, order.event) == (exchange, symbol, "fill")
        }
        market = load_market(recording.root, exchange, symbol)
        traded = dict(zip(market.trades.trade_id.tolist(), market.trades.size.tolist(), strict=True))
        assert len(traded) > 100
        if exchange == "binance":  # one row a fill; OKX's are aggregates
            assert traded.items() <= fills.items()
        ids = sorted(traded)
        assert sum(traded.values()) == sum(
            fills[i] for i in range(_first(recording, exchange, symbol), ids[-1] + 1)
        )


def _first(recording: Recording, exchange: str, symbol: str) -> int:
    [part, *_] = list_parts(recording.root, "trades", exchange=exchange, symbol=symbol)
    return int(pq.read_table(part.path, columns=["first_trade_id"])["first_trade_id"][0].as_py())


def test_validator_finds_only_the_recorded_holes(recording: Recording) -> None:
    report = validate(recording.root)
    assert [finding for finding in report.findings if finding.severity == "error"] == []
    assert sum(own.chain_breaks for own in report.symbols) == 2 * len(DROPS)
    assert sum(own.unrecorded_breaks for own in report.symbols) == 0
    assert all(own.bbo_compared == own.bbo_equal > 0 for own in report.symbols)
    assert all(line.negative_share == 0 for own in report.symbols for line in own.latencies)


def test_all_tables_of_both_venues_are_there(recording: Recording) -> None:
    for table in ("depth", "snapshots", "trades", "bbo", "events", "instruments"):
        for exchange, symbols in SYMBOLS.items():
            found = {part.partition.symbol for part in list_parts(recording.root, table, exchange=exchange)}
            assert {*symbols} <= found, table


@pytest.mark.parametrize("exchange", VENUES)
def test_tables_hold_every_recorded_message_in_order(recording: Recording, exchange: str) -> None:
    frames = [line for line in captured(recording.root, exchange) if line.kind == FRAME]
    depth_numbers = [
        line.number for line in frames if b"depthUpdate" in line.payload or b'"books"' in line.payload[:40]
    ]
    depth_numbers = [n for n in depth_numbers if n is not None]
    stored = sorted(
        {
            row["frame"]
            for row in rows(recording.root, "depth")
            if row["session"] == _session(recording, exchange)
        }
    )
    acks = {line.number for line in frames if line.payload.startswith(b'{"id"')}
    assert stored == [number for number in depth_numbers if number not in acks]


def _session(recording: Recording, exchange: str) -> str:
    [venue] = [venue for venue in recording.told["venues"] if venue["exchange"] == exchange]
    return str(venue["session"])


def test_segments_were_ingested_while_recording_went_on(recording: Recording) -> None:
    for exchange in VENUES:
        kept = sorted((recording.root / ".captures" / exchange).glob("*/*"))
        assert len(kept) >= 6
        assert all(path.name.endswith(".cap.zst") for path in kept)
        numbers = [line.number for line in captured(recording.root, exchange)]
        assert numbers == [*range(len(numbers))]


def test_answer_for_machines_counts_what_was_recorded(recording: Recording) -> None:
    for venue in recording.told["venues"]:
        assert venue["gaps"] == len(DROPS)
        assert venue["pending_segments"] == 0
        counted = sum(
            pa.compute.sum(pq.read_table(part.path, columns=["is_last"])["is_last"].cast(pa.int64())).as_py()
            for part in list_parts(recording.root, "depth", exchange=venue["exchange"])
        )
        assert counted > 400


@pytest.mark.parametrize("exchange", VENUES)
def test_tables_are_those_of_lines_that_are_read_one_by_one(
    recording: Recording, tmp_path: Path, exchange: str
) -> None:
    with patch("mmdata.recorder.ingest._PLAIN", ()):
        for path in sorted((recording.root / ".captures" / exchange).glob("*/*")):
            ingest_segment(tmp_path, path)
    for table in TABLES:
        strict, plain = (
            [read_part(part) for part in list_parts(root, table, exchange=exchange)]
            for root in (tmp_path, recording.root)
        )
        assert strict == plain
