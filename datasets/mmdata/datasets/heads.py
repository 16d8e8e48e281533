"""The messages of a symbol without their levels: ids, times, and where each one's rows lie.

What compares or unites recordings looks at these; rows are read once it is decided which are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets.layout import Part, list_parts
from mmdata.datasets.market import FRAME_BITS, ids, read_part, session_order, times
from mmdata.datasets.schema import TABLES, arrow_schema

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_KEY = ("session", "frame", "ts_recv")
_NAMES = {
    "depth": (*_KEY, "first_id", "last_id", "prev_id", "is_snapshot", "is_last"),
    "snapshots": (*_KEY, "last_id"),
    "trades": (*_KEY, "first_trade_id", "trade_id"),
    "bbo": (*_KEY, "last_id"),
}
_IDS = {
    "depth": ("first_id", "last_id", "prev_id"),
    "snapshots": (None, "last_id", None),
    "trades": ("first_trade_id", "trade_id", None),
    "bbo": (None, "last_id", None),
}


@dataclass(frozen=True)
class Heads:
    """Messages of one table and symbol in the order of everything; arrays of shape (n,)."""

    place: Ints
    """Session and frame in one number."""
    ts_recv: Ints
    first_id: Ints
    """NO_ID where there is none; so the others."""
    last_id: Ints
    prev_id: Ints
    is_snapshot: Flags
    part: Ints
    """Which of the table's parts it lies in."""
    begin: Ints
    end: Ints
    """Its rows in that part."""

    def __len__(self) -> int:
        return len(self.place)

    def take(self, chosen: Ints | Flags) -> Self:
        """Return the chosen messages."""
        return type(self)(*(getattr(self, column.name)[chosen] for column in fields(self)))


class Recording:
    """What a dataset holds of one exchange, as far as it is asked for."""

    def __init__(self, root: Path, exchange: str, symbols: Sequence[str]) -> None:
        self.root = root
        self.parts: dict[tuple[str, str], list[Part]] = {
            (table, symbol): list_parts(root, table, exchange=exchange, symbol=symbol)
            for table in TABLES
            for symbol in symbols
        }
        self.sessions = session_order({str(key): parts for key, parts in self.parts.items()})
        """The names of its sessions, in their order."""

    def heads(self, table: str, symbol: str) -> Heads:
        """Read the messages of a table; rows of a table that has no messages are one each.

        DatasetError: a file is damaged. ReplacedError: one was replaced meanwhile.
        """
        pieces = [_heads(self, table, at, part) for at, part in enumerate(self.parts[table, symbol])]
        if not pieces:
            none = np.empty(0, np.int64)
            return Heads(none, none, none, none, none, none.astype(np.bool_), none, none, none)
        joined = Heads(
            *(np.concatenate([getattr(piece, column.name) for piece in pieces]) for column in fields(Heads))
        )
        if (joined.place[1:] < joined.place[:-1]).any():  # a clock stepped back over midnight
            return joined.take(np.argsort(joined.place, kind="stable"))
        return joined

    def rows(self, table: str, symbol: str, part: int) -> pa.Table:
        """Read all rows of a part. DatasetError, ReplacedError: as `heads`."""
        schema = arrow_schema(table, wide=self.parts[table, symbol][part].partition.wide)
        return read_part(self.parts[table, symbol][part], schema.names)


def _heads(recording: Recording, table: str, at: int, part: Part) -> Heads:
    rows = read_part(part, _NAMES.get(table, _KEY))
    index = pc.index_in(rows["session"], value_set=pa.array(recording.sessions, pa.string()))
    place = np.asarray(index.to_numpy(), np.int64) << FRAME_BITS | np.asarray(rows["frame"].to_numpy())
    if table == "depth":
        end = np.flatnonzero(rows["is_last"].to_numpy()) + 1
    elif table == "snapshots":
        end = np.append(np.flatnonzero(place[1:] != place[:-1]) + 1, len(place))
    else:
        end = np.arange(1, len(place) + 1)
    head = rows.take(pa.array(end - 1))
    none = np.full(len(end), -(2**63))
    first, last, prev = (
        none if name is None else ids(head[name]) for name in _IDS.get(table, (None, None, None))
    )
    return Heads(
        place=place[end - 1],
        ts_recv=times(head["ts_recv"]),
        first_id=first,
        last_id=last,
        prev_id=prev,
        is_snapshot=head["is_snapshot"].to_numpy() if table == "depth" else np.zeros(len(end), np.bool_),
        part=np.full(len(end), at),
        begin=np.append(0, end[:-1])[: len(end)],
        end=end,
    )


def rows_of(begin: Ints, end: Ints) -> Ints:
    """Return the numbers of all rows of some messages, a message after the other.

    >>> rows_of(np.array([5, 0]), np.array([7, 1]))
    array([5, 6, 0])
    """
    counts = end - begin
    ends = np.cumsum(counts)
    return np.asarray(np.repeat(begin - (ends - counts), counts) + np.arange(int(counts.sum())), np.int64)
