"""What the validator says: findings with their place, and the figures of each symbol and UTC day.

Everything here is plain values, so that a page, a certificate or another program can be made of it. Times
are ns since the epoch, UTC; durations are ns. A series holds one value a bin, its `begin` the bin's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

REPORT_SCHEMA = 2

Severity = Literal["error", "warning", "info"]
"""error: the data are not what they claim. warning: a recorded or harmless flaw. info: good to know."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, where, how often, and what it means for research."""

    severity: Severity
    check: str
    exchange: str
    symbol: str
    count: int
    sentence: str
    session: str | None = None
    """With `frame`: the place of the first."""
    frame: int | None = None
    id: int | None = None
    """Id of the book message, trade or snapshot, as the venue counts."""
    ts_recv: int | None = None
    table: str | None = None
    file: str | None = None
    row: int | None = None
    """Row of `file`, from 0."""


@dataclass(frozen=True, slots=True)
class Latency:
    """``ts_recv - ts_event`` of one channel, in ns; negative where the two clocks disagree.

    Least and largest are exact, quantiles within 0.2 %.
    """

    channel: str
    count: int
    min: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int
    negative_share: float
    corrected: bool = False
    """The venue's clock, as `clock` events measured it, was put in place of ours."""


@dataclass(frozen=True, slots=True)
class LatencySeries:
    """Latency of one channel over time, by minute; minutes without a message are left out."""

    channel: str
    begin: list[int]
    count: list[int]
    p50: list[int]
    p99: list[int]


@dataclass(frozen=True, slots=True)
class BookSeries:
    """The top of the valid book over time, by minute, weighted by time; minutes without one are left out."""

    begin: list[int]
    spread: list[float]
    """In units of price."""
    bid_size: list[float]
    ask_size: list[float]


@dataclass(frozen=True, slots=True)
class Hole:
    """A stretch in which the book is not proven, or trades are missing."""

    channel: str
    session: str
    frame: int
    """Of the message or event that shows it."""
    begin: int
    """Arrival of the last message before it."""
    end: int | None
    """When the book was valid again, or the next trade came; None: not before the session's end."""
    cause: str
    """As the gap event tells; ``unrecorded`` where there is none."""
    last_id: int | None
    next_id: int | None
    missing: int | None = None
    """Trades that are missing."""


@dataclass(frozen=True, slots=True)
class SessionProof:
    """What the ids of one session's book messages prove, within one day."""

    session: str
    begin: int
    end: int
    """First and last arrival."""
    messages: int
    first_id: int | None
    last_id: int | None
    breaks: int
    """Messages that do not continue the book before them, recorded or not."""
    unrecorded: int
    recorded_ns: int
    valid_ns: int
    """How long the book was valid, of that."""


@dataclass(frozen=True, slots=True)
class ClockBounds:
    """What `clock` events say: the venue's clock minus ours, ns."""

    count: int
    min: int
    max: int
    uncertainty: int
    """The largest; the truth lies within it of each measurement."""
    steps: int
    """How often our clock was set while recording."""


@dataclass(frozen=True, slots=True)
class Band:
    """Levels of an audit snapshot within one band of depth, both sides together."""

    name: str
    """``10``: the best ten a side; ``100``, ``1000``: those after them; ``rest``."""
    levels: int
    """Levels of the audit."""
    equal: int
    """Price and size are those of the rebuilt book."""
    stale: int
    """Levels that the rebuilt book has with another size, or that are not in the audit."""
    missing: int
    """Levels that it lacks, though its snapshot spoke of that price."""
    beyond: int
    """Levels that it lacks, and its snapshot never reached: unknown until they change."""
    unjudged: int
    """Levels that the message across the audit's id changes: nobody knows which state the audit shows."""

    @property
    def share(self) -> float:
        """Share of the judged levels that match in price and size."""
        judged = self.equal + self.stale + self.missing
        return self.equal / judged if judged else 1.0


@dataclass(frozen=True, slots=True)
class Audit:
    """One audit snapshot against the rebuilt book."""

    session: str
    frame: int
    ts_recv: int
    id: int
    bands: list[Band]


@dataclass
class Coverage:
    """The trading window by minute, minus holes."""

    begin: int | None = None
    """The window, or the recorded span where no window is on record; None: nothing was recorded."""
    end: int | None = None
    source: str = "span"
    """``window`` or ``span``."""
    expected: int = 0
    """Minutes."""
    covered: int = 0
    """Minutes with data, and no hole in the book."""
    in_hole: int = 0
    """Minutes with a hole in the book, or without data within one."""
    missing: int = 0
    strip: str = ""
    """A character a minute of the day: ``.`` not expected, ``#`` covered, ``o`` hole, ``x`` missing."""


@dataclass
class DayReport:
    """The figures of one symbol on one UTC date."""

    date: str
    rows: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    trades: int = 0
    quotes: int = 0
    is_open: bool = False
    """A recorder is still writing it."""
    sessions: list[SessionProof] = field(default_factory=list)
    holes: list[Hole] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    latencies: list[Latency] = field(default_factory=list)
    latency_series: list[LatencySeries] = field(default_factory=list)
    book_series: BookSeries = field(default_factory=lambda: BookSeries([], [], [], []))
    clock: ClockBounds | None = None
    audits: list[Audit] = field(default_factory=list)
    bbo_compared: int = 0
    bbo_equal: int = 0
    checksums: int = 0
    checksums_equal: int = 0

    @property
    def recorded_ns(self) -> int:
        """How long books were recorded."""
        return sum(session.recorded_ns for session in self.sessions)

    @property
    def valid_ns(self) -> int:
        """How long the book was valid, of that."""
        return sum(session.valid_ns for session in self.sessions)


@dataclass
class SymbolReport:
    """The figures of one symbol."""

    exchange: str
    symbol: str
    rows: dict[str, int] = field(default_factory=dict)
    messages: int = 0
    """Book messages of the stream."""
    chain_breaks: int = 0
    """Messages that do not continue the book before them."""
    unrecorded_breaks: int = 0
    valid_share: float = 0.0
    """Share of the recorded time in which the book is valid."""
    trades: int = 0
    trade_holes: int = 0
    bbo_compared: int = 0
    """Best bid and offers whose id is a message's id."""
    bbo_equal: int = 0
    checksums: int = 0
    checksums_equal: int = 0
    latencies: list[Latency] = field(default_factory=list)
    days: list[DayReport] = field(default_factory=list)


@dataclass
class ValidationReport:
    """What was found in a dataset."""

    root: str
    symbols: list[SymbolReport] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def count(self, severity: Severity) -> int:
        """Return the number of findings of ``severity``."""
        return sum(finding.severity == severity for finding in self.findings)

    def exit_code(self, *, strict: bool = False) -> int:
        """Return 1 for an error, with ``strict`` for a warning too, else 0."""
        return int(self.count("error") > 0 or (strict and self.count("warning") > 0))

    def to_json_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {"schema": REPORT_SCHEMA, **asdict(self)}
