"""Defects planted in real captures, at the level of bytes and of rows: each is named in its place.

What the recordings are known for already (their clock is behind the venue's) is no finding of the defect's.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from mmdata.datasets.errors import UsageError
from mmdata.datasets.validation import Finding, validate
from mmdata.recorder.importing import import_sources
from mmdata.sandbox.defects import KINDS, generate, score

pytestmark = pytest.mark.real

NEEDS_MORE = {
    "minutes_missing",  # a window
    "audit_size_differs",
    "audit_level_missing",
    "ghost_level",  # audits
    "agg_lost",
    "agg_range_wrong",  # aggregated trades of Binance
    "okx_reset_without_rule",  # ids of OKX: the capture is older than they are
    "connected_twice",  # a recorder that says so
    "clock_behind",  # a clock that is right
    "message_straddles",
    "part_lost",  # several parts of one date
}
"""Kinds for which nothing of what they need is in the captures."""
PLANTED = [name for name in KINDS if name not in NEEDS_MORE]
EACH_RUN = 8
FOUND_A_FAULT = [
    (13, "column_float_price"),
    (20, "last_twice"),
    (21, "gap_recorded"),
    (37, "event_steps_back"),
    (71, "trade_gap_recorded"),
]
"""Seeds and kinds that were not named as they should be, once."""
ATTEMPTS = 30


@pytest.fixture(scope="module")
def captures(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of the real captures, with the ticks and lots of the venues."""
    root = tmp_path_factory.mktemp("captures")
    days = [shared_data / f"binance/btcusdt_{day}.gz" for day in ("20240808", "20240809")]
    futures = [shared_data / "binance-usdm/btcusdt_20240808.gz"]
    for exchange, sources, steps in (
        ("binance", days, ("0.01", "0.00001")),
        ("binance-usdm", futures, ("0.1", "0.001")),
    ):
        told = {"exchange": exchange, "symbol": "BTCUSDT", "grid": {"BTCUSDT": steps}}
        import_sources(sources, root, source_format="hftbacktest", **told)  # type: ignore[arg-type]
    import_sources(
        [shared_data / "okx/books_20220513.log.gz"], root, source_format="cryptofeed", exchange="okx"
    )
    return root


@pytest.fixture(scope="module")
def known(captures: Path) -> list[Finding]:
    return validate(captures).findings


def check(captures: Path, known: list[Finding], root: Path, seed: int, name: str) -> None:
    for attempt in range(ATTEMPTS):
        shutil.rmtree(root, ignore_errors=True)
        try:
            labels = generate(root, seed + attempt, kinds=[name], source=captures)
        except UsageError:
            continue
        exchange = labels[0].exchange  # the others are as they were
        before = [finding for finding in known if finding.exchange == exchange]
        told = score(labels, validate(root, exchange=exchange).findings, before)
        assert told.perfect, f"seed {seed + attempt}:\n{told}"
        return
    pytest.fail(f"no place for {name} with the seeds {seed} to {seed + ATTEMPTS - 1}")


def test_no_error_is_found_in_the_captures_as_they_are(known: list[Finding]) -> None:
    assert [finding for finding in known if finding.severity == "error"] == []


@pytest.mark.parametrize("which", range(EACH_RUN))
def test_defect_in_real_data_is_named_in_its_place(
    captures: Path, known: list[Finding], tmp_path: Path, defects_seed: int, which: int
) -> None:
    name = Random(defects_seed).sample(PLANTED, EACH_RUN)[which]
    check(captures, known, tmp_path / "planted", defects_seed, name)


@pytest.mark.parametrize(("seed", "name"), FOUND_A_FAULT)
def test_defect_that_was_not_named_once_is_named(
    captures: Path, known: list[Finding], tmp_path: Path, seed: int, name: str
) -> None:
    check(captures, known, tmp_path / "planted", seed, name)


@pytest.mark.long
@pytest.mark.parametrize("name", PLANTED)
def test_every_kind_in_real_data_is_named_in_its_place(
    captures: Path, known: list[Finding], tmp_path: Path, defects_seed: int, name: str
) -> None:
    check(captures, known, tmp_path / "planted", defects_seed, name)
