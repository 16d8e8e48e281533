"""The made market, once for all tests that record it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.market import make_market


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the captures of a made market."""
    return make_market(tmp_path_factory.mktemp("market"), seconds=30, speed=20)
