"""The real captures of Binance, read many lines at once and one by one: the same tables to the last row."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pytest

from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from mmdata.datasets.schema import TABLES
from mmdata.recorder.importing import ImportReport, import_sources

pytestmark = pytest.mark.real
SOURCES = {
    "binance": [f"binance/btcusdt_{day}.gz" for day in ("20240808", "20240809")],
    "binance-usdm": ["binance-usdm/btcusdt_20240808.gz"],
}


def imported(out: Path, sources: list[Path], exchange: str) -> tuple[ImportReport, dict[str, pa.Table]]:
    report = import_sources(sources, out, source_format="hftbacktest", exchange=exchange, symbol="BTCUSDT")
    parts = {table: list_parts(out, table) for table in TABLES}
    return report, {
        table: pa.concat_tables([read_part(part) for part in own]).replace_schema_metadata()
        for table, own in parts.items()
        if own
    }


@pytest.mark.parametrize("exchange", SOURCES)
def test_tables_are_those_of_the_strict_reader(shared_data: Path, tmp_path: Path, exchange: str) -> None:
    sources = [shared_data / name for name in SOURCES[exchange]]
    plain = imported(tmp_path / "plain", sources, exchange)
    with patch("mmdata.recorder.ingest._PLAIN", ()):
        assert imported(tmp_path / "strict", sources, exchange) == plain


@pytest.mark.parametrize("exchange", SOURCES)
def test_no_line_of_them_is_left_to_the_strict_reader_but_the_book(
    shared_data: Path, tmp_path: Path, exchange: str
) -> None:
    from mmdata.recorder.formats import hftbacktest

    taken = []

    def parse(number: int, text: bytes) -> object:
        taken.append(text)
        return hftbacktest.parse(number, text)

    with patch.dict("mmdata.recorder.importing._PARSERS", {"hftbacktest": parse}):
        imported(tmp_path, [shared_data / name for name in SOURCES[exchange]], exchange)
    _first, *others = taken  # the first line of all is looked at for its stamp
    assert [text[20:].startswith(b'{"lastUpdateId":') for text in others] == [True]
