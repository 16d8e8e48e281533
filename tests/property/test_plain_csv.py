"""Plain CSV gives back what was written, digit for digit, whatever the tick, the size and the words."""

from __future__ import annotations

import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets import export, scan, verify
from mmdata.datasets.formats.plain_csv import import_csv
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from mmdata.datasets.schema import exact_columns
from tests.builders import DAY, NOON
from tests.table_rows import publish_rows

SESSION = "20261121T080000Z-aaaaaa"
TICKS = st.integers(-10, 3).map(lambda exponent: Decimal(1).scaleb(exponent))
COUNTS = st.integers(1, 10**9)
SIZES = st.decimals(0, 10**12, places=8)
WORDS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
TRADES = st.lists(st.tuples(COUNTS, SIZES, WORDS, st.integers(0, 1)), min_size=1, max_size=30)


def rows_of(tick: Decimal, trades: list[tuple[int, Decimal, str | None, int]]) -> list[dict[str, Any]]:
    return [
        {
            "session": SESSION,
            "frame": at // 2,
            "ts_recv": NOON + at,
            "ts_event": None if at % 3 else NOON - at,
            "trade_id": at,
            "side": "buy",
            "price": tick * count,
            "size": size,
            "flags": word,
        }
        for at, (count, size, word, _) in enumerate(trades)
    ]


@given(TICKS, TRADES)
@settings(deadline=None, max_examples=30)
def test_what_comes_back_is_what_was_written(
    tick: Decimal, trades: list[tuple[int, Decimal, str | None, int]]
) -> None:
    rows = rows_of(tick, trades)
    wide = any(
        value != round(value, 8) or value >= 10**10 for row in rows for value in (row["price"], row["size"])
    )
    with tempfile.TemporaryDirectory() as folder:
        root, out, back = (Path(folder, name) for name in ("data", "csv", "back"))
        publish_rows(root, "trades", rows, exchange="binance", symbol="币/安_1", wide=wide)
        report = export(root, "csv", out)
        [file] = report.files
        assert file.rows == len(rows)
        imported = import_csv([file.path], back, exchange=None)
        assert dict(imported.rows) == {"trades": len(rows)}
        written, found = (scan(place, "trades").collect() for place in (root, back))
        assert found.equals(written)
        assert found.schema == written.schema
        assert [*found["price"]] == [row["price"] for row in rows]  # and that is what was meant
        assert [*found["size"]] == [row["size"] for row in rows]
        [part] = list_parts(back, "trades")
        assert {str(read_part(part)[name].type) for name in exact_columns("trades")} == {
            "decimal128(38, 18)" if wide else "decimal128(18, 8)"
        }


@given(st.integers(1, 40), st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_importing_in_small_blocks_and_again_publishes_each_row_once(count: int, width: int) -> None:
    """A frame of many rows stays whole, though the reader's blocks cut it."""
    rows = [
        row | {"frame": at // width, "ts_recv": NOON + (at // width) + (DAY if at // width > 5 else 0)}
        for at, row in enumerate(
            rows_of(Decimal("0.01"), [(at + 1, Decimal(1), "x", 0) for at in range(count)])
        )
    ]
    with tempfile.TemporaryDirectory() as folder:
        root, out, back = (Path(folder, name) for name in ("data", "csv", "back"))
        for n, day in enumerate((0, DAY)):
            own = [row for row in rows if (row["ts_recv"] >= NOON + DAY) == bool(day)]
            if own:
                publish_rows(root, "trades", own, exchange="okx", n=n)
        files = [file.path for file in export(root, "csv", out).files]
        with mock.patch.multiple("mmdata.datasets.formats.plain_csv", _BLOCK=400, _PART_ROWS=4):
            imported = import_csv(files, back, exchange="okx")
            again = import_csv(files[::-1], back, exchange="okx")
        assert imported.rows["trades"] == count
        assert (again.skipped, sum(again.rows.values())) == (count, 0)
        assert (imported.certified, again.certified) == (len(files), 0)
        assert verify(back).differences == []
        assert scan(back, "trades").collect().equals(scan(root, "trades").collect())
