"""Two recordings of the same streams compared by id: what each lacks, and what they tell differently.

Book messages and best bids and asks are paired by their ids, trades by kind and id. Whole books sent in the
stream and heartbeats are each connection's own, and are left out. Only what lies between the first and the
last message that both have counts: before and after it one of them did not record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.heads import Flags, Heads, Ints, Recording, rows_of
from mmdata.datasets.layout import NO_SYMBOL, list_partitions
from mmdata.datasets.schema import arrow_schema
from mmdata.datasets.stores import local_root

_SHOWN = 5
_MS = 1_000_000
_TABLES = ("depth", "trades", "bbo")
_THINNED = {("okx", "bbo")}
"""One every 10 ms (`bbo-tbt`): which of them is each connection's own, and to lack some is no difference."""
_VALUES = {
    "depth": ("side", "price", "size"),
    "trades": ("side", "price", "size"),
    "bbo": ("bid_price", "bid_size", "ask_price", "ask_size"),
}


@dataclass
class Compared:
    """One table of one symbol, in both recordings."""

    exchange: str
    symbol: str
    table: str
    kind: str = ""
    """Of trades: ``trade``, ``agg``, ``block``."""
    both: int = 0
    """Messages that both have."""
    lacking: tuple[int, int] = (0, 0)
    """How many each lacks that the other has, between the first and last that both have."""
    outside: tuple[int, int] = (0, 0)
    """How many each has before the first and after the last that both have."""
    different: int = 0
    """Messages of equal ids with different values."""
    lag_ns: int | None = None
    """Median of the second's ``ts_recv`` minus the first's."""
    ids: dict[str, list[int]] = field(default_factory=dict)
    """The first ids that ``first`` lacks, ``second`` lacks, and that are ``different``."""

    @property
    def differs(self) -> bool:
        """True where something is missing or told differently, or nothing is in both."""
        lacking = 0 if (self.exchange, self.table) in _THINNED else sum(self.lacking)
        return bool(lacking or self.different or not self.both)


