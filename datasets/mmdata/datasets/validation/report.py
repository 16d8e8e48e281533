"""What the validator says: findings with their place, and the figures of each symbol."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

REPORT_SCHEMA = 1

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
    ts_recv: int | None = None
    """Ns since the epoch."""
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Latency:
    """``ts_recv - ts_event`` of one channel, in ns; negative where the two clocks disagree."""

    channel: str
    count: int
    min: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int
    negative_share: float


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
    """Share of the time between first and last message in which the book is valid."""
    trades: int = 0
    trade_holes: int = 0
    bbo_compared: int = 0
    """Best bid and offers whose id is a message's id."""
    bbo_equal: int = 0
    checksums: int = 0
    checksums_equal: int = 0
    latencies: list[Latency] = field(default_factory=list)


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
