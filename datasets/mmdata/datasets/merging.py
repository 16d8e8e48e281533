"""`mmdata merge`: two recordings of the same streams united by id into a new dataset.

The lines of both are taken in the order in which they arrived; of each chain the first message enters that
advances it (`mmdata.datasets.union`). A hole of one is filled by the other, and what neither has is on record
as a gap. A message that had to wait for what the other brought stands where that came; its ``ts_recv`` stays
what it was.

The new dataset is made aside and gets its name in one step: it is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.booksync import Action, BookSync, Note, TradeChain
from mmdata.datasets.certificate import certify
from mmdata.datasets.chain import CHAINS, NO_ID, RANGE
from mmdata.datasets.disk import make_folder, refusal, sync_folder
from mmdata.datasets.errors import DiskError, UsageError
from mmdata.datasets.heads import Flags, Heads, Ints, Recording, rows_of
from mmdata.datasets.layout import NO_SYMBOL, STAGING, Partition, list_partitions
from mmdata.datasets.locks import LOCKS, holder, open_lock, sign, try_lock
from mmdata.datasets.published import Published, by_date
from mmdata.datasets.schema import EXACT_TABLES, TABLES, arrow_schema
from mmdata.datasets.stores import local_root
from mmdata.datasets.union import Union, messages_of
from mmdata.datasets.version import version

_BLOCK = 1 << 20
_LOCK = ".merging"
_WAITING_BITS = 20  # messages that one line may let in
_KINDS = ("trade", "agg", "block")
_DERIVED_EVENTS = (
    *(
        "session_start",
        "session_end",
        "synced",
        "snapshot",
        "gap",
        "resync",
        "backfill",
    ),  # told anew, or void
)


@dataclass
class MergeReport:
    """What a merge did."""

    out: Path
    session: str
    rows: Counter[str] = field(default_factory=Counter)
    """Published, by table."""
    taken: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Messages of each table that came from each recording."""
    repeats: int = 0
    """Messages that both recordings have, counted once."""
    gaps: int = 0
    """Holes that neither fills."""
    certified: int = 0
    """Days of a symbol that got a certificate."""
    warnings: list[str] = field(default_factory=list)

    def to_json_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "schema": 1,
            "out": str(self.out),
            "session": self.session,
            "rows": dict(sorted(self.rows.items())),
            "messages": [
                {"table": table, "recording": conn, "taken": count}
                for (table, conn), count in sorted(self.taken.items())
            ],
            "repeats": self.repeats,
            "gaps": self.gaps,
            "certified": self.certified,
            "warnings": self.warnings,
        }


def merge(
    one: Path,
    other: Path,
    out: Path,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> MergeReport:
    """Unite what the datasets ``one`` and ``other`` hold, or some of it, in a new dataset ``out``.

    ``conn`` tells of each row which recording gave it: 0 is ``one``, 1 is ``other``. Both stay as they are. A
    day of a table and symbol is in memory at once. ``progress`` is called with what is being done.

    UsageError: no such dataset, or in an object store; nothing in them, ``out`` is there already, books
    without ids. DatasetError: a file is damaged. DiskError: ``out`` cannot be written; nothing is there then.
    """
    one, other, out = (local_root(root, "a merge") for root in (one, other, out))
    for root in (one, other):
        if not root.is_dir():
            raise UsageError(f"{root}: there is no such folder; name a dataset's")
    _refuse(out)
    whole = _symbols((one, other), exchange, symbol)
    if not whole:
        raise UsageError(f"{one} and {other} hold nothing of that exchange and symbol; nothing was merged")
    report = MergeReport(out, "")
    try:
        with _aside(out) as made:
            digest = hashlib.sha256()
            recordings = {
                name: [Recording(root, name, symbols) for root in (one, other)]
                for name, symbols in whole.items()
            }
            for pair in recordings.values():
                for recording in pair:
                    _add_bytes(digest, recording)
            report.session = f"merge-{digest.hexdigest()[:12]}"
            for name, pair in recordings.items():
                if progress is not None:
                    progress(f"merging {name} ...")
                _Union(made, name, whole[name], pair, report).run()
            if progress is not None:
                progress("certifying ...")
            certified = certify(made)
            report.certified = len(certified.done)
            report.warnings += [*certified.warnings, *certified.failures]
            _refuse(out)
            for leftover in (LOCKS, STAGING):
                with contextlib.suppress(FileNotFoundError):
                    (made / leftover).rmdir()
            sync_folder(made)
            (made / _LOCK).unlink()
            made.rename(out)
            sync_folder(out.absolute().parent)
    except OSError as error:
        raise DiskError(f"{out}: could not be made ({refusal(error)}); nothing of it is there") from error
    return report


def _refuse(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out}: is there already, and a merge makes a new dataset; name a folder that does not exist"
        )


