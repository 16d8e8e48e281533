"""The plain lines of a capture, many in one call: the shell around the kernel that reads Binance's frames.

`PlainLines` holds what the kernel fills and what it has to know: tables, words, the chains of ids. Whatever
the kernel leaves open is decided by the very machines that decide for the strict reader, and whatever it
does not read is left to that: the tables are the same, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.decimals import from_units
from mmdata.datasets.schema import NARROW, TIME
from mmdata.recorder.capture import FRAME, Line
from mmdata.recorder.merge import Merging, chain_name
from mmdata.recorder.records import Bbo, Depth, Record, Trade
from mmdata.recorder.rows import Columns, Layout
from mmdata.recorder.venues.binance import _kernel as k

_LONGEST_MESSAGE = 1 << 13  # levels; one with more goes to the strict decoder
_CONNS = 16  # as many connections are told apart in the kernel
_MOST_WORDS, _MOST_LETTERS = 1 << 12, 1 << 17
_STREAM_KINDS = {
    "depth": k.DEPTH,
    "trade": k.TRADE,
    "aggTrade": k.AGG_TRADE,
    "bookTicker": k.BOOK_TICKER,
}
_CHANNELS = {k.DEPTH: ("depth",), k.TRADE: ("trades", "trade"), k.AGG_TRADE: ("trades", "agg")}
DONE, ODD, FULL, DATE = k.DONE, k.ODD, k.FULL, k.DATE
"""How reading may end."""


class Watcher(Protocol):
    """Follows the chains of a capture whose own recorder did not."""

    def see(self, line: Line, record: Record) -> None:
        """Look at the next record that enters the tables."""

    def proven_id(self, record: Record) -> int:
        """Return the id that the chain of ``record`` is at; NO_ID: the next is to be looked at anyhow."""

    def went_on(self, record: Record, last_id: int) -> None:
        """Take over that the chain of ``record`` was continued up to ``last_id``."""


class PlainLines:
    """Reads lines into columns until ``room`` rows have gathered.

    ``only_symbol`` leaves all others to the strict reader. ``merging`` and ``watcher`` must not be used by
    anybody else between `read` and `hand_back`.
    """

    def __init__(
        self, exchange: str, merging: Merging, watcher: Watcher | None, only_symbol: str | None, room: int
    ) -> None:
        self._rule = CHAINS[exchange].rule
        self._merging = merging
        self._watcher = watcher
        self._only_symbol = only_symbol
        capacity = room + _LONGEST_MESSAGE
        self._depth = np.empty((k.DEPTH_COLUMNS, capacity), np.int64)
        self._trades = np.empty((k.TRADE_COLUMNS, capacity), np.int64)
        self._tickers = np.empty((k.TICKER_COLUMNS, capacity), np.int64)
        # Arrow's decimals are two words each; the second, always zero here, is never touched.
        self._levels, self._fills = np.zeros((2, capacity, 2), np.int64), np.zeros((2, capacity, 2), np.int64)
        self._quotes = np.zeros((4, capacity, 2), np.int64)
        self._kinds, self._values = np.zeros(k.KEYS, np.int8), np.zeros(k.KEYS, np.int64)
        self.state = np.zeros(k.PLACES, np.int64)
        self._symbols: list[str] = []
        self._flags: list[str] = []
        self._slots = np.full(2 * _MOST_WORDS, k.NO_WORD, np.int32)
        self._words = np.zeros((_MOST_WORDS, 4), np.int32)
        self._letters = np.zeros(_MOST_LETTERS, np.uint8)
        self._word_count = self._letter_count = 0
        self._conns = np.full(_CONNS, -1, np.int64)
        self._chains = np.zeros((0, k.CHAIN_COLUMNS), np.int64)
        self._own = np.zeros((0, _CONNS), np.int64)

    def __len__(self) -> int:
        """Return how many rows have gathered."""
        return int(self.state[k.ROWS] + self.state[k.TRADES] + self.state[k.TICKERS])

    def read(
        self, text: bytes, at: int, number: int, span: tuple[int, int], *, is_tagged: bool, room: int
    ) -> tuple[int, int, int]:
        """Read the lines of ``text`` from ``at`` on, the first of which is line ``number``.

        Returns how it ended (DONE; ODD: the next line is the strict reader's; FULL; DATE: its stamp, which
        `counts` tells, is not within ``span``, ns, end excluded), where it stopped, and the number of the
        line there.
        """
        state = self.state
        state[k.AT], state[k.NUMBER], state[k.ROOM] = at, number, room
        state[[k.SINCE, k.UNTIL]] = span
        while True:
            ending = k.read_lines(
                text,
                state,
                is_tagged,
                self._rule,
                self._watcher is not None,
                self._slots,
                self._words,
                self._letters,
                self._conns,
                self._chains,
                self._own,
                self._depth,
                self._levels,
                self._trades,
                self._fills,
                self._tickers,
                self._quotes,
                self._kinds,
                self._values,
            )
            if ending == k.WORD:
                if self._learn(text[state[k.WORD_BEGIN] : state[k.WORD_END]], int(state[k.WORD_CLASS])):
                    continue
                ending = k.ODD
            if ending not in (k.JUDGE, k.WATCH):
                return ending, int(state[k.AT]), int(state[k.NUMBER])
            self._decide(judge=ending == k.JUDGE)

    def counts(self) -> tuple[int, int, int]:
        """Return the frames and the repeats among them since the last call, and the last line's stamp."""
        frames, repeats = int(self.state[k.FRAMES]), int(self.state[k.REPEATS])
        self.state[k.FRAMES] = self.state[k.REPEATS] = 0
        return frames, repeats, int(self.state[k.STAMP])

    def hand_back(self) -> None:
        """Tell the machines what the kernel came to, and look at them again before it goes on."""
        for chain in np.flatnonzero(self._chains[:, k.READY]).tolist():
            self._store(chain)
        self._chains[:, k.READY] = 0
        self._conns[:] = -1

    def settle(self) -> Iterator[tuple[str, str, Columns]]:
        """Yield table, symbol and columns (but the session) of what has gathered, and empty it."""
        state = self.state
        counts = [int(state[place]) for place in (k.MESSAGES, k.TRADES, k.TICKERS)]
        tables = (self._depth, self._trades, self._tickers)
        readers = (self._depth_columns, self._trade_columns, self._ticker_columns)
        names = ("depth", "trades", "bbo")
        for name, table, count, columns in zip(names, tables, counts, readers, strict=True):
            whose = table[k.WHOSE, :count]
            codes = np.unique(whose).tolist()
            for code in codes:
                own = None if len(codes) == 1 else whose == code
                facts = table[:, :count].copy() if own is None else table[:, :count][:, own]
                yield name, self._symbols[code], columns(facts, own)
        state[[k.MESSAGES, k.ROWS, k.TRADES, k.TICKERS]] = 0

    def _learn(self, word: bytes, kind: int) -> bool:
        """Put a word into the table; False: it is full, and whatever has the word is the strict reader's."""
        if self._word_count == _MOST_WORDS or self._letter_count + len(word) > _MOST_LETTERS:
            return False
        text = word.decode()
        meaning = k.NO_WORD
        if kind == k.STREAM:
            channel = text.partition("@")[2].partition("@")[0]
            meaning = _STREAM_KINDS.get(channel, k.NO_WORD)
        elif kind == k.FLAG:
            meaning = len(self._flags)
            self._flags.append(text)
        elif self._only_symbol in (None, text):
            meaning = len(self._symbols)
            self._symbols.append(text)
            more = [(k.KINDS, k.CHAIN_COLUMNS), (k.KINDS, _CONNS)]
            self._chains, self._own = (
                np.concatenate((array, np.zeros(shape, np.int64)))
                for array, shape in zip((self._chains, self._own), more, strict=True)
            )
        begin, end = self._letter_count, self._letter_count + len(word)
        self._letters[begin:end] = np.frombuffer(word, np.uint8)
        self._words[self._word_count] = kind, begin, len(word), meaning
        slot = k.hash_word(word, kind) % len(self._slots)
        while self._slots[slot] != k.NO_WORD:
            slot = (slot + 1) % len(self._slots)
        self._slots[slot] = self._word_count
        self._letter_count = end
        self._word_count += 1
        return True

    def _decide(self, *, judge: bool) -> None:
        """Have the machines decide what the kernel left open of the message that it has just read."""
        state = self.state
        chain = int(state[k.CHAIN])
        kind = chain % k.KINDS
        table, place = {
            k.DEPTH: (self._depth, k.MESSAGES),
            k.BOOK_TICKER: (self._tickers, k.TICKERS),
        }.get(kind, (self._trades, k.TRADES))
        facts = table[:, state[place] - (not judge)].tolist()
        record = self._record(chain, facts)
        line = Line(facts[k.FRAME], FRAME, facts[k.TS_RECV], facts[k.CONN], b"")
        self._store(chain)
        enters = True
        if judge:
            enters = self._merging.enters(line.conn or 0, record)
            state[k.AT], state[k.STAMP] = state[k.NEXT], line.ts_recv
            state[k.NUMBER] += 1
            state[k.FRAMES] += 1
            state[k.REPEATS] += not enters
            if enters:
                state[place] += 1
                state[k.ROWS] += state[k.NEW_ROWS] if kind == k.DEPTH else 0
        if enters and self._watcher is not None:
            self._watcher.see(line, record)
        self._load(chain, record)

    def _record(self, chain: int, facts: list[int] | None = None) -> Record:
        """Return a message of a chain with its ids alone: what the machines look at."""
        kind, symbol = chain % k.KINDS, self._symbols[chain // k.KINDS]
        facts = facts or [0] * k.TRADE_COLUMNS
        if kind == k.DEPTH:
            return Depth(symbol, None, None, facts[k.FIRST_ID], facts[k.LAST_ID], facts[k.PREV_ID], (), ())
        if kind == k.BOOK_TICKER:
            return Bbo(symbol, None, None, facts[k.TICKER_ID], None, None)
        ids = (facts[k.TRADE_ID], facts[k.FIRST_TRADE], facts[k.LAST_TRADE])
        return Trade(symbol, _CHANNELS[kind][1], None, None, *ids, "buy", "0", "0")

    def _name(self, chain: int) -> str:
        channel, *kind = _CHANNELS.get(chain % k.KINDS, ("bbo",))
        return chain_name(channel, self._symbols[chain // k.KINDS], *kind)

    def _store(self, chain: int) -> None:
        """Tell the machines of a chain what the kernel came to since `_load`."""
        facts = self._chains[chain].tolist()
        if facts[k.READY] and facts[k.ADVANCED]:
            merge = self._merging.of(self._name(chain))
            assert merge is not None
            conns = self._conns.tolist()
            own = {conns[slot]: last for slot, last in enumerate(self._own[chain].tolist()) if last != NO_ID}
            merge.went_on(facts[k.HEAD], conns[facts[k.LEADER]], own)
        if facts[k.READY] and facts[k.WENT_ON]:
            assert self._watcher is not None
            self._watcher.went_on(self._record(chain), facts[k.TAIL])

    def _load(self, chain: int, record: Record) -> None:
        """Take over where the machines of a chain stand; it is not ready if the kernel cannot follow them."""
        merge = self._merging.of(self._name(chain))
        facts = self._chains[chain]
        facts[:] = 0
        if merge is None:
            return
        state = merge.state()
        slots = {conn: self._slot(conn) for conn in (*state.own, state.leader) if conn >= 0}
        if state.leader < 0 or None in slots.values():
            return
        self._own[chain] = NO_ID
        for conn, last_id in state.own.items():
            self._own[chain, slots[conn]] = last_id
        tail = NO_ID if self._watcher is None else self._watcher.proven_id(record)
        facts[[k.READY, k.HEAD, k.LEADER, k.IS_EVEN, k.TAIL]] = (
            1,
            state.head,
            slots[state.leader],
            state.head >= state.old and not state.fallen,
            tail,
        )

    def _slot(self, conn: int) -> int | None:
        """Return the column of a connection in `_own`; None: there are too many."""
        for free in (conn, -1):
            found = np.flatnonzero(self._conns == free)
            if found.size:
                self._conns[found[0]] = conn
                return int(found[0])
        return None

    def _depth_columns(self, facts: NDArray[np.int64], own: NDArray[np.bool_] | None) -> Columns:
        layout = Layout(facts[[k.BIDS, k.ASKS]].T)
        facts = np.repeat(facts[: k.BIDS], layout.rows, axis=1)
        ids = {"first_id": k.FIRST_ID, "last_id": k.LAST_ID, "prev_id": k.PREV_ID}
        levels = self._levels[:, : self.state[k.ROWS]]
        if own is not None:
            runs = self._depth[[k.BIDS, k.ASKS], : len(own)].sum(axis=0)
            levels = levels[:, np.repeat(own, np.maximum(runs, 1))]
        rows = levels.shape[1]
        return _head(facts) | {
            **{name: pa.array(facts[place]) for name, place in ids.items()},
            "side": layout.side(),
            "price": layout.blanked(_decimals(levels[0])),
            "size": layout.blanked(_decimals(levels[1])),
            "orders": pa.nulls(rows, pa.int32()),
            "checksum": pa.nulls(rows, pa.int32()),
            "is_snapshot": pa.repeat(False, rows),
            "is_last": layout.is_last(),
        }

    def _trade_columns(self, facts: NDArray[np.int64], own: NDArray[np.bool_] | None) -> Columns:
        count = facts.shape[1]
        fills = _own_rows(self._fills, self.state[k.TRADES], own)
        ids = {"trade_id": k.TRADE_ID, "first_trade_id": k.FIRST_TRADE, "last_trade_id": k.LAST_TRADE}
        flags = facts[k.FLAGS]
        flag = pa.array(flags, mask=flags < 0) if count else pa.array([], pa.int64())
        return _head(facts) | {
            "kind": pa.array(["trade", "agg"]).take(pa.array(facts[k.IS_AGG])),
            "origin": pa.repeat("stream", count),
            **{name: pa.array(facts[place]) for name, place in ids.items()},
            "side": pa.array(["buy", "sell"]).take(pa.array(facts[k.IS_SELL])),
            "price": _decimals(fills[0]),
            "size": _decimals(fills[1]),
            "seq": pa.nulls(count, pa.int64()),
            "flags": pa.array(self._flags, pa.string()).take(flag),
        }

    def _ticker_columns(self, facts: NDArray[np.int64], own: NDArray[np.bool_] | None) -> Columns:
        names = ("bid_price", "bid_size", "ask_price", "ask_size")
        quotes = _own_rows(self._quotes, self.state[k.TICKERS], own)
        nobody = pa.nulls(facts.shape[1], pa.int32())
        return (
            _head(facts)
            | {"last_id": pa.array(facts[k.TICKER_ID]), "bid_orders": nobody, "ask_orders": nobody}
            | {name: _decimals(values) for name, values in zip(names, quotes, strict=True)}
        )


def _own_rows(numbers: NDArray[np.int64], count: int, own: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    return numbers[:, :count] if own is None else numbers[:, :count][:, own]


def _head(facts: NDArray[np.int64]) -> Columns:
    """Return the columns that every message has."""
    return {
        "frame": pa.array(facts[k.FRAME]),
        "ts_recv": pa.array(facts[k.TS_RECV]).view(TIME),
        "ts_event": _times(facts[k.TS_EVENT]),
        "ts_sent": _times(facts[k.TS_SENT]),
        "conn": pa.array(facts[k.CONN].astype(np.int32)),
    }


def _times(values: NDArray[np.int64]) -> pa.Array:
    missing = values == k.NO_TIME
    return pa.array(values, mask=missing if missing.any() else None).view(TIME)


def _decimals(words: NDArray[np.int64]) -> pa.Array:
    return from_units(words.copy(), NARROW)


def warm_up() -> None:
    """Compile the kernel, or load it."""
    lines = PlainLines("binance", Merging(CHAINS["binance"].rule, {}), None, None, 1)
    assert lines.read(b"\n", 0, 0, (0, 1), is_tagged=True, room=1)[0] == k.ODD
