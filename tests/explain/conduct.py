"""What the recorder did while things went wrong: how it asked, changed connections, and healed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from mmdata.datasets.times import duration_ns
from mmdata.recorder.capture import Event
from mmdata.sandbox.faults import FaultRecord
from mmdata.sandbox.truth import RestAnswer
from tests.explain.frames import Captured, Matched
from tests.sent import told

_ENDS = ("abort", "close", "oversize", "stall", "refuse", "server_shutdown", "notice")


def check_answers(truth: Path, venue: str, captured: Captured) -> list[str]:
    """See that the answers in the capture were given so, in this order."""
    given = ((a.status, a.body) for a in told(truth, "rest", RestAnswer) if a.venue == venue)
    return [
        f"{venue}: REST answer {line.number} is not one that the venue gave: {answer.body[:100]}"
        for line, answer in captured.answers
        if not any(one == (answer.status, answer.body) for one in given)
    ]


def check_limits(venue: str, captured: Captured, script: dict[str, Any]) -> tuple[int, list[str]]:
    """See that nothing was asked while the venue had asked for silence; return how often it had.

    A refusal that came after the recorder had given up waiting told it nothing.
    """
    waits = {
        fault["status"]: duration_ns(fault["retry_after"]) or 0
        for fault in script["faults"]
        if "retry_after" in fault
    }
    refused, unexplained, closed_until = 0, [], 0
    for line, answer in captured.answers:
        if answer.t0 < closed_until:
            early_s = (closed_until - answer.t0) / 1e9
            unexplained.append(f"{venue}: {answer.url} was asked {early_s:.2f} s before Retry-After was over")
        if answer.status in waits:
            refused += 1
            closed_until = line.ts_recv + waits[answer.status]
    return refused, unexplained


def check_announced(
    captured: Captured, matched: Matched, faults: list[FaultRecord]
) -> tuple[Counter[str], list[str]]:
    """See that a connection whose end was announced was replaced before, and that no hole came of it."""
    classes: Counter[str] = Counter()
    unexplained: list[str] = []
    numbers = {theirs: ours for ours, theirs in matched.conns.items()}
    for record in faults:
        if record.kind not in ("server_shutdown", "notice") or record.conn not in numbers:
            continue
        conn = numbers[record.conn]
        at, reason = _end(captured, conn)
        others = [r for r in faults if r.kind in _ENDS and r is not record and abs(r.ts - record.ts) < 60e9]
        if reason.startswith(("replaced", "the recording ends")):
            classes["announced ends, replaced before"] += 1
            after = _event_after(captured, at)
            if after is not None and after.kind == "gap":
                unexplained.append(f"connection {conn} was replaced in time, and a gap came of it: {after}")
        elif any(r.kind != record.kind or r.conn == record.conn for r in others):
            classes["announced ends, another fault struck meanwhile"] += 1
        else:
            unexplained.append(f"connection {conn} was not replaced before its announced end: {reason}")
    return classes, unexplained


def _end(captured: Captured, conn: int) -> tuple[int, str]:
    for line, event in captured.events:
        if event.kind == "disconnected" and event.conn == conn:
            return line.number, str(event.detail["reason"])
    raise AssertionError(f"the end of connection {conn} is not on record")


def _event_after(captured: Captured, number: int) -> Event | None:
    return next((event for line, event in captured.events if line.number == number + 1), None)


def slowest_recovery_s(captured: Captured, symbols: list[str]) -> float:
    """Return the longest time from a hole in a book to its next whole state."""
    worst = 0
    for symbol in symbols:
        begun = None
        for line, event in captured.events:
            if (event.symbol, event.channel) != (symbol, "depth"):
                continue
            if event.kind == "gap" and begun is None:
                begun = line.ts_recv
            elif event.kind == "synced" and begun is not None:
                worst, begun = max(worst, line.ts_recv - begun), None
    return worst / 1e9
