"""Fixtures that many tests share, and the lines at the end of a run: skips by reason, the seed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.seeds import DEFECTS_SEED, drawn_seed

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("MMDATA_SHARED") or REPOSITORY.parent / "shared")
DRAWN = drawn_seed(DEFECTS_SEED)
os.environ[DEFECTS_SEED] = str(DRAWN)  # workers plant what the run says at its end
# Hundreds of tests start processes of ours: each would compile the sources to bytecode anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
WINGS = ("recorder", "datasets", "replay", "sandbox", "cli")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-real", action="store_true", help="fail, not skip, where the real captures are missing"
    )
    parser.addoption(
        "--require-container", action="store_true", help="fail, not skip, where no container can be run"
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run with one line that counts skips by reason, and one with the seed of planted defects."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(reporter, pytest.TerminalReporter):
        return
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ") for report in reporter.stats.get("skipped", [])
    )
    counted = "; ".join(f"{count} skipped: {reason}" for reason, count in reasons.most_common())
    reporter.write_line(counted or "0 skipped")
    reporter.write_line(f"defects are planted by the seed {DRAWN}; {DEFECTS_SEED}={DRAWN} repeats them")


@pytest.fixture(scope="session")
def shared_folder(request: pytest.FixtureRequest) -> Path:
    """Return the team's shelf: protocol sheets, theory, reference numbers, real captures."""
    if not SHARED.is_dir():
        sentence = f"{SHARED} is missing (MMDATA_SHARED says where the shelf is)"
        if request.config.getoption("--require-real"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    return SHARED


@pytest.fixture(scope="session")
def shared_data(shared_folder: Path) -> Path:
    """Return the folder of the real captures."""
    return shared_folder / "data"


@pytest.fixture(scope="session")
def real_dataset(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset imported from all the real captures."""
    from mmdata.recorder.importing import import_sources

    root = tmp_path_factory.mktemp("real")
    days = [shared_data / f"binance/btcusdt_{day}.gz" for day in ("20240808", "20240809")]
    futures = shared_data / "binance-usdm/btcusdt_20240808.gz"
    for exchange, sources in (("binance", days), ("binance-usdm", [futures])):
        import_sources(sources, root, source_format="hftbacktest", exchange=exchange, symbol="BTCUSDT")
    import_sources(
        [shared_data / "okx/books_20220513.log.gz"], root, source_format="cryptofeed", exchange="okx"
    )
    return root


@pytest.fixture(scope="session")
def defects_seed() -> int:
    """Return a seed for planted defects: another in each run, told at its end, or the one that is named."""
    return DRAWN
