"""`docs/schema.md` says of every column what `mmdata.datasets.schema` holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmdata.datasets.schema import (
    EVENT_KINDS,
    GAP_CAUSES,
    SNAPSHOT_REASONS,
    TABLES,
    arrow_schema,
    exact_columns,
)

PAGE = (Path(__file__).parents[2] / "docs/schema.md").read_text(encoding="utf-8")


def section(table: str) -> str:
    return re.split(r"^## ", PAGE.split(f"\n## {table}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize("table", TABLES)
def test_page_lists_the_columns_of_each_table_in_order_with_type_and_nullability(table: str) -> None:
    told = re.findall(r"^\| `(\w+)` \| ([^|]+) \| (yes|no) \|", section(table), re.MULTILINE)
    exact = exact_columns(table)
    held = [
        (field.name, "exact" if field.name in exact else str(field.type), "yes" if field.nullable else "no")
        for field in arrow_schema(table)
    ]
    assert told == held


def test_page_names_all_tables_kinds_causes_and_reasons() -> None:
    assert [name for name in re.findall(r"^## (\w+)$", PAGE, re.MULTILINE) if name in TABLES] == [*TABLES]
    for word in (*EVENT_KINDS, *GAP_CAUSES, *SNAPSHOT_REASONS):
        assert f"`{word}`" in PAGE
