"""docs/certificate.md: its code, run as it stands there, comes to the same as certificates say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets.certificate.derive import Day
from mmdata.datasets.certificate.store import certificate_path
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from tests.certified import certified
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs/certificate.md").read_text(encoding="utf-8")


def told_by_the_page() -> dict[str, Callable[..., Any]]:
    names: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(code, names)
    return names


@pytest.mark.parametrize("fine", [False, True], ids=["narrow", "wide"])
@pytest.mark.parametrize("symbol", ["BTCUSDT", "_"])
def test_its_code_hashes_as_certificates_say(tmp_path: Path, fine: bool, symbol: str) -> None:
    import pyarrow as pa

    root = certified(tmp_path / "data", fine=fine)
    page = told_by_the_page()
    facts = json.loads(certificate_path(root, Day("binance", symbol, "2026-11-21")).read_bytes())
    assert page["seal"](facts) == facts["sha256"]
    hashed = 0
    for table, own in facts["tables"].items():
        for session in own["sessions"]:
            parts = list_parts(root, table, exchange="binance", symbol=symbol, session=session["session"])
            rows = pa.concat_tables(map(read_part, parts), promote_options="permissive")
            assert page["content"](rows) == session["content"], table
            hashed += rows.num_rows
    assert hashed == sum(own["rows"] for own in facts["tables"].values()) > 0


def test_it_names_every_field(tmp_path: Path) -> None:
    root = certified(tmp_path / "data")
    facts = json.loads(certificate_path(root, Day("binance", "BTCUSDT", "2026-11-21")).read_bytes())
    told = {
        name
        for row in re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert told == {*facts}
