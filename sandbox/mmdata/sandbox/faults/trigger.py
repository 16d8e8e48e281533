"""When a fault strikes, and whom: seeded, without a clock."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmdata.sandbox.faults.kinds import Fault

VENUE = 0
"""The scope of what befalls a venue, or all its connections alike; connections count from 1."""

_Fault_co = TypeVar("_Fault_co", bound="Fault", covariant=True)


class Trigger:
    """The times, or the numbers of messages, at which one fault strikes.

    A time that passes while there is nobody to strike is made up for once, not as often as it passed.
    """

    def __init__(self, fault: Fault, draw: Random) -> None:
        repeats = fault.every is not None or fault.every_messages is not None
        self._left = fault.count if fault.count is not None or repeats else 1
        self._counts: Counter[int] = Counter()
        self._draw = draw
        self._every_ns = fault.every
        self._jitter_ns = fault.jitter
        self._every = fault.every_messages
        self._at = fault.at_message or fault.every_messages
        self.timed = self._at is None
        first_ns = fault.at if fault.at is not None else fault.every
        self._base_ns = int(first_ns or 0)
        self._due_ns = self._base_ns + self._drawn_jitter()

    def due(self, since_ns: int) -> bool:
        """Return whether a time has come, ``since_ns`` after the venue was first spoken to; each once."""
        if not self.timed or self._left == 0 or since_ns < self._due_ns:
            return False
        self._spend()
        if self._every_ns is None:
            self._left = 0
        else:
            self._base_ns += self._every_ns * (1 + max(since_ns - self._base_ns, 0) // self._every_ns)
            self._due_ns = self._base_ns + self._drawn_jitter()
        return True

    def counted(self, scope: int) -> bool:
        """Count one more message in a scope, and return whether that is one to strike at."""
        if self._at is None or self._left == 0:
            return False
        self._counts[scope] += 1
        beyond = self._counts[scope] - self._at
        if beyond != 0 and (self._every is None or beyond < 0 or beyond % self._every):
            return False
        self._spend()
        return True

    def forget(self, scope: int) -> None:
        """Drop the count of a connection that is gone."""
        self._counts.pop(scope, None)

    def _spend(self) -> None:
        if self._left is not None:
            self._left -= 1

    def _drawn_jitter(self) -> int:
        return int(self._draw.random() * self._jitter_ns)


class _Run:
    """One strike while it lasts: so many messages, or until a time."""

    def __init__(self, left: int | None, until_ns: int | None, seed: str) -> None:
        self._left = left
        self._until_ns = until_ns
        self._seed = seed
        self._taken = 0

    def take(self, now_ns: int) -> str | None:
        """Return a seed of its own for this message, None when it is no longer part of the strike."""
        if self._until_ns is not None and now_ns >= self._until_ns:
            return None
        if self._left is not None and self._taken >= self._left:
            return None
        self._taken += 1
        return f"{self._seed}/{self._taken}"


class Armed(Generic[_Fault_co]):
    """One fault at one venue with all that it remembers."""

    def __init__(self, fault: _Fault_co, index: int, seed: str) -> None:
        self.fault = fault
        self.index = index
        self._seed = f"{seed}/{index}"
        self._draw = Random(self._seed)  # noqa: S311 faults are drawn, not secrets
        self._trigger = Trigger(fault, self._draw)
        self._burst: int | None = getattr(fault, "burst", None)
        self._for_ns: int | None = getattr(fault, "for_", None)
        self._strikes = 0
        self._seen: dict[int, None] = {}
        self._owed = False
        self._victim: int | None = None
        self._runs: dict[int, _Run] = {}

    def hits(self, scope: int, now_ns: int, since_ns: int) -> str | None:
        """Return the seed of what is left to chance in a message that matches, None when it is spared.

        By message: every scope counts its own. By time: a scope that has shown itself is drawn, and
        its next message is the one. The seed is the message's own, so that a frame is spoilt alike
        for everybody, whatever else is drawn in between.
        """
        self._seen.setdefault(scope)
        if self._trigger.timed:
            struck = self._drawn(since_ns) == scope
            if struck:
                self._owed, self._victim = False, None
        else:
            struck = self._trigger.counted(scope)
        if struck:
            self._runs[scope] = self._run(now_ns)
        run = self._runs.get(scope)
        if run is None:
            return None
        seed = run.take(now_ns)
        if seed is None:
            del self._runs[scope]
        return seed

    def counted(self, scope: int) -> bool:
        """Count a message for a fault of connections or of the venue; return whether it strikes now."""
        self._seen.setdefault(scope)
        return self._trigger.counted(scope)

    def victim(self, since_ns: int, candidates: Iterable[int] | None = None) -> int | None:
        """Return whom a time that has come strikes: one of the candidates (those seen), or None."""
        chosen = self._drawn(since_ns, candidates)
        if chosen is not None:
            self._owed, self._victim = False, None
        return chosen

    def forget(self, scope: int) -> None:
        """Take notice that a connection is gone; what was meant for it strikes another."""
        self._seen.pop(scope, None)
        self._runs.pop(scope, None)
        self._trigger.forget(scope)
        if self._victim == scope:
            self._victim = None

    def _drawn(self, since_ns: int, candidates: Iterable[int] | None = None) -> int | None:
        self._owed = self._trigger.due(since_ns) or self._owed
        if not self._owed:
            return None
        if self._victim is None:
            among = list(self._seen if candidates is None else candidates)
            self._victim = self._draw.choice(among) if among else None
        return self._victim

    def _run(self, now_ns: int) -> _Run:
        self._strikes += 1
        burst = 1 if self._burst is None and self._for_ns is None else self._burst
        until_ns = None if self._for_ns is None else now_ns + self._for_ns
        return _Run(burst, until_ns, f"{self._seed}/{self._strikes}")
