"""The kernel that reads level arrays against decimals."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.recorder.levels import parse, wire_levels
from tests.strategies import levels

_arrays = {extra: msgspec.json.Decoder(list[tuple[(str,) * (2 + extra)]]).decode for extra in (0, 2)}  # type: ignore[misc]


@given(st.data(), st.sampled_from([0, 2]))
@settings(deadline=None)
def test_what_the_kernel_takes_is_what_decimals_say(data: st.DataObject, extra: int) -> None:
    side = levels(extra).map(lambda rows: json.dumps(rows, separators=(",", ":")).encode())
    bids, asks = data.draw(side), data.draw(side)
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(bids) - 1))
        bids = bids[:at] + data.draw(st.binary(max_size=2)) + bids[at + 1 :]
    found = wire_levels(msgspec.Raw(bids), msgspec.Raw(asks), 2 + extra)
    if found is None:
        return
    expected = [_arrays[extra](text) for text in (bids, asks)]
    assert [len(own) for own in found] == [len(rows) for rows in expected]
    price, size, orders = (column.to_pylist() for column in parse(found))
    rows = [row for own in expected for row in own]
    assert price == [Decimal(row[0]) for row in rows]
    assert size == [Decimal(row[1]) for row in rows]
    assert orders == [int(row[3]) if extra else None for row in rows]
