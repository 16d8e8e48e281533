"""The certificate's walk over ids against the book kernel; its hashes however rows are laid out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN, REPLACE, SESSION, SPLICE
from mmdata.datasets.book import proven
from mmdata.datasets.booksync import Note
from mmdata.datasets.booksync import TradeChain as RecorderChain
from mmdata.datasets.certificate.content import ContentHash
from mmdata.datasets.certificate.proof import ChainProof, Mark, Messages, TradeChain
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.schema import arrow_schema
from tests.property.test_book_kernel import columns

Item = tuple[int, tuple[int, int, int]]


@st.composite
def recordings(draw: st.DrawFn, exchange: str) -> list[Item]:
    """Return (kind, ids) of a recording in which most messages continue, and some do not."""
    items: list[Item] = [(SESSION, (NO_ID, NO_ID, NO_ID))]
    at = 100
    for _ in range(draw(st.integers(1, 40))):
        kind = draw(st.sampled_from([DIFF] * 12 + [SPLICE] * 3 + [GAP, GAP_OPEN, SESSION, REPLACE]))
        if kind == DIFF:
            lost = draw(st.sampled_from([0] * 8 + [3, -4, -9]))
            first, last = at + 1 + lost, at + lost + draw(st.integers(1, 3))
            items.append((DIFF, (first, last, first - 1)))
            at = last
        elif kind == SPLICE and CHAINS[exchange].spliced:
            items.append((SPLICE, (NO_ID, at + draw(st.integers(-8, 4)), NO_ID)))
        elif kind == REPLACE and exchange == "okx":
            at += draw(st.integers(0, 3))
            items.append((REPLACE, (at, at, NO_ID)))
        elif kind in (GAP, GAP_OPEN, SESSION):
            items.append((kind, (NO_ID, NO_ID, NO_ID)))
    return items


def walk(exchange: str, items: list[Item], cuts: set[int]) -> ChainProof:
    """Let the proof take a recording, its messages in batches that end at ``cuts``."""
    proof = ChainProof(CHAINS[exchange])
    sessions: list[list[tuple[int, Item]]] = []
    for at, item in enumerate(items):
        if item[0] == SESSION:
            sessions.append([])
        else:
            sessions[-1].append((at, item))
    for number, own in enumerate(sessions):
        marks = []
        batch: list[tuple[int, Item]] = []
        for at, (kind, ids) in own:
            if kind == SPLICE:
                marks.append(Mark(at, at, ids[1], None, None))
            elif kind in (GAP, GAP_OPEN):
                marks.append(Mark(at, at, None, None if kind == GAP_OPEN else 1, "missing"))
        proof.begin(f"s{number}", marks, carried=False)
        for at, item in own:
            if item[0] in (DIFF, REPLACE):
                batch.append((at, item))
            if batch and at in cuts:
                proof.take(messages(batch))
                batch = []
        if batch:
            proof.take(messages(batch))
    proof.finish()
    return proof


def messages(batch: list[tuple[int, Item]]) -> Messages:
    at = np.array([at for at, _ in batch], np.int64)
    first, last, prev = np.array([ids for _, (_, ids) in batch], np.int64).T
    replaces = np.array([kind == REPLACE for _, (kind, _) in batch])
    return Messages(at, at, first, last, prev, replaces)


@given(st.data(), st.sampled_from([*CHAINS]), st.sets(st.integers(0, 40)))
@settings(deadline=None, max_examples=400)
def test_the_book_is_proven_where_the_kernel_says_so(
    data: st.DataObject, exchange: str, cuts: set[int]
) -> None:
    items = data.draw(recordings(exchange))
    valid = proven(columns([k for k, _ in items], [i for _, i in items], [[]] * len(items)), CHAINS[exchange])
    kinds = np.array([kind for kind, _ in items])
    proof = walk(exchange, items, cuts)
    spans = [range(begin, end + 1) for begin, end in proof.spans]
    for at in np.flatnonzero(kinds <= REPLACE).tolist():
        assert bool(valid[at]) == any(at in span for span in spans), (at, items, proof.spans)
    whole = walk(exchange, items, set())
    assert (whole.spans, whole.open_holes(), whole.chains) == (proof.spans, proof.open_holes(), proof.chains)
    for one, other in pairwise(proof.open_holes()):
        assert one.until is not None
        assert one.until <= other.since


def chain_of(batches: list[list[tuple[int, int]]]) -> TradeChain:
    chain = TradeChain("s", "trade")
    for own in batches:
        first, last = np.array(own, np.int64).reshape(-1, 2).T
        chain.take(first, last, {})
    return chain


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 0, 2, -3, -8]), st.integers(1, 3)), max_size=30), st.data()
)
@settings(deadline=None)
def test_holes_of_trades_are_those_that_the_recorder_notes(
    steps: list[tuple[int, int]], data: st.DataObject
) -> None:
    at, ids = 100, []
    for lost, count in steps:
        first = at + 1 + lost
        ids.append((first, first + count - 1))
        at = first + count - 1
    recorder = RecorderChain()
    noted = [note for first, last in ids for note in recorder.receive(first, last)]
    cut = data.draw(st.integers(0, len(ids)))
    chain = chain_of([ids[:cut], ids[cut:]])
    assert [hole[:2] for hole in chain.holes] == [
        (note.last_id, note.next_id) for note in noted if isinstance(note, Note)
    ]
    assert chain == chain_of([ids])


ROWS = st.fixed_dictionaries(
    {
        "frame": st.integers(0, 5),
        "ts_recv": st.integers(0, 3),
        "ts_event": st.none() | st.integers(0, 3),
        "conn": st.integers(0, 1),
        "side": st.sampled_from([None, "bid", "ask", "é", ""]),
        "price": st.none() | st.integers(-(10**17), 10**17),
        "size": st.none() | st.integers(0, 3),
        "orders": st.none() | st.integers(0, 2),
        "is_snapshot": st.booleans(),
        "is_last": st.booleans(),
    }
)


def table(rows: list[dict[str, Any]], *, wide: bool) -> pa.Table:
    schema = arrow_schema("depth")
    arrays = []
    for field in schema:
        values = ["s" if field.name == "session" else row.get(field.name) for row in rows]
        if pa.types.is_decimal(field.type):
            exact = pa.array([None if v is None else f"{v}e-8" for v in values], pa.string()).cast(field.type)
            arrays.append(exact.cast(pa.decimal128(38, 18)) if wide else exact)
        else:
            arrays.append(pa.array(values, field.type))
    return pa.Table.from_arrays(arrays, schema=arrow_schema("depth", wide=wide))


def hashed(tables: list[pa.Table]) -> str:
    content = ContentHash(arrow_schema("depth"))
    for own in tables:
        content.take(own)
    return content.hexdigest()


@given(st.lists(ROWS, min_size=1, max_size=12), st.data())
@settings(deadline=None)
def test_content_hash_is_of_values_alone_and_of_each(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    told = hashed([table(rows, wide=False)])
    cut = data.draw(st.integers(0, len(rows)))
    pieces = [table(own, wide=wide) for own, wide in ((rows[:cut], True), (rows[cut:], False))]
    assert hashed(pieces) == told
    assert hashed([table(rows, wide=True)]) == told
    at = data.draw(st.integers(0, len(rows) - 1))
    name = data.draw(st.sampled_from([*rows[0]]))
    other = data.draw(ROWS)[name]
    changed = [{**row, name: other} if number == at else row for number, row in enumerate(rows)]
    assert (hashed([table(changed, wide=False)]) == told) == (changed == rows)
    assert (hashed([table(rows[:at] + rows[at + 1 :], wide=False)]) == told) is False


def test_content_hash_sees_values_finer_than_narrow_ones() -> None:
    schema = arrow_schema("depth", wide=True)
    rows = [
        {"frame": 1, "ts_recv": 1, "conn": 0, "is_snapshot": False, "is_last": True, "price": 5, "size": 1}
    ]

    def of(price: str) -> str:
        own = table(rows, wide=True)
        exact = pa.array([price]).cast(schema.field("price").type)
        return hashed([own.set_column(own.schema.get_field_index("price"), schema.field("price"), exact)])

    prices = [
        "0",
        "0.000000000000000001",
        "0.000000000000000002",
        "0.00000001",
        "99999999999",
        "-0.0000000001",
    ]
    assert len({of(price) for price in prices}) == len(prices)
