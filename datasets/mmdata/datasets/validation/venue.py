"""What concerns an exchange as a whole: its sessions, clocks and windows, quarantine, torn ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmdata.datasets import stores
from mmdata.datasets.layout import CAPTURES, NO_SYMBOL, date_name
from mmdata.datasets.schema import TABLES
from mmdata.datasets.validation.events import (
    Clock,
    Event,
    SessionFacts,
    contradictions,
    read_events,
    sessions_of,
    table_rows,
    windows,
)
from mmdata.datasets.validation.files import survey
from mmdata.datasets.validation.findings import Findings, Place
from mmdata.datasets.validation.thresholds import Thresholds
from mmdata.datasets.writing import written_from


class VenueFacts:
    """Reads what is on record for no single symbol of an exchange, and finds what is wrong with it."""

    def __init__(self, root: stores.Place, exchange: str, date: str | None, thresholds: Thresholds) -> None:
        self.exchange = exchange
        self._date = date
        self.findings = Findings(exchange, NO_SYMBOL, thresholds.most_findings, date)
        surveys = {table: survey(root, table, exchange, NO_SYMBOL, self.findings) for table in TABLES}
        self._quarantine = [piece for lane in surveys["quarantine"].lanes for piece in lane]
        pieces = [piece for lane in surveys["events"].lanes for piece in lane]
        self.events: list[Event] = read_events(pieces, self.findings)
        self._is_damaged = surveys["events"].is_damaged
        self.sessions: dict[str, SessionFacts] = sessions_of(self.events)
        self.clock = Clock.of(self.events)
        self.windows = windows(self.events)
        self.pending = {
            folder.name: [path for path in stores.files_below(folder) if path.suffix in (".open", ".cap")]
            for folder in sorted(stores.children(root / CAPTURES / exchange))
        }
        # Nobody records into an object store.
        self._writer = written_from(root, exchange) if isinstance(root, Path) else None

    def is_open(self, date: str) -> bool:
        """Tell whether a recorder still writes a date."""
        return self._writer is not None and date >= self._writer[0]

    def steps(self) -> Iterator[Event]:
        """Yield where our clock was set while recording."""
        yield from (event for event in self.events if event.kind == "clock" and "step_ns" in event.detail)

    def check(self) -> None:
        """Find what is wrong."""
        self._name_pending()
        if self._writer is not None and (self._date is None or self.is_open(self._date)):
            date, who = self._writer
            sentence = (
                f"{self.exchange} is being recorded, by {who}: from {date} on only what is published so far "
                "was checked"
            )
            self.findings.add("info", "open", sentence)
        for row in table_rows(self._quarantine, "quarantine", self.findings):
            if self._is_asked(row["ts_recv"]):
                place = Place(row["session"], row["frame"], None, row["ts_recv"], row["file"], row["row"])
                sentence = (
                    f"a frame of {self.exchange} could not be decoded ({row['error']}) and lies in the table "
                    f"quarantine: what it said is missing from the other tables"
                )
                self.findings.add("warning", "quarantine", sentence, place, table="quarantine")
        for event in self.events:
            if event.kind == "torn" and self._is_asked(event.ts_recv):
                sentence = (
                    f"the recording of {self.exchange} ends torn ({event.detail}): what was written last is "
                    "cut off, all before it is kept"
                )
                self.findings.add("warning", "torn", sentence, event.place, table="events")
        for event in self.steps():
            if self._is_asked(event.ts_recv):
                sentence = (
                    f"the recorder's clock was set by {event.detail['step_ns'] / 1e9:+.3f} s: the order of "
                    "rows is right, differences of ts_recv across it are not"
                )
                self.findings.add("warning", "clock", sentence, event.place, table="events")
        if not self._is_damaged:
            self._check_sessions()

    def _is_asked(self, ts_recv: int) -> bool:
        return self._date is None or date_name(ts_recv) == self._date

    def _name_pending(self) -> None:
        waiting = [path for paths in self.pending.values() for path in paths]
        if waiting:
            sentence = (
                f"{len(waiting)} capture segments are not ingested yet (first: {waiting[0]}): a recorder is "
                f"running, or died; `mmdata recover` ingests what a dead one left"
            )
            self.findings.add("info", "pending", sentence, Place(file=str(waiting[0])), count=len(waiting))

    def _check_sessions(self) -> None:
        for name, facts in self.sessions.items():
            last = facts.events[-1]
            is_unfinished = bool(self.pending.get(name)) or self.is_open(date_name(last.ts_recv))
            if not (facts.ended or facts.torn or is_unfinished) and self._is_asked(last.ts_recv):
                sentence = (
                    f"session {name} of {self.exchange} has no session_end: its recorder died, or its last "
                    f"rows are missing; what comes after {date_name(last.ts_recv)} is unknown"
                )
                self.findings.add("warning", "session", sentence, last.place, table="events")
            if name.startswith("import-"):
                continue  # other recorders' logs tell of connections as they like
            for event, what in contradictions(facts):
                if self._is_asked(event.ts_recv):
                    sentence = f"{what}: the events of session {name} contradict each other"
                    self.findings.add("warning", "session", sentence, event.place, table="events")
