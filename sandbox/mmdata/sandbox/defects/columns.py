"""Rows gathered into a table of the schema: values by name in, Arrow out, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from mmdata.datasets.decimals import from_units
from mmdata.datasets.schema import arrow_schema, exact_columns


class Columns:
    """A growing set of rows of one narrow table; prices and sizes are integers of 1e-8."""

    def __init__(self, table: str) -> None:
        self._schema = arrow_schema(table)
        self._exact = exact_columns(table)
        self._values: dict[str, list[Any]] = {name: [] for name in self._schema.names}

    def add(self, **row: Any) -> None:
        """Add a row; columns that are not named are null."""
        for name, values in self._values.items():
            values.append(row.get(name))

    def to_table(self) -> pa.Table:
        """Return the rows as Arrow."""
        arrays = [
            _exact(values, field.type)
            if field.name in self._exact and field.type.scale == 8
            else pa.array(values, field.type)
            for field, values in zip(self._schema, self._values.values(), strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=self._schema)


def _exact(values: list[int | None], kind: pa.DataType) -> pa.Array:
    missing = np.array([value is None for value in values])
    words = np.array([value or 0 for value in values], np.int64)
    decimals = from_units(np.column_stack((words, words >> 63)), kind)
    return decimals if not missing.any() else decimals.take(pa.array(np.arange(len(words)), mask=missing))
