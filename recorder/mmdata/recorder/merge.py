"""The connections of one recording, merged by sequence id, a chain at a time (`mmdata.datasets.merge_machine`).

The recorder runs the machines while it records, ingest runs them again over the captured lines and comes to
the same verdicts. A segment's header carries the state at its beginning (`MergeState`). Frames stay in the
capture whatever the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

from mmdata.datasets.chain import NO_ID, RANGE
from mmdata.datasets.merge_machine import Merge, MergeState
from mmdata.recorder.records import Bbo, Depth, Record, Trade


def chain_name(channel: str, symbol: str, kind: str = "") -> str:
    """Return the name of a chain in a segment's header.

    >>> chain_name("trades", "BTCUSDT", "agg")
    'trades BTCUSDT agg'
    """
    return f"{channel} {symbol} {kind}".rstrip()


class Merging:
    """The merges of all chains of one session, by the records that its frames hold.

    ``rule`` is the one of the exchange's books, ``states`` where the chains stood before the first record.
    """

    def __init__(self, rule: int, states: Mapping[str, MergeState]) -> None:
        self._rule = rule
        self._merges = {
            name: Merge(rule if name.startswith("depth ") else RANGE, state) for name, state in states.items()
        }

    def enters(self, conn: int, record: Record) -> bool:
        """Tell whether the next record of ``conn`` enters the tables."""
        rule, is_snapshot = RANGE, False
        last_id: int | None
        prev_id: int | None = None
        if isinstance(record, Depth):
            name, rule, is_snapshot = chain_name("depth", record.symbol), self._rule, record.is_snapshot
            last_id, prev_id = record.last_id, record.prev_id
        elif isinstance(record, Trade):
            name, last_id = chain_name("trades", record.symbol, record.kind), record.trade_id
            # An aggregate of OKX counts in the ids of its trades, one of Binance in ids of its own.
            spans = record.first_trade_id is not None and record.last_trade_id == last_id
            prev_id = (record.first_trade_id if spans and record.first_trade_id is not None else last_id) - 1
        elif isinstance(record, Bbo):
            name, last_id = chain_name("bbo", record.symbol), record.last_id
        else:
            return True
        merge = self._merges.get(name)
        if merge is None:
            merge = self._merges[name] = Merge(rule)
        return merge.enters(
            conn, NO_ID if last_id is None else last_id, NO_ID if prev_id is None else prev_id, is_snapshot
        )

    def leave(self, conn: int) -> None:
        """Say that a connection has ended."""
        for merge in self._merges.values():
            merge.leave(conn)
