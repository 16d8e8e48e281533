"""A day's facts from its files: read once, a batch of rows at a time, whatever the day's size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.datasets.ahead import ahead
from mmdata.datasets.certificate.canonical import FORMAT, Facts
from mmdata.datasets.certificate.content import ContentHash
from mmdata.datasets.certificate.proof import (
    ChainProof,
    Hole,
    Latency,
    Mark,
    Messages,
    TradeChain,
    covered,
    merged,
)
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.errors import DatasetError, ReplacedError
from mmdata.datasets.layout import NO_SYMBOL, WIDE_SUFFIX, Part, Partition, list_parts
from mmdata.datasets.schema import EXACT_TABLES, TABLES, arrow_schema
from mmdata.datasets.stores import sha256_of
from mmdata.datasets.times import NO_TIME, iso, to_ns

_BATCH = 1 << 17
"""Rows of a batch: small enough to stay in the processor's caches while they are hashed."""
_HEAD = ("frame", "ts_recv", "ts_event", "first_id", "last_id", "prev_id", "is_snapshot")


class Day(NamedTuple):
    """What a certificate is of: a UTC date of a symbol."""

    exchange: str
    symbol: str
    date: str

    def __str__(self) -> str:
        symbol = "what concerns no single symbol" if self.symbol == NO_SYMBOL else self.symbol
        return f"{self.exchange} {symbol} on {self.date}"


def day_folders(day: Day) -> list[Path]:
    """Return the folders that a day's files can lie in, below the root: of each table, narrow and wide."""
    return [
        Partition(table, wide, day.exchange, day.symbol, day.date).folder
        for table in TABLES
        for wide in ((False, True) if table in EXACT_TABLES else (False,))
    ]


def list_files(root: Path, day: Day) -> dict[str, Path]:
    """Return what lies in a day's folders, by its place below the root."""
    found = {}
    for folder in day_folders(day):
        try:
            paths = [*(root / folder).iterdir()]
        except FileNotFoundError:
            continue
        found.update({str(folder / path.name): path for path in paths})
    return dict(sorted(found.items()))


def file_entry(name: str, path: Path, digest: str | None = None) -> Facts:
    """Return what a certificate says of a file; ``name`` is its place below the root."""
    try:
        rows = int(pq.read_metadata(path).num_rows)
    except FileNotFoundError as error:
        raise ReplacedError(f"{path}: is no longer there; read again") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path}: cannot be read as Parquet ({error})") from error
    return {"path": name, "bytes": path.stat().st_size, "rows": rows, "sha256": digest or sha256_of(path)}


def derive(root: Path, day: Day, digests: Mapping[str, str] | None = None) -> Facts:
    """Return all that the files of a day say: what its certificate holds, but accounting, `made` and seal.

    ``digests`` are sha256 of files that are known already, by place. DatasetError: a file is damaged, is not
    of the schema, or holds rows of a session that its name or its list of parts does not name.
    ReplacedError: a file was replaced meanwhile; doing it again finds what is.
    """
    parts = {
        table: list_parts(root, table, exchange=day.exchange, symbol=day.symbol, date=day.date)
        for table in TABLES
    }
    parts = {table: own for table, own in parts.items() if own}
    names = {session: None for own in parts.values() for session in dict.fromkeys(p.session for p in own)}
    sessions = _session_facts(root, day, None if day.symbol == NO_SYMBOL else {*names})
    facts: Facts = {
        "format": FORMAT,
        "exchange": day.exchange,
        "symbol": day.symbol,
        "date": day.date,
        "sessions": sessions,
    }
    reader = _SymbolDay(day, sessions, parts)
    facts["tables"] = {
        table: _table_facts(root, own, reader, digests or {}) for table, own in reader.in_order()
    }
    return facts | reader.facts()


def table_content(parts: Sequence[Part]) -> list[Facts]:
    """Return the rows of one table a session: how many, and the hash of their values."""
    return _read_table(parts, _Nobody())


def _table_facts(root: Path, parts: Sequence[Part], reader: _SymbolDay, digests: Mapping[str, str]) -> Facts:
    sessions = _read_table(parts, reader)
    files = []
    for path in dict.fromkeys(part.path for part in parts):
        name = str(path.relative_to(root))
        files.append(file_entry(name, path, digests.get(name)))
    return {
        "rows": sum(session["rows"] for session in sessions),
        "files": sorted(files, key=lambda file: str(file["path"])),
        "sessions": sessions,
    }


