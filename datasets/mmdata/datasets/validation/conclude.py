"""From what the stream of a symbol showed to findings and figures: what needs to be known as a whole."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

import numpy as np

from mmdata.datasets.histogram import Histogram
from mmdata.datasets.layout import date_name
from mmdata.datasets.market import FRAME_BITS
from mmdata.datasets.times import iso, to_ns
from mmdata.datasets.validation.arrivals import DAY_NS, MINUTE_NS, Pause, latency_of
from mmdata.datasets.validation.arrivals import Step as ClockStep
from mmdata.datasets.validation.chains import AGAIN, BACK, HOLE, LATE, TWICE, Break, Matched, Step, match
from mmdata.datasets.validation.events import Event, id_or_none
from mmdata.datasets.validation.findings import Place
from mmdata.datasets.validation.minutes import book_series, coverage, spans_to_minutes
from mmdata.datasets.validation.report import (
    ClockBounds,
    DayReport,
    Hole,
    Latency,
    SessionProof,
    Severity,
    SymbolReport,
)
from mmdata.datasets.validation.symbol import SymbolStream

_STEP_NEAR_NS = 5_000_000_000
"""A recorder looks at its clock each second; within this its note is of the step that the rows show."""
_ENDS = ("gap", "disconnected", "connected", "torn", "session_end", "session_start")
_TRADING = ("TRADING", "live")


class Conclusion:
    """Findings and figures of one symbol, after its stream."""

    def __init__(self, stream: SymbolStream) -> None:
        self._stream = stream
        self._seen = stream.seen
        self._findings = stream.findings
        self._thresholds = stream.thresholds
        self._holes: list[Hole] = []
        self._silences: list[tuple[int, int]] = []
        gaps = [event for event in stream.events if event.kind == "gap"]
        self._depth_gaps = [event for event in gaps if event.channel == "depth"]
        self._trade_gaps = [event for event in gaps if event.channel == "trades"]
        self._matched = match(self._seen.breaks, self._depth_gaps, stream.ranks)
        steps = [step for step in self._seen.trade_steps if step.what in (HOLE, BACK)]
        self._matched_trades = match(steps, self._trade_gaps, stream.ranks)

        everyone = [own for own in (*stream.events, *stream.venue.events) if own.session in stream.ranks]
        self._ends = sorted(own.order(stream.ranks) for own in everyone if own.kind in _ENDS)
        self._states = [
            (own.order(stream.ranks), status)
            for own in stream.events
            if own.kind == "instrument" and (status := _status(own)) is not None
        ]
        self._broken_at = {own.order for own in self._seen.breaks}

    def report(self) -> SymbolReport:
        """Make the findings; return the figures."""
        stream = self._stream
        self._tell_chain()
        self._tell_trade_ids()
        self._tell_gaps(self._matched, "depth")
        self._tell_gaps(self._matched_trades, "trades")
        self._tell_bridges()
        self._tell_clocks()
        self._tell_latency()
        self._tell_silence()
        days = [self._day(day) for day in self._days()]
        figures = SymbolReport(stream.exchange, stream.symbol, days=days)
        for day in days:
            for table, rows in day.rows.items():
                figures.rows[table] = figures.rows.get(table, 0) + rows
        for name in ("messages", "trades", "bbo_compared", "bbo_equal", "checksums", "checksums_equal"):
            setattr(figures, name, sum(getattr(day, name) for day in days))
        figures.chain_breaks = sum(1 for found in self._seen.breaks if stream.teller.is_asked(found.ts_recv))
        figures.unrecorded_breaks = sum(
            1 for found in self._matched.unrecorded if stream.teller.is_asked(found.ts_recv)
        )
        figures.trade_holes = sum(
            1 for step in self._seen.trade_steps if step.what == HOLE and stream.teller.is_asked(step.ts_recv)
        )
        recorded = sum(day.recorded_ns for day in days)
        figures.valid_share = (
            sum(day.valid_ns for day in days) / recorded if recorded else float(self._seen.was_valid)
        )
        figures.latencies = self._latencies([*self._days()])
        return figures

    # --- chains

    def _tell_chain(self) -> None:
        stream = self._stream
        if "events" not in stream.damaged:
            for found in self._matched.unrecorded:
                assert isinstance(found, Break)
                stream.teller.tell(
                    "error",
                    "chain",
                    f"the message at id {found.id} does not continue the book at {found.at} (it builds "
                    f"on {found.builds_on}), and no gap is on record: changes are missing, and the book "
                    "is invalid until the next snapshot",
                    found.order,
                    id=found.id,
                    ts_recv=found.ts_recv,
                    table="depth",
                )
        recorded = [gap for _, gap in self._matched.recorded]
        recorded += [gap for gap in self._depth_gaps if gap.next_id is None]
        for gap in sorted(recorded, key=lambda gap: gap.order(stream.ranks)):
            if stream.teller.is_asked(gap.ts_recv):
                cause = gap.detail.get("cause", "unknown")
                self._findings.add(
                    "warning",
                    "chain",
                    f"a hole in the book is on record after id {gap.last_id} ({cause}): the book is invalid "
                    "from there to the next snapshot, and replay takes resting orders off",
                    gap.place,
                    table="events",
                )
        for found in self._seen.breaks:
            self._holes.append(self._book_hole(found))
        for gap in self._depth_gaps:
            if gap.next_id is None:
                order = gap.order(stream.ranks)
                cause = str(gap.detail.get("cause", "unknown"))
                end = self._valid_again(order)
                self._holes.append(
                    Hole("depth", gap.session, gap.frame, gap.ts_recv, end, cause, gap.last_id, None)
                )

    def _book_hole(self, found: Break) -> Hole:
        place = self._stream.sessions.place(found.order)
        return Hole(
            "depth",
            place.session or "",
            place.frame or 0,
            found.since,
            self._valid_again(found.order),
            self._cause(self._matched, found),
            id_or_none(found.at),
            id_or_none(found.builds_on),
        )

    def _cause(self, matched: Matched, found: Break | Step) -> str:
        for own, gap in (*matched.recorded, *matched.misquoted):
            if own is found:
                return str(gap.detail.get("cause", "unknown"))
        return "unrecorded"

    def _valid_again(self, order: int) -> int | None:
        rises = self._seen.rises
        at = bisect_left(rises, (order, -(2**63)))
        if at == len(rises) or rises[at][0] >> FRAME_BITS != order >> FRAME_BITS:
            return None
        return rises[at][1]

    def _tell_gaps(self, matched: Matched, channel: str) -> None:
        """Tell gap events whose ids are wrong, or that nothing bears out."""
        if {channel, "events"} & self._stream.damaged:
            return
        wrong = [(gap, f"the {channel} break at another id there") for _, gap in matched.misquoted]
        wrong += [(gap, f"every {channel} message continues the one before it") for gap in matched.invented]
        for gap, what in wrong:
            if self._stream.teller.is_asked(gap.ts_recv):
                self._findings.add(
                    "error",
                    "gap",
                    f"a hole in {channel} is on record between ids {gap.last_id} and {gap.next_id}, but "
                    f"{what}: the record is not what happened",
                    gap.place,
                    table="events",
                )

    def _tell_trade_ids(self) -> None:
        stream = self._stream
        recorded = {id(step) for step, _ in (*self._matched_trades.recorded, *self._matched_trades.misquoted)}
        for step in self._seen.trade_steps:
            missing = step.first - step.top - 1
            place = stream.sessions.place(step.order, id=step.last, ts_recv=step.ts_recv)
            if step.what == HOLE:
                self._holes.append(
                    Hole(
                        "trades",
                        place.session or "",
                        place.frame or 0,
                        step.since,
                        step.ts_recv,
                        self._cause(self._matched_trades, step),
                        step.top,
                        step.first,
                        missing,
                    )
                )
            is_known = id(step) in recorded
            severity: Severity = "warning" if is_known else "error"
            if not stream.teller.is_asked(step.ts_recv) or (
                "events" in stream.damaged and step.what in (HOLE, BACK)
            ):
                continue
            told = f"{'' if is_known else 'not '}on record"
            sentences: dict[int, tuple[Severity, str, int, str]] = {
                HOLE: (
                    severity,
                    "trade_ids",
                    missing,
                    f"{missing} trades are missing between ids {step.top} and {step.first}, {told}: volume "
                    "and last price are wrong there",
                ),
                BACK: (
                    severity,
                    "trade_ids",
                    1,
                    f"trade ids go back from {step.top} to {step.first}, and on from there, {told}: the "
                    "venue counts anew, or trades are out of order",
                ),
                AGAIN: (
                    "warning",
                    "trade_ids",
                    1,
                    f"trade {step.last} was sent again, as to a new subscription: count each trade_id once",
                ),
                LATE: ("warning", "trade_ids", 1, f"trade {step.last} came after younger ones"),
                TWICE: (
                    "error",
                    "duplicate",
                    1,
                    f"trade {step.last} stands twice in one frame: volume is counted twice there",
                ),
            }
            severity, check, count, sentence = sentences[step.what]
            self._findings.add(severity, check, sentence, place, count=count, table="trades")

    def _tell_bridges(self) -> None:
        stream = self._stream
        if {"depth", "snapshots"} & stream.damaged:
            return
        for waited in self._seen.unbridged:
            stream.teller.tell(
                "error",
                "bridge",
                f"no diff continues the snapshot at id {waited.id}, though diffs follow: the book is not "
                "valid for the rest of the session",
                waited.order,
                id=waited.id,
                ts_recv=waited.ts_recv,
                table="snapshots",
            )
        if self._seen.sessions and not self._seen.was_valid and not self._seen.unbridged:
            rank, day = min(self._seen.sessions)
            first = self._seen.sessions[rank, day]
            self._findings.add(
                "error",
                "book",
                "the book is never valid: no snapshot is continued by a diff, so nothing can be replayed",
                Place(stream.sessions.names[rank], ts_recv=first.begin),
                table="depth",
            )

    # --- arrivals

    def _tell_clocks(self) -> None:
        """Tell where a clock stepped back; what several tables show, or an event told, counts once."""
        stream = self._stream
        steps = sorted(step for channel in stream.channels.values() for step in channel.recv_steps)
        groups: list[ClockStep] = []
        for step in steps:
            last = groups[-1] if groups else None
            if last is not None and step.before < last.order:
                first = min(last, step, key=lambda own: own.order)
                groups[-1] = first._replace(before=max(last.before, step.before), by=max(last.by, step.by))
            else:
                groups.append(step)
        noted = [(event.session, event.ts_recv) for event in stream.venue.steps()]
        for step in groups:
            place = stream.sessions.place(step.order, ts_recv=step.ts_recv)
            is_noted = any(
                session == place.session and abs(when - step.ts_recv) < _STEP_NEAR_NS
                for session, when in noted
            )
            if not is_noted and stream.teller.is_asked(step.ts_recv):
                self._findings.add(
                    "warning",
                    "clock",
                    f"the receive clock steps back by {step.by / 1e6:.3f} ms: the order of rows is right, "
                    f"differences of ts_recv are not",
                    place,
                )
        for name, channel in stream.channels.items():
            for step in channel.event_steps:
                stream.teller.tell(
                    "warning",
                    "clock",
                    f"the venue's clock steps back by {step.by / 1e6:.3f} ms between two messages of "
                    f"{name}: ordered by ts_event they change places",
                    step.order,
                    ts_recv=step.ts_recv,
                    table=name,
                )

    def _tell_latency(self) -> None:
        stream = self._stream
        for day in self._days():
            for name, channel in stream.channels.items():
                own = channel.days.get(day)
                if own is None or not own.raw.count:
                    continue
                if (
                    own.first_early is not None
                    and own.early > self._thresholds.negative_share * own.raw.count
                ):
                    order, when = own.first_early
                    least = (own.corrected if own.corrected.count else own.raw).least
                    self._findings.add(
                        "warning",
                        "latency",
                        f"receive precedes event by up to {-least / 1e9:.3f} s "
                        f"({own.early / own.raw.count:.1%} of {name}): the recorder's clock is behind the "
                        "venue's by at least that; taken raw, ts_recv shows the future, so replay maps it to "
                        "the venue's clock",
                        stream.sessions.place(order, ts_recv=when),
                        count=own.early,
                        table=name,
                    )
                for run in own.late:
                    self._findings.add(
                        "warning",
                        "latency",
                        f"{run.count} messages of {name} came more than {self._thresholds.latency_ms:g} ms "
                        f"after they happened, within {run.minutes} minutes from {iso(run.ts_recv)} on (by "
                        f"up to {run.worst / 1e9:.3f} s): a strategy saw an old market there",
                        stream.sessions.place(run.order, ts_recv=run.ts_recv),
                        count=run.count,
                        table=name,
                    )

    def _tell_silence(self) -> None:
        """Tell pauses while connections were up; one that several channels show is one."""
        stream = self._stream
        if {"depth", "trades", "bbo"} & stream.damaged:
            return
        found = [
            (pause, name)
            for name, channel in stream.channels.items()
            for pause in channel.pauses
            if not self._is_explained(pause)
        ]
        groups: list[tuple[Pause, list[str]]] = []
        for pause, name in sorted(found):
            if groups and pause.begin < groups[-1][0].end:
                groups[-1][1].append(name)
            else:
                groups.append((pause, [name]))
        for pause, names in groups:
            self._silences.append((pause.begin, pause.end))
            stream.teller.tell(
                "warning",
                "silence",
                f"no {' and no '.join(names)} for {(pause.end - pause.begin) / 1e9:.0f} s from "
                f"{iso(pause.begin)} on, though connections were up: the venue was silent, or rows are "
                "missing",
                pause.order,
                ts_recv=pause.end,
                table=names[0],
            )

    def _is_explained(self, pause: Pause) -> bool:
        """Tell whether something on record says why nothing came: a hole, a connection, a halt."""
        if pause.order in self._broken_at:
            return True
        at = bisect_right(self._ends, pause.before)
        if at < len(self._ends) and self._ends[at] <= pause.order:
            return True
        at = bisect_right([order for order, _ in self._states], pause.order)
        return at > 0 and self._states[at - 1][1] not in _TRADING

    # --- days

    def _days(self) -> list[int]:
        stream = self._stream
        if stream.date is not None:
            days = {to_ns(stream.date) // DAY_NS}
        else:
            days = {to_ns(date) // DAY_NS for own in stream.surveys.values() for date in own.rows}
        return sorted(days)

    def _day(self, day: int) -> DayReport:
        stream, seen = self._stream, self._seen
        date = date_name(day * DAY_NS)
        channels = {name: own.days[day] for name, own in stream.channels.items() if day in own.days}
        minutes = stream.minutes.days.get(day)
        report = DayReport(
            date,
            rows={table: own.rows[date] for table, own in stream.surveys.items() if date in own.rows},
            trades=seen.trades.get(day, 0),
            quotes=seen.quotes.get(day, 0),
            is_open=stream.venue.is_open(date),
            sessions=[
                SessionProof(
                    stream.sessions.names[rank],
                    own.begin,
                    own.end,
                    own.messages,
                    id_or_none(own.first_id),
                    id_or_none(own.last_id),
                    *self._breaks_of(rank, day),
                    own.recorded_ns,
                    own.valid_ns,
                )
                for (rank, of_day), own in sorted(seen.sessions.items())
                if of_day == day
            ],
            holes=sorted(self._holes_of(day), key=lambda hole: (hole.begin, hole.channel)),
            latencies=self._latencies([day]),
            latency_series=[own.series(name) for name, own in channels.items() if own.begin],
            clock=self._clock(day),
            audits=seen.audits.get(day, []),
            bbo_compared=seen.bbo_compared.get(day, 0),
            bbo_equal=seen.bbo_compared.get(day, 0) - seen.bbo_unequal.get(day, 0),
            checksums=seen.checksums.get(day, 0),
            checksums_equal=seen.checksums.get(day, 0) - seen.checksums_wrong.get(day, 0),
        )
        report.messages = sum(own.messages for own in report.sessions)
        if minutes is not None:
            report.book_series = book_series(day, minutes, stream.units)
        has_data = np.zeros(1440, np.bool_)
        for own in channels.values():
            has_data |= own.minutes > 0
        spans = [(hole.begin, self._end_of(hole)) for hole in self._holes]
        in_hole = spans_to_minutes(day, spans)
        report.coverage = coverage(
            day, stream.venue.windows, has_data, in_hole, minutes, is_open=report.is_open
        )
        self._tell_coverage(day, report)
        return report

    def _end_of(self, hole: Hole) -> int:
        """Return when a hole ended: at the latest with its session."""
        if hole.end is not None:
            return hole.end
        rank = self._stream.ranks[hole.session]
        return max(
            (own.end for (of, _), own in self._seen.sessions.items() if of == rank), default=hole.begin
        )

    def _holes_of(self, day: int) -> Iterator[Hole]:
        begin, end = day * DAY_NS, (day + 1) * DAY_NS
        for hole in self._holes:
            if hole.begin < end and self._end_of(hole) >= begin:
                yield hole

    def _breaks_of(self, rank: int, day: int) -> tuple[int, int]:
        def count(found: list[Break]) -> int:
            return sum(1 for own in found if own.order >> FRAME_BITS == rank and own.ts_recv // DAY_NS == day)

        unrecorded = [own for own in self._matched.unrecorded if isinstance(own, Break)]
        return count(self._seen.breaks), count(unrecorded)

    def _latencies(self, days: list[int]) -> list[Latency]:
        found = []
        for name, channel in self._stream.channels.items():
            for is_corrected in (False, True):
                sum_of = Histogram()
                for day in days:
                    own = channel.days.get(day)
                    if own is not None:
                        sum_of.join(own.corrected if is_corrected else own.raw)
                if sum_of.count:
                    found.append(latency_of(name, sum_of, corrected=is_corrected))
        return found

    def _clock(self, day: int) -> ClockBounds | None:
        venue = self._stream.venue
        own = venue.clock.between(day * DAY_NS, (day + 1) * DAY_NS)
        steps = sum(1 for event in venue.steps() if event.ts_recv // DAY_NS == day)
        if not len(own) and not steps:
            return None
        if not len(own):
            return ClockBounds(0, 0, 0, 0, steps)
        return ClockBounds(
            len(own), int(own.offsets.min()), int(own.offsets.max()), int(own.uncertainties.max()), steps
        )

    def _tell_coverage(self, day: int, report: DayReport) -> None:
        """Tell minutes without data that nothing else explains."""
        if {"depth", "trades", "bbo"} & self._stream.damaged:
            return
        silent = spans_to_minutes(day, self._silences)
        missing = np.array([mark == "x" for mark in report.coverage.strip]) & ~silent
        edges = np.flatnonzero(np.diff(np.concatenate(([0], missing.astype(np.int8), [0])))).reshape(-1, 2)
        for first, end in edges.tolist():
            begin = day * DAY_NS + first * MINUTE_NS
            self._findings.add(
                "warning",
                "coverage",
                f"{end - first} minutes of the {report.coverage.source} from {iso(begin)} on have no data, "
                "and no hole is on record: nothing was recorded then",
                Place(ts_recv=begin),
                count=end - first,
            )


def _status(event: Event) -> str | None:
    """Return the state that an `instrument` event tells; None: it tells of something else."""
    changed = event.detail.get("changed")
    if isinstance(changed, dict) and "status" in changed:
        return str(changed["status"][1])
    status = event.detail.get("status")
    return None if status is None else str(status)
