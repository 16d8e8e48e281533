"""Findings as they are made: each occurrence with its place, so many of a kind, the rest as one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.times import to_ns
from mmdata.datasets.validation.report import Finding, Severity


class Place(NamedTuple):
    """Where something was found, as far as known."""

    session: str | None = None
    frame: int | None = None
    id: int | None = None
    ts_recv: int | None = None
    file: str | None = None
    row: int | None = None


class Findings:
    """The findings of one symbol of one exchange.

    After ``most`` of a check, severity and table, the others become one with their counts added up, in the
    place of the first of them.
    """

    def __init__(self, exchange: str, symbol: str, most: int, date: str | None = None) -> None:
        self.exchange = exchange
        self.symbol = symbol
        self._most = most
        self._date = date
        self._made: dict[tuple[Severity, str, str], list[Finding]] = {}
        self._further: dict[tuple[Severity, str, str], int] = {}

    def add(
        self,
        severity: Severity,
        check: str,
        sentence: str,
        place: Place = Place(),  # noqa: B008 immutable
        *,
        count: int = 1,
        table: str | None = None,
    ) -> None:
        """Add an occurrence."""
        key = (severity, check, table or "")
        made = self._made.setdefault(key, [])
        if len(made) > self._most:
            self._further[key] += count
            return
        self._further[key] = count
        made.append(
            Finding(
                severity,
                check,
                self.exchange,
                self.symbol,
                count,
                sentence,
                place.session,
                place.frame,
                None if place.id in (None, NO_ID) else place.id,
                None if place.ts_recv in (None, NO_TIME) else place.ts_recv,
                table,
                place.file,
                place.row,
            )
        )

    def of(self, date: str) -> Findings:
        """Return where findings in files of ``date`` go: nowhere, where another date is asked for."""
        return self if self._date in (None, date) else Findings(self.exchange, self.symbol, 0, self._date)

    def has(self, check: str) -> bool:
        """Tell whether a check has found something."""
        return any(made for (_, name, _), made in self._made.items() if name == check)

    def __iter__(self) -> Iterator[Finding]:
        for key, made in sorted(self._made.items()):
            yield from made[: self._most]
            if len(made) > self._most:
                last, count = made[-1], self._further[key]
                yield replace(
                    last, count=count, sentence=f"and {count} more of this check; the next: {last.sentence}"
                )


class Sessions(NamedTuple):
    """The sessions of a symbol, in order; a place in the order of everything is ``rank << 40 | frame``."""

    names: tuple[str, ...]

    def place(self, order: int, *, id: int | None = None, ts_recv: int | None = None) -> Place:  # noqa: A002
        """Return a place in the order of everything as session and frame."""
        return Place(self.names[order >> FRAME_BITS], order & ((1 << FRAME_BITS) - 1), id, ts_recv)


class Teller:
    """Makes findings at places in the order of everything, of moments that are asked for."""

    def __init__(self, findings: Findings, sessions: Sessions, date: str | None) -> None:
        self.findings = findings
        self.sessions = sessions
        self._day = (NO_TIME, 2**63 - 1) if date is None else (to_ns(date), to_ns(date, end=True))

    def is_asked(self, ts_recv: int) -> bool:
        """Tell whether a moment is within the date that is asked for."""
        return self._day[0] <= ts_recv < self._day[1]

    def tell(
        self,
        severity: Severity,
        check: str,
        sentence: str,
        order: int,
        *,
        ts_recv: int,
        id: int | None = None,  # noqa: A002
        count: int = 1,
        table: str | None = None,
    ) -> None:
        """Add what was found at ``order``, if its arrival is asked for."""
        if self.is_asked(ts_recv):
            place = self.sessions.place(order, id=id, ts_recv=ts_recv)
            self.findings.add(severity, check, sentence, place, count=count, table=table)