class _Nobody:
    """Takes rows and does nothing with them."""

    def begin(self, table: str, session: str) -> None:
        """Begin a session of a table."""

    def take(self, table: str, rows: pa.Table) -> None:
        """Take its next rows."""


def _read_table(parts: Sequence[Part], reader: _Nobody | _SymbolDay) -> list[Facts]:
    found: list[Facts] = []
    session: str | None = None
    content: ContentHash | None = None
    for part in parts:
        table = part.partition.table
        if part.session != session or content is None:
            session, content = part.session, ContentHash(arrow_schema(table))
            found.append({"session": session, "rows": 0, "content": ""})
            reader.begin(table, session)
        for rows in ahead(_batches(part)):
            content.take(rows)
            reader.take(table, rows)
        found[-1] |= {"rows": content.rows, "content": content.hexdigest()}
    return found


def _batches(part: Part) -> Iterator[pa.Table]:
    """Yield the rows of a part, a batch at a time; words as dictionaries."""
    table = part.partition.table
    expected = arrow_schema(table, wide=part.partition.wide)
    words = [field.name for field in expected if pa.types.is_string(field.type)]
    try:
        footer = pq.read_metadata(part.path)
        if not footer.schema.to_arrow_schema().remove_metadata().equals(expected):
            raise DatasetError(f"{part.path}: is not of schema version 1")
        end = footer.num_rows if part.rows is None else part.offset + part.rows
        with pq.ParquetFile(part.path, metadata=footer, read_dictionary=words) as file:
            at = 0
            for group in range(footer.num_row_groups):
                begin, at = at, at + footer.row_group(group).num_rows
                if begin >= end or at <= part.offset:
                    continue
                for batch in file.iter_batches(_BATCH, row_groups=[group]):
                    first = max(part.offset - begin, 0)
                    rows = batch.slice(first, max(0, min(end - begin, batch.num_rows) - first))
                    begin += batch.num_rows
                    if rows.num_rows:
                        _require_session(part, rows)
                        yield pa.Table.from_batches([rows])
    except FileNotFoundError as error:
        raise ReplacedError(f"{part.path}: is no longer there; read again") from error
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{part.path}: cannot be read as Parquet ({error})") from error


def _require_session(part: Part, rows: pa.RecordBatch) -> None:
    column = rows["session"]
    index = column.dictionary.index(part.session).as_py()
    if column.null_count or index < 0 or not pc.all(pc.equal(column.indices, index)).as_py():
        raise DatasetError(f"{part.path}: holds rows of another session than {part.session}")