@dataclass
class Comparison:
    """What two recordings tell of the same streams."""

    first: str
    second: str
    tables: list[Compared] = field(default_factory=list)

    def to_json_dict(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {
            "schema": 1,
            "first": self.first,
            "second": self.second,
            "tables": [asdict(found) | {"differs": found.differs} for found in self.tables],
        }

    def exit_code(self) -> int:
        """Return 1 where they differ, else 0."""
        return DatasetError.exit_code if any(found.differs for found in self.tables) else 0


def compare(
    first: Path,
    second: Path,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    told: str | None = None,
) -> Comparison:
    """Compare what two datasets hold of the symbols that are in both; ``told`` is what to call the first.

    UsageError: no such dataset, or in an object store; no symbol is in both. DatasetError: a file is damaged.
    """
    first, second = (local_root(root, "a comparison") for root in (first, second))
    for root in (first, second):
        if not root.is_dir():
            raise UsageError(f"{root}: there is no such folder; name a dataset's")
    pairs = [_pairs(root, exchange, symbol) for root in (first, second)]
    report = Comparison(told or str(first), str(second))
    for table, own, name in sorted(pairs[0] & pairs[1]):
        recordings = [Recording(root, own, [name]) for root in (first, second)]
        report.tables += _compare(own, name, table, recordings)
    if not report.tables:
        have = [", ".join(sorted({f"{e} {s}" for _, e, s in own})) or "nothing" for own in pairs]
        raise UsageError(
            f"no book, trades or best bids and asks of one symbol are in both: {report.first} holds "
            f"{have[0]}, {report.second} holds {have[1]}"
        )
    return report


def _pairs(root: Path, exchange: str | None, symbol: str | None) -> set[tuple[str, str, str]]:
    return {
        (table, partition.exchange, partition.symbol)
        for table in _TABLES
        for partition in list_partitions(root, table, exchange=exchange, symbol=symbol)
        if partition.symbol != NO_SYMBOL
    }


def _compare(exchange: str, symbol: str, table: str, recordings: Sequence[Recording]) -> list[Compared]:
    heads = [recording.heads(table, symbol) for recording in recordings]
    rows = [_rows(recording, table, symbol) for recording in recordings]
    if table != "trades":
        keep = [~own.is_snapshot & (own.last_id != own.prev_id) & (own.last_id != NO_ID) for own in heads]
        return [_by_key(Compared(exchange, symbol, table), heads, rows, keep)]
    kinds = [pc.fill_null(own[1]["kind"], "").to_numpy(zero_copy_only=False) for own in rows]
    shared = sorted({*kinds[0].tolist()} & {*kinds[1].tolist()})
    found = []
    for kind in shared:
        keep = [own == kind for own in kinds]
        found.append(_by_key(Compared(exchange, symbol, table, kind), heads, rows, keep))
    if not shared:
        found.append(Compared(exchange, symbol, table, " and ".join(sorted({*kinds[0], *kinds[1]}))))
    return found


def _rows(recording: Recording, table: str, symbol: str) -> tuple[Ints, pa.Table]:
    """Return where each part's rows begin, and the values of all rows; decimals wide."""
    schema = arrow_schema(table, wide=True)
    names = [*_VALUES[table], "ts_event", *(("kind",) if table == "trades" else ())]
    parts = [
        recording.rows(table, symbol, at).select(names).cast(pa.schema([schema.field(n) for n in names]))
        for at in range(len(recording.parts[table, symbol]))
    ]
    begins = np.cumsum([0, *map(len, parts)])[:-1]
    return begins, pa.concat_tables(parts).combine_chunks()


def _by_key(
    found: Compared, heads: Sequence[Heads], rows: Sequence[tuple[Ints, pa.Table]], keep: Sequence[Flags]
) -> Compared:
    chosen = [np.flatnonzero(own) for own in keep]
    keys = [_keys(own.take(at)) for own, at in zip(heads, chosen, strict=True)]
    _, one, other = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    found.both = len(one)
    if not found.both:
        found.outside = (len(keys[0]), len(keys[1]))
        return found
    lacks: list[Ints] = []
    outside = []
    for key, at in ((keys[0], one), (keys[1], other)):
        inside = np.zeros(len(key), np.bool_)
        inside[at.min() : at.max() + 1] = True
        outside.append(int((~inside).sum()))
        inside[at] = False
        lacks.append(np.flatnonzero(inside))
    ids = [own.last_id[at] for own, at in zip(heads, chosen, strict=True)]
    found.outside = (outside[0], outside[1])
    found.lacking = (len(lacks[1]), len(lacks[0]))
    order = np.argsort(one)
    pair = [chosen[0][one[order]], chosen[1][other[order]]]
    differs = _differ(found.table, heads, rows, pair)
    found.different = int(differs.sum())
    found.lag_ns = int(np.median(heads[1].ts_recv[pair[1]] - heads[0].ts_recv[pair[0]]))
    found.ids = {
        "first": ids[1][lacks[1][:_SHOWN]].tolist(),
        "second": ids[0][lacks[0][:_SHOWN]].tolist(),
        "different": heads[0].last_id[pair[0][differs][:_SHOWN]].tolist(),
    }
    return found


def _keys(heads: Heads) -> np.ndarray[Any, Any]:
    """Return what tells each message from all others: its ids, and which one of equal ids it is."""
    pairs = np.column_stack((heads.last_id, heads.prev_id))
    order = np.lexsort((np.arange(len(pairs)), pairs[:, 1], pairs[:, 0]))
    same = np.append(False, (pairs[order][1:] == pairs[order][:-1]).all(axis=1))[: len(pairs)]
    run = np.arange(len(pairs)) - np.maximum.accumulate(np.where(same, 0, np.arange(len(pairs))))
    nth = np.empty(len(pairs), np.int64)
    nth[order] = run
    whole = np.ascontiguousarray(np.column_stack((pairs, nth)))
    return whole.view([("last", np.int64), ("prev", np.int64), ("nth", np.int64)]).ravel()


def _differ(
    table: str, heads: Sequence[Heads], rows: Sequence[tuple[Ints, pa.Table]], pair: Sequence[Ints]
) -> Flags:
    """Tell of each pair of messages whether their levels, or the trade, or its time to the ms, differ."""
    spans = []
    for own, (begins, _), at in zip(heads, rows, pair, strict=True):
        offset = begins[own.part[at]]
        spans.append((own.begin[at] + offset, own.end[at] + offset))
    counts = [end - begin for begin, end in spans]
    differs = np.asarray(counts[0] != counts[1], np.bool_)
    same = np.flatnonzero(~differs)
    picked = [
        values.take(pa.array(rows_of(begin[same], end[same])))
        for (begin, end), (_, values) in zip(spans, rows, strict=True)
    ]
    unequal = np.zeros(len(picked[0]), np.bool_)
    for name in _VALUES[table]:
        equal = pc.equal(picked[0][name], picked[1][name])
        both_null = pc.and_(pc.is_null(picked[0][name]), pc.is_null(picked[1][name]))
        unequal |= ~pc.fill_null(equal, both_null).to_numpy()
    if table == "trades":  # an archive may tell µs where a stream told ms
        moments = [pc.fill_null(own["ts_event"].cast(pa.int64()), 0).to_numpy() // _MS for own in picked]
        unequal |= moments[0] != moments[1]
    message = np.repeat(same, counts[0][same])
    differs[message[unequal]] = True
    return differs