def _symbols(roots: Iterable[Path], exchange: str | None, symbol: str | None) -> dict[str, list[str]]:
    """Return the symbols to merge by exchange; with the rows that concern no single one."""
    found: dict[str, set[str]] = defaultdict(set)
    for root in roots:
        for table in TABLES:
            for partition in list_partitions(root, table, exchange=exchange):
                if symbol in (None, partition.symbol):
                    found[partition.exchange].add(partition.symbol)
    return {name: sorted({*found[name], NO_SYMBOL}) for name in sorted(found)}


def _add_bytes(digest: Any, recording: Recording) -> None:
    for path in dict.fromkeys(part.path for parts in recording.parts.values() for part in parts):
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)


@contextlib.contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Yield a folder beside ``out`` to make it in; what killed merges left there goes."""
    beginning = f".{out.name}.merging-"
    make_folder(out.absolute().parent)
    for leftover in out.absolute().parent.glob(f"{beginning}*"):
        if holder(leftover / _LOCK) is None:
            shutil.rmtree(leftover, ignore_errors=True)
    made = out.absolute().parent / f"{beginning}{secrets.token_hex(6)}"
    made.mkdir()
    handle = open_lock(made / _LOCK)
    try:
        try_lock(handle)
        sign(handle)
        yield made
    finally:
        os.close(handle)
        shutil.rmtree(made, ignore_errors=True)


@dataclass(frozen=True)
class _Chosen:
    """Messages of both recordings that enter a table, in order; arrays of shape (n,)."""

    conn: Ints
    at: Ints
    """Which message of its recording."""
    frame: Ints
    """Where it stands: the line that let it enter, and its place among those that waited for it."""

    def take(self, chosen: Ints | Flags) -> _Chosen:
        """Return the chosen ones of them."""
        return _Chosen(self.conn[chosen], self.at[chosen], self.frame[chosen])


class _Union:
    """Two recordings of one exchange, being united."""

    def __init__(
        self,
        made: Path,
        exchange: str,
        symbols: Sequence[str],
        recordings: Sequence[Recording],
        report: MergeReport,
    ) -> None:
        self._root = made
        self._exchange = exchange
        self._symbols = symbols
        self._recordings = recordings
        self._report = report
        self._heads = {
            (table, symbol): [recording.heads(table, symbol) for recording in recordings]
            for table in TABLES
            for symbol in symbols
        }
        self._lines = _Lines(
            [[pair[conn] for pair in self._heads.values()] for conn in range(len(recordings))]
        )
        self._numbers = np.empty(0, np.int64)
        """Where the lines stand that anything of has entered: their numbers in this order are the frames."""
        self._events: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._published = Published(made, exchange, report.session)

    def run(self) -> None:
        """Decide what enters, number it, publish it."""
        if not self._lines.count:
            return
        reasons: dict[int, str] = {}
        plan: dict[tuple[str, str], _Chosen] = {}
        for symbol in self._symbols:
            if symbol != NO_SYMBOL:
                plan["depth", symbol] = self._book(symbol, reasons)
                plan["trades", symbol] = self._trades(symbol)
                plan["bbo", symbol] = self._bbo(symbol)
                plan["snapshots", symbol] = self._in_order("snapshots", symbol)
                plan["instruments", symbol] = self._instruments(symbol)
            plan["quarantine", symbol] = self._in_order("quarantine", symbol)
            plan["events", symbol] = self._other_events(symbol)
        begun, ended = self._lines.begun, self._lines.ended
        self._note(NO_SYMBOL, 0, begun, "session_start", detail=self._provenance())
        self._note(
            NO_SYMBOL, self._lines.count << _WAITING_BITS, ended, "session_end", detail={"source": "merge"}
        )
        noted = [np.array([note["frame"] for note in notes], np.int64) for notes in self._events.values()]
        self._numbers = np.unique(np.concatenate([*(chosen.frame for chosen in plan.values()), *noted]))
        for (table, symbol), chosen in plan.items():
            self._publish(table, symbol, chosen, reasons if table == "snapshots" else None)

    def _provenance(self) -> dict[str, Any]:
        return {
            "source": "merge",
            "recordings": [
                {"conn": conn, "root": str(recording.root), "sessions": list(recording.sessions)}
                for conn, recording in enumerate(self._recordings)
            ],
        }

    # --- which messages

    def _in_order(self, table: str, symbol: str, of: Sequence[Ints] | None = None) -> _Chosen:
        """Return the messages of both recordings (or of those numbers) in order of arrival."""
        pair = self._heads[table, symbol]
        own = of or [np.arange(len(heads)) for heads in pair]
        frame = np.concatenate([self._lines.of(conn, pair[conn].place[at]) for conn, at in enumerate(own)])
        conn = np.repeat(np.arange(len(own)), [len(at) for at in own])
        order = np.argsort(frame, kind="stable")
        return _Chosen(conn[order], np.concatenate(own)[order], frame[order])

    def _entered(self, rule: int, pair: Sequence[Heads], arrivals: _Chosen) -> _Chosen:
        """Return the messages of one chain that enter, in its order."""
        numbers = [arrivals.at[arrivals.conn == conn] for conn in range(len(pair))]
        recordings = []
        for heads, at in zip(pair, numbers, strict=True):
            own = heads.take(at)
            recordings.append(messages_of(rule, own.first_id, own.last_id, own.prev_id, own.is_snapshot))
        conn, at, frames = [], [], []
        lines, arrived = arrivals.frame.tolist(), arrivals.at.tolist()
        from_which = arrivals.conn.tolist()
        frame = -1
        for recording, message, moment in Union(rule, recordings).entries(arrivals.conn):
            number = int(numbers[recording][message])
            is_own = (from_which[moment], arrived[moment]) == (recording, number)
            frame = max(lines[moment], frame if is_own else frame + 1)
            conn.append(recording)
            at.append(number)
            frames.append(frame)
        self._report.repeats += len(lines) - len(frames)
        return _Chosen(*(np.array(column, np.int64) for column in (conn, at, frames)))

    def _book(self, symbol: str, reasons: dict[int, str]) -> _Chosen:
        """Return the book messages that enter; note where the book begins and breaks.

        ``reasons`` gets what each snapshot is, by its frame: an audit, where the book is whole without it.
        """
        pair = self._heads["depth", symbol]
        if any((heads.last_id == NO_ID).any() for heads in pair):
            raise UsageError(
                f"{symbol} on {self._exchange}: some book messages have no ids, so nothing tells which "
                f"messages of the two recordings are the same; nothing was merged"
            )
        chain = CHAINS[self._exchange]
        taken = self._entered(chain.rule, pair, self._in_order("depth", symbol))
        snapshots = self._in_order("snapshots", symbol)
        audits = self._audits(symbol)
        sync = BookSync(chain)
        queue = list(
            zip(snapshots.frame.tolist(), snapshots.conn.tolist(), snapshots.at.tolist(), strict=True)
        )
        queue.reverse()

        def answer(until: int) -> None:
            while queue and queue[-1][0] < until:
                frame, conn, at = queue.pop()
                reasons[frame] = "audit" if audits[conn][at] else sync.reason
                if reasons[frame] != "audit":
                    heads = self._heads["snapshots", symbol][conn]
                    self._act(
                        symbol,
                        "depth",
                        frame,
                        int(heads.ts_recv[at]),
                        sync.receive_snapshot(int(heads.last_id[at])),
                    )

        for frame, conn, at in zip(taken.frame.tolist(), taken.conn.tolist(), taken.at.tolist(), strict=True):
            answer(frame)
            heads = pair[conn]
            actions = sync.receive(
                int(heads.first_id[at]),
                int(heads.last_id[at]),
                int(heads.prev_id[at]),
                is_snapshot=bool(heads.is_snapshot[at]),
            )
            if actions:
                self._act(symbol, "depth", frame, int(heads.ts_recv[at]), actions)
        answer((self._lines.count + 1) << _WAITING_BITS)
        return taken

    def _audits(self, symbol: str) -> list[Flags]:
        """Return of each snapshot whether it was asked for to compare with."""
        found = []
        for recording, heads in zip(self._recordings, self._heads["snapshots", symbol], strict=True):
            flags = np.zeros(len(heads), np.bool_)
            for part in np.unique(heads.part).tolist():
                own = heads.part == part
                reason = recording.rows("snapshots", symbol, part)["reason"]
                flags[own] = pc.equal(reason, "audit").to_numpy()[heads.begin[own]]
            found.append(flags)
        return found

    def _trades(self, symbol: str) -> _Chosen:
        """Return the trades that enter, by kind and id; note those that are missing."""
        pair = self._heads["trades", symbol]
        told = [self._kinds(symbol, conn) for conn in range(len(pair))]
        pieces: list[_Chosen] = []
        for kind in range(len(_KINDS)):
            own = [np.flatnonzero((kinds == kind) & ~later) for kinds, later in told]
            if not any(map(len, own)):
                continue
            counted = _KINDS[kind] == "agg" and self._exchange != "okx"
            chained = [_as_chain(heads, counted=counted) for heads in pair]
            taken = self._entered(RANGE, chained, self._in_order("trades", symbol, own))
            watch = TradeChain()
            for conn, at, frame in zip(
                *(v.tolist() for v in (taken.conn, taken.at, taken.frame)), strict=True
            ):
                if pair[conn].first_id[at] != NO_ID:
                    first, last = int(chained[conn].first_id[at]), int(chained[conn].last_id[at])
                    self._act(
                        symbol, "trades", frame, int(pair[conn].ts_recv[at]), watch.receive(first, last)
                    )
            pieces += [taken, self._asked_later(symbol, kind, told, taken)]
        if not pieces:
            return self._in_order("trades", symbol, [np.empty(0, np.int64)] * len(pair))
        joined = [
            np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("conn", "at", "frame")
        ]
        order = np.argsort(joined[2], kind="stable")
        return _Chosen(*(column[order] for column in joined))

    def _kinds(self, symbol: str, conn: int) -> tuple[Ints, Flags]:
        """Return the kind of each trade of a recording, and whether it was asked for later."""
        recording, heads = self._recordings[conn], self._heads["trades", symbol][conn]
        kinds, later = np.zeros(len(heads), np.int64), np.zeros(len(heads), np.bool_)
        for part in np.unique(heads.part).tolist():
            own = heads.part == part
            rows = recording.rows("trades", symbol, part)
            at = heads.begin[own]
            kinds[own] = pc.index_in(rows["kind"], value_set=pa.array(_KINDS)).to_numpy()[at]
            later[own] = pc.equal(rows["origin"], "backfill").to_numpy()[at]
        return kinds, later

    def _asked_later(
        self, symbol: str, kind: int, told: Sequence[tuple[Ints, Flags]], taken: _Chosen
    ) -> _Chosen:
        """Return the trades asked for later that neither recording has from its stream, each once."""
        pair = self._heads["trades", symbol]
        have = np.concatenate([pair[conn].last_id[taken.at[taken.conn == conn]] for conn in range(len(pair))])
        later = self._in_order(
            "trades", symbol, [np.flatnonzero((kinds == kind) & asked) for kinds, asked in told]
        )
        if not len(later.at):
            return later
        number = np.array([pair[conn].last_id[at] for conn, at in zip(later.conn, later.at, strict=True)])
        _, first = np.unique(number, return_index=True)
        keep = np.zeros(len(number), np.bool_)
        keep[first] = True
        keep &= ~np.isin(number, have)
        return later.take(keep)

    def _bbo(self, symbol: str) -> _Chosen:
        return self._entered(RANGE, self._heads["bbo", symbol], self._in_order("bbo", symbol))

    def _instruments(self, symbol: str) -> _Chosen:
        """Return what was told of the symbol, where it is not what was told just before."""
        whole = self._in_order("instruments", symbol)
        pair = self._heads["instruments", symbol]
        keep = np.zeros(len(whole.at), np.bool_)
        before = None
        for row, (conn, at) in enumerate(zip(whole.conn.tolist(), whole.at.tolist(), strict=True)):
            rows = self._recordings[conn].rows("instruments", symbol, int(pair[conn].part[at]))
            told = {
                name: value
                for name, value in rows.slice(int(pair[conn].begin[at]), 1).to_pylist()[0].items()
                if name not in ("session", "frame", "ts_recv")
            }
            keep[row] = told != before
            before = told
        return whole.take(keep)

    def _other_events(self, symbol: str) -> _Chosen:
        """Return the events that hold of the union too: what the chains say is told anew."""
        found = []
        for recording, heads in zip(self._recordings, self._heads["events", symbol], strict=True):
            keep = np.zeros(len(heads), np.bool_)
            for part in np.unique(heads.part).tolist():
                own = heads.part == part
                void = pc.is_in(
                    recording.rows("events", symbol, part)["kind"], value_set=pa.array(_DERIVED_EVENTS)
                )
                keep[own] = ~void.to_numpy()[heads.begin[own]]
            found.append(np.flatnonzero(keep))
        return self._in_order("events", symbol, found)

    # --- notes and rows

    def _act(self, symbol: str, channel: str, frame: int, ts: int, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Note):  # a recording cannot be asked; its own next snapshot answers
                self._report.gaps += action.kind == "gap"
                self._note(
                    symbol,
                    frame,
                    ts,
                    action.kind,
                    channel=channel,
                    last_id=action.last_id,
                    next_id=action.next_id,
                    detail=dict(action.detail),
                )

    def _note(self, symbol: str, frame: int, ts: int, kind: str, **values: Any) -> None:
        detail = values.pop("detail", None)
        told = json.dumps(detail, separators=(",", ":"), ensure_ascii=False) if detail else None
        self._events[symbol].append(
            {"session": self._report.session, "frame": frame, "ts_recv": ts, "kind": kind, "detail": told}
            | values
        )

    def _publish(self, table: str, symbol: str, chosen: _Chosen, reasons: dict[int, str] | None) -> None:
        """Publish the rows of chosen messages, a day at a time."""
        if table in EXACT_TABLES:
            for conn in np.unique(chosen.conn).tolist():
                self._report.taken[table, conn] += int((chosen.conn == conn).sum())
        schema = arrow_schema(table, wide=table in EXACT_TABLES and self._is_wide(symbol))
        notes = self._events.pop(symbol, []) if table == "events" else []
        for own in self._days(table, symbol, chosen):
            rows = self._rows(table, symbol, chosen, own, schema)
            if reasons is not None:
                rows = _with_reasons(rows, reasons)
            if notes:
                rows, notes = _with_notes(rows, notes, schema), []
            self._publish_rows(table, symbol, rows, schema)
        if notes:
            self._publish_rows(table, symbol, _with_notes(schema.empty_table(), notes, schema), schema)

    def _is_wide(self, symbol: str) -> bool:
        return any(
            part.partition.wide
            for recording in self._recordings
            for table in EXACT_TABLES
            for part in recording.parts[table, symbol]
        )

    def _publish_rows(self, table: str, symbol: str, rows: pa.Table, schema: pa.Schema) -> None:
        facts = {"version": version(), "source": "merge"}
        frames = np.searchsorted(self._numbers, rows["frame"].to_numpy())
        rows = rows.set_column(schema.get_field_index("frame"), schema.field("frame"), pa.array(frames))
        is_wide = table in EXACT_TABLES and schema == arrow_schema(table, wide=True)
        for day, part in by_date(rows):
            partition = Partition(table, is_wide, self._exchange, symbol, day)
            self._report.rows[table] += self._published.publish(partition, part, facts)

    def _days(self, table: str, symbol: str, chosen: _Chosen) -> Iterator[Ints]:
        """Yield the messages of one day after the other; of days that interleave, together.

        Events are few: theirs are one.
        """
        if not len(chosen.at):
            return
        if table == "events":
            yield np.arange(len(chosen.at))
            return
        names: list[str] = []
        for conn, at in zip(chosen.conn.tolist(), chosen.at.tolist(), strict=True):
            part = int(self._heads[table, symbol][conn].part[at])
            names.append(self._recordings[conn].parts[table, symbol][part].partition.date)
        dates = np.array(names)
        until = -1
        gathered: list[Ints] = []
        for day in np.unique(dates).tolist():
            own = np.flatnonzero(dates == day)
            if gathered and chosen.frame[own].min() > until:
                yield np.sort(np.concatenate(gathered))
                gathered = []
            gathered.append(own)
            until = max(until, int(chosen.frame[own].max()))
        yield np.sort(np.concatenate(gathered))

    def _rows(self, table: str, symbol: str, chosen: _Chosen, own: Ints, schema: pa.Schema) -> pa.Table:
        """Read the rows of some chosen messages, in their order, as rows of the new session."""
        tables: list[pa.Table] = []
        ranks: list[Ints] = []
        for conn, recording in enumerate(self._recordings):
            heads = self._heads[table, symbol][conn]
            mine = own[chosen.conn[own] == conn]
            at = chosen.at[mine]
            for part in np.unique(heads.part[at]).tolist():
                here = heads.part[at] == part
                begin, end = heads.begin[at[here]], heads.end[at[here]]
                rows = recording.rows(table, symbol, part).take(pa.array(rows_of(begin, end)))
                rank = np.repeat(mine[here], end - begin)
                tables.append(self._renamed(rows, chosen.frame[rank], conn, schema))
                ranks.append(rank)
        order = np.argsort(np.concatenate(ranks), kind="stable")
        return pa.concat_tables(tables).combine_chunks().take(pa.array(order))

    def _renamed(self, rows: pa.Table, frames: Ints, conn: int, schema: pa.Schema) -> pa.Table:
        """Return rows of a recording as rows of the new session: its frames, and who gave them."""
        columns = []
        for told in schema:
            column = rows[told.name]
            if told.name == "session":
                column = pa.repeat(self._report.session, len(rows))
            elif told.name == "frame":
                column = pa.array(frames)
            elif told.name == "conn":
                column = pc.if_else(pc.is_valid(column), pa.scalar(conn, told.type), column)
            columns.append(column.cast(told.type))
        return pa.Table.from_arrays(columns, schema=schema)


class _Lines:
    """Where the lines of both recordings stand: in the order in which they arrived.

    Each recording keeps its own order, whatever its clock did. Behind each line there is room for what waited
    for it.
    """

    def __init__(self, heads: Sequence[Sequence[Heads]]) -> None:
        places, time = [], []
        for own in heads:
            place, first = np.unique(np.concatenate([h.place for h in own]), return_index=True)
            places.append(place)
            time.append(np.maximum.accumulate(np.concatenate([h.ts_recv for h in own])[first]))
        whole = np.concatenate(time)
        rank = np.empty(len(whole), np.int64)
        rank[np.argsort(whole, kind="stable")] = np.arange(len(whole)) << _WAITING_BITS
        self._places = places
        self._ranks = np.split(rank, [len(places[0])])
        self.count = len(whole)
        self.begun, self.ended = (int(whole.min()), int(whole.max())) if len(whole) else (0, 0)

    def of(self, conn: int, places: Ints) -> Ints:
        """Return where lines of a recording stand."""
        return np.asarray(self._ranks[conn][np.searchsorted(self._places[conn], places)], np.int64)


def _as_chain(heads: Heads, *, counted: bool) -> Heads:
    """Return trades as messages of a chain: each names what comes before it."""
    first = heads.last_id if counted else np.where(heads.first_id == NO_ID, heads.last_id, heads.first_id)
    return Heads(
        **{
            **{
                name: getattr(heads, name) for name in ("place", "ts_recv", "last_id", "part", "begin", "end")
            },
            "first_id": first,
            "prev_id": first - 1,
            "is_snapshot": heads.is_snapshot,
        }
    )


def _with_reasons(rows: pa.Table, reasons: dict[int, str]) -> pa.Table:
    told = pa.array([reasons[frame] for frame in rows["frame"].to_pylist()], pa.string())
    return rows.set_column(rows.schema.get_field_index("reason"), rows.schema.field("reason"), told)


def _with_notes(rows: pa.Table, notes: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return events with those that were told anew, in the order of their frames."""
    columns = {name: [note.get(name) for note in notes] for name in schema.names}
    told = pa.table([pa.array(columns[c.name], c.type) for c in schema], schema=schema)
    joined = pa.concat_tables([told, rows]).combine_chunks()
    return joined.take(pa.array(np.argsort(joined["frame"].to_numpy(), kind="stable")))