class _SymbolDay:
    """Takes the rows of a day, and proves what they prove."""

    def __init__(self, day: Day, sessions: Sequence[Facts], parts: Mapping[str, list[Part]]) -> None:
        self._day = day
        self._parts = parts
        self._started = {own["session"] for own in sessions if own["started"] is not None}
        self._windows = {own["session"]: own["window"] for own in sessions}
        chain = CHAINS.get(day.exchange)
        self._proof = None if chain is None or "depth" not in parts else ChainProof(chain)
        self._marks: dict[str, list[Mark]] = {}
        self._gaps: dict[str, dict[tuple[int | None, int | None], str]] = {}
        self._latencies: dict[str, Latency] = {}
        self._trades: dict[tuple[str, str], TradeChain] = {}
        self._backfilled = 0
        self._audits: list[Facts] = []
        self._clocks: dict[str, Facts] = {}
        self._spans: dict[str, list[int]] = {}
        self._session = ""
        self._snapshot = (-1, "")  # frame and session of the book asked for that is being read

    def in_order(self) -> Iterator[tuple[str, list[Part]]]:
        """Yield the tables so that what stands between messages is known before them."""
        first = ("events", "snapshots")
        for table in (*first, *(table for table in TABLES if table not in first)):
            if table in self._parts:
                yield table, self._parts[table]

    def begin(self, table: str, session: str) -> None:
        """Begin a session of a table."""
        self._session = session
        if table == "depth" and self._proof is not None:
            self._proof.begin(session, self._marks.get(session, ()), carried=session not in self._started)
        if table in ("depth", "trades", "bbo"):
            self._latencies.setdefault(table, Latency(table)).begin()

    def take(self, table: str, rows: pa.Table) -> None:
        """Take its next rows."""
        if table == "depth":
            self._take_depth(rows.filter(rows["is_last"]).select(_HEAD))
        elif table == "trades":
            self._take_trades(rows)
        elif table == "bbo":
            self._latencies[table].take(_ints(rows["ts_recv"]), _ints(rows["ts_event"], NO_TIME))
        elif table == "snapshots":
            self._take_snapshots(rows)
        elif table == "events":
            self._take_events(rows)

    def _take_depth(self, heads: pa.Table) -> None:
        if not heads.num_rows:
            return
        ts_recv = _ints(heads["ts_recv"])
        self._latencies["depth"].take(ts_recv, _ints(heads["ts_event"], NO_TIME))
        span = self._spans.setdefault(self._session, [int(ts_recv[0]), 0])
        span[1] = int(ts_recv[-1])
        if self._proof is not None:
            first_id, last_id, prev_id = (
                _ints(heads[name], NO_ID) for name in ("first_id", "last_id", "prev_id")
            )
            replaces = heads["is_snapshot"].to_numpy()
            self._proof.take(Messages(_ints(heads["frame"]), ts_recv, first_id, last_id, prev_id, replaces))

    def _take_trades(self, rows: pa.Table) -> None:
        stream = rows.filter(pc.equal(rows["origin"], "stream"))
        self._backfilled += rows.num_rows - stream.num_rows
        self._latencies["trades"].take(_ints(stream["ts_recv"]), _ints(stream["ts_event"], NO_TIME))
        for kind in pc.unique(stream["kind"]).to_pylist():
            own = stream.filter(pc.equal(stream["kind"], kind))
            # Aggregates of Binance are counted in ids of their own; OKX's by the trades that they cover.
            counted = kind == "agg" and self._day.exchange.startswith("binance")
            first = _ints(own["trade_id" if counted else "first_trade_id"], NO_ID)
            last = _ints(own["trade_id" if counted else "last_trade_id"], NO_ID)
            chain = self._trades.setdefault((self._session, kind), TradeChain(self._session, kind))
            chain.take(first, last, self._gaps.get(self._session, {}))

    def _take_snapshots(self, rows: pa.Table) -> None:
        frames = _ints(rows["frame"])
        for at in np.flatnonzero(np.concatenate(([True], frames[1:] != frames[:-1]))).tolist():
            place = (int(frames[at]), self._session)
            if place == self._snapshot:
                continue  # the rest of one that the batch before began
            self._snapshot = place
            row = {name: rows[name][at].as_py() for name in ("last_id", "reason")}
            ts_recv = int(_ints(rows["ts_recv"].slice(at, 1))[0])
            if row["reason"] == "audit":
                told = {"session": self._session, "frame": place[0], "last_id": row["last_id"]}
                self._audits.append(told | {"at": iso(ts_recv)})
            else:
                mark = Mark(place[0], ts_recv, row["last_id"], None, None)
                self._marks.setdefault(self._session, []).append(mark)

    def _take_events(self, rows: pa.Table) -> None:
        times = _ints(rows["ts_recv"]).tolist()
        told = rows.select(("frame", "kind", "channel", "last_id", "next_id", "detail")).to_pylist()
        for ts_recv, row in zip(times, told, strict=True):
            if row["kind"] == "gap":
                cause = str(_detail(row["detail"]).get("cause", "missing"))
                ids = (row["last_id"], row["next_id"])
                if row["channel"] == "depth":
                    mark = Mark(row["frame"], ts_recv, *ids, cause)
                    self._marks.setdefault(self._session, []).append(mark)
                else:
                    self._gaps.setdefault(self._session, {})[ids] = cause
            elif row["kind"] == "clock":
                self._take_clock(_detail(row["detail"]))

    def _take_clock(self, detail: Mapping[str, Any]) -> None:
        clock = self._clocks.setdefault(self._session, _no_clock(self._session))
        offset, uncertainty = detail.get("offset_ns"), detail.get("uncertainty_ns")
        if isinstance(offset, int) and isinstance(uncertainty, int):
            clock["measured"] += 1
            for name, own, choose in (
                ("offset_min_ns", offset, min),
                ("offset_max_ns", offset, max),
                ("uncertainty_max_ns", uncertainty, max),
            ):
                clock[name] = own if clock[name] is None else choose(own, clock[name])
        elif isinstance(detail.get("step_ns"), int):
            clock["steps"] += 1

    def facts(self) -> Facts:
        """Return what was proven."""
        facts: Facts = {
            "latency": [_latency_facts(own) for own in self._latencies.values()],
            "trades": [_trade_facts(own) for own in self._trades.values()],
            "backfilled": self._backfilled,
            "audits": self._audits,
            "clocks": [*self._clocks.values()],
            "chains": [],
            "holes": [],
            "coverage": None,
        }
        proof = self._proof
        if proof is None:
            return facts
        proof.finish()
        facts["chains"] = [dict(vars(chain)) for chain in proof.chains]
        facts["holes"] = [_hole_facts(hole) for hole in proof.open_holes()]
        windows = merged(self._window(session, span) for session, span in self._spans.items())
        facts["coverage"] = {
            "windows": [[iso(begin), iso(end)] for begin, end in windows],
            "window_ns": sum(end - begin for begin, end in windows),
            "proven_ns": covered(proof.spans, windows),
        }
        return facts

    def _window(self, session: str, span: Sequence[int]) -> tuple[int, int]:
        """Return when a session was to be recorded; what it recorded, where nobody said."""
        midnight, next_midnight = to_ns(self._day.date), to_ns(self._day.date, end=True)
        window = self._windows.get(session)
        if window is None:
            return span[0], max(span)
        begin, end = (None if moment is None else to_ns(moment) for moment in window)
        return max(midnight, midnight if begin is None else begin), min(next_midnight, end or max(span))


