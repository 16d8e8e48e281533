"""`verify`: whatever differs from the certificates is named, down to a flipped bit."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mmdata.datasets import compact, verify
from mmdata.datasets.certificate.canonical import canonical, seal
from mmdata.datasets.certificate.derive import Day
from mmdata.datasets.certificate.store import certificate_path
from mmdata.datasets.errors import UsageError
from mmdata.recorder.lock import exchange_lock
from mmdata.recorder.segments import capture_folder, recount
from tests.certified import certified

BTC = Day("binance", "BTCUSDT", "2026-11-21")
ALL = Day("binance", "_", "2026-11-21")
FEW, MANY = 30, 200


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certified dataset that every test leaves as it is."""
    return certified(tmp_path_factory.mktemp("kept") / "data")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return certified(tmp_path / "data")


def files(root: Path, table: str) -> list[Path]:
    return sorted((root / table).rglob("*.parquet"))


def places(root: Path) -> set[str]:
    """Return where `verify` finds differences: file names, or places in certificates."""
    found = verify(root, recount=recount).differences
    assert all(difference.sentence for difference in found)
    return {Path(difference.field).name for difference in found}


def edit(root: Path, day: Day, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a certificate, and its own sha256 with it."""
    path = certificate_path(root, day)
    facts = json.loads(path.read_bytes())
    change(facts)
    path.write_bytes(canonical(seal(facts)))


def test_a_dataset_as_it_was_certified_has_no_difference(kept: Path) -> None:
    told: list[str] = []
    report = verify(kept, recount=recount, progress=told.append)
    assert (report.differences, report.skipped, report.notes) == ([], [], [])
    assert report.verified == [BTC, ALL]
    assert report.recounted == 4
    assert report.exit_code() == 0
    assert told == [str(BTC), str(ALL)]


def test_nothing_is_changed_by_it(kept: Path) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in kept.rglob("*")}

    before = stamps()
    verify(kept, recount=recount)
    assert stamps() == before


def flip(root: Path, chosen: random.Random) -> str:
    """Check that a flipped bit in a table or certificate is found; put it back; say where it was."""
    paths = [p for p in sorted(root.rglob("*")) if p.is_file() and p.relative_to(root).parts[0][0] != "."]
    path = chosen.choices(paths, [p.stat().st_size for p in paths])[0]
    bit = chosen.randrange(path.stat().st_size * 8)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    before = path.stat()
    path.write_bytes(data)
    try:
        report = verify(root)
    finally:
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        # Footers are remembered by the file's time, which two writes within a tick of the clock share.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    place = f"bit {bit} of {path.relative_to(root)}"
    names = {Path(found.field).name for found in report.differences}
    assert path.name in names, f"{place} is not found: {report.differences}"
    return path.relative_to(root).parts[0]


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.long)])
def test_a_flipped_bit_anywhere_is_found(root: Path, count: int) -> None:
    seed = int(os.environ.get("MMDATA_SEED", random.SystemRandom().randrange(2**32)))
    print(f"MMDATA_SEED={seed}")
    chosen = random.Random(seed)
    hit = [flip(root, chosen) for _ in range(count)]
    assert len(hit) == count
    assert verify(root, recount=recount).differences == []


def test_a_missing_file_is_named(root: Path) -> None:
    path = files(root, "depth")[1]
    path.unlink()
    assert places(root) == {path.name}


def test_a_day_without_any_of_its_files_is_named(root: Path) -> None:
    gone = files(root, "depth") + files(root, "trades") + files(root, "snapshots")
    for path in gone:
        path.unlink()
    assert places(root) == {path.name for path in gone}


@pytest.mark.parametrize(
    "name",
    [
        "depth/exchange=binance/symbol=BTCUSDT/date=2026-11-21/notes.txt",
        "depth/exchange=binance/symbol=BTCUSDT/date=2026-11-21/20261121T120000.000000001Z-x-000000.parquet",
        "depth-wide/exchange=binance/symbol=BTCUSDT/date=2026-11-21/left.parquet",
        "trades/exchange=binance/stray.parquet",
        "trades/exchange=binance/symbol=BTCUSDT/date=2026-11-21/below/stray.parquet",
        "certificates/exchange=binance/symbol=BTCUSDT/date=2026-11-21/copy.json",
    ],
)
def test_a_file_of_nobodys_is_named(root: Path, name: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    assert Path(name).name in places(root)


def test_files_that_changed_places_are_named(root: Path) -> None:
    one, other = files(root, "trades")[:2]
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    assert places(root) == {one.name, other.name}


def test_a_day_without_a_certificate_is_named(root: Path) -> None:
    certificate_path(root, BTC).unlink()
    report = verify(root)
    assert [found.symbol for found in report.differences] == ["BTCUSDT"]
    assert "no certificate" in report.differences[0].sentence
    assert report.exit_code() == 1


def test_a_certificate_of_another_day_is_named(root: Path) -> None:
    certificate_path(root, BTC).write_bytes(certificate_path(root, ALL).read_bytes())
    assert "is the certificate of binance _" in verify(root).differences[0].sentence


@pytest.mark.parametrize(
    ("day", "change", "place"),
    [
        (BTC, lambda facts: facts["chains"][0].update(messages=5), "chains[0].messages"),
        (BTC, lambda facts: facts["holes"].pop(), "holes"),
        (BTC, lambda facts: facts["coverage"].update(proven_ns=1), "coverage.proven_ns"),
        (BTC, lambda facts: facts["latency"][0].update(p99_ns=1), "latency[0].p99_ns"),
        (BTC, lambda facts: facts["latency"][0].update(negative=False), "latency[0].negative"),
        (BTC, lambda facts: facts["audits"].append({}), "audits"),
        (BTC, lambda facts: facts.update(note="sound"), "note"),
        (BTC, lambda facts: facts["accounting"][0]["rows"].update(depth=7), "accounting"),
        (ALL, lambda facts: facts["sessions"][0].update(started=None), "sessions[0].started"),
        (ALL, lambda facts: facts["accounting"][0]["lines"].update(lines=8), "accounting"),
        (
            ALL,
            lambda facts: facts["accounting"][0]["lines"].update(decoded=3, control=1),
            "accounting.20261121T080000Z-abcdef.0.lines.control",
        ),
    ],
)
def test_an_edited_certificate_is_found_though_its_own_sha256_is_right(
    root: Path, day: Day, change: Callable[[dict[str, Any]], object], place: str
) -> None:
    edit(root, day, change)
    assert place in {found.field for found in verify(root, recount=recount).differences}


def test_captures_that_were_not_kept_are_told(tmp_path: Path) -> None:
    root = certified(tmp_path / "data", keep=False)
    report = verify(root, recount=recount)
    assert report.differences == []
    assert report.recounted == 0
    assert "the captures of 4 segments were not kept" in report.notes[0]


def test_a_capture_that_says_other_than_it_did_is_found(root: Path) -> None:
    path = min(capture_folder(root, "binance").glob("*/*.cap.zst"))
    with pa.input_stream(str(path), compression="zstd") as stream:
        lines = stream.read().splitlines(keepends=True)
    with pa.output_stream(str(path), compression="zstd") as stream:
        stream.write(b"".join(lines[:-1]))
    found = verify(root, recount=recount).differences
    assert ("_", "accounting.20261121T080000Z-abcdef.0.lines.lines", 7, 6) in {
        (one.symbol, one.field, one.expected, one.found) for one in found
    }
    assert verify(root).differences == []  # without counting again


def test_open_days_are_skipped_with_a_sentence(root: Path) -> None:
    folder = capture_folder(root, "binance")
    (folder / "20261121T130000Z-bbbbbb" / "000002.open").touch()
    with exchange_lock(folder, "binance"):
        report = verify(root)
    assert (report.verified, report.differences) == ([], [])
    assert len(report.skipped) == 2
    assert "is open, being recorded by" in report.skipped[0]


def test_a_part_of_the_dataset_is_verified_by_itself(root: Path) -> None:
    files(root, "events")[0].unlink()
    assert verify(root, symbol="BTCUSDT", date="2026-11-21").verified == []  # its sessions' begins are gone
    with pytest.raises(UsageError, match="nothing of what is asked for"):
        verify(root, exchange="okx")


def test_a_compacted_dataset_is_whole_and_a_bit_in_it_is_found(root: Path) -> None:
    compact(root)
    assert places(root) == set()
    flip(root, random.Random(7))
