"""docs/reading.md: its examples run, one after the other, over a small dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mmdata.recorder.importing import import_sources
from tests.builders import spot_lines

PAGE = Path(__file__).parents[2] / "docs/reading.md"


def test_examples_of_the_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "capture.txt"
    source.write_bytes(b"".join(spot_lines(skip=(5,))))
    import_sources(
        [source], tmp_path / "data", source_format="hftbacktest", exchange="binance", symbol="BTCUSDT"
    )
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 9
    assert names["changes"].filter("valid").height
    assert names["proven"]["ended_by"].to_list() == ["missing"]
    assert len(names["spread"]) == 1
    assert names["last_trades"]["trade_id"].to_list() == [7, 8, 9]
    assert "binance BTCUSDT 1 " in capsys.readouterr().out