def _session_facts(root: Path, day: Day, wanted: set[str] | None) -> list[Facts]:
    """Return when each session of the day began, ended, and was to be recorded; null: not on this date."""
    found: dict[str, Facts] = {}
    for part in list_parts(root, "events", exchange=day.exchange, symbol=NO_SYMBOL, date=day.date):
        if wanted is not None and part.session not in wanted:
            continue
        own = found.setdefault(
            part.session, {"session": part.session, "started": None, "ended": None, "window": None}
        )
        for rows in _batches(part):
            chosen = rows.filter(pc.is_in(rows["kind"].cast(pa.string()), value_set=_BOUNDS))
            told = chosen.select(("kind", "detail")).to_pylist()
            for ts_recv, row in zip(_ints(chosen["ts_recv"]).tolist(), told, strict=True):
                _take_bound(own, row["kind"], ts_recv, _detail(row["detail"]))
    return [*found.values()]


_BOUNDS = pa.array(["session_start", "session_end", "window_open", "window_close"])


def _take_bound(own: Facts, kind: str, ts_recv: int, detail: Mapping[str, Any]) -> None:
    if kind == "session_start":
        own["started"] = iso(ts_recv)
    elif kind == "session_end":
        own["ended"] = iso(ts_recv)
    else:
        begin, end = own["window"] or (None, None)
        begin = iso(to_ns(detail["start"])) if "start" in detail else begin
        own["window"] = [begin, iso(to_ns(detail["end"])) if "end" in detail else end]


def _detail(text: str | None) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(text or "{}")
    except msgspec.MsgspecError:
        return {}
    return found if isinstance(found, dict) else {}


def _no_clock(session: str) -> Facts:
    none = dict.fromkeys(("offset_min_ns", "offset_max_ns", "uncertainty_max_ns"))
    return {"session": session, "measured": 0, **none, "steps": 0}


def _ints(column: pa.ChunkedArray, null: int = 0) -> NDArray[np.int64]:
    """Return a column of integers or times as int64, ``null`` for null."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    return np.asarray(column.fill_null(null).to_numpy(), np.int64)


def _hole_facts(hole: Hole) -> Facts:
    facts = dict(vars(hole))
    return facts | {"since": iso(hole.since), "until": None if hole.until is None else iso(hole.until)}


def _trade_facts(chain: TradeChain) -> Facts:
    return {
        "session": chain.session,
        "kind": chain.kind,
        "trades": chain.trades,
        "first_id": chain.first_id,
        "last_id": chain.last_id,
        "missing": chain.missing,
        "late": chain.late,
        "holes": [
            {"last_id": last_id, "next_id": next_id, "cause": cause}
            for last_id, next_id, cause in chain.holes
        ],
    }


def _latency_facts(own: Latency) -> Facts:
    counted = own.counted
    quantiles = {"p50_ns": 500, "p90_ns": 900, "p99_ns": 990, "p999_ns": 999}
    is_timed = counted.count > 0
    return {
        "channel": own.channel,
        "count": counted.count,
        "negative": counted.negative,
        "min_ns": counted.least if is_timed else None,
        "max_ns": counted.largest if is_timed else None,
        "steps_back": own.steps_back,
        **{name: counted.quantile(mille) if is_timed else None for name, mille in quantiles.items()},
    }


def folder_tables() -> list[str]:
    """Return the names of the folders that tables lie in."""
    return [*TABLES, *(table + WIDE_SUFFIX for table in EXACT_TABLES)]
