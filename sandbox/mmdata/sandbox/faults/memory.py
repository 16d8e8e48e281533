"""Books as REST would have told them a while ago: what a stale answer is made of."""

from __future__ import annotations

import json
from collections import defaultdict, deque

_PER_REACH = 5
"""Books kept within the age asked for: a stale one is at most a fifth older than that."""

_LEAST_NS = 100_000_000


class BookMemory:
    """Bodies by symbol, as old as ``reach_ns`` and a little older."""

    def __init__(self, reach_ns: int) -> None:
        self._reach_ns = reach_ns
        self._step_ns = max(reach_ns // _PER_REACH, _LEAST_NS)
        self._due_ns = 0
        self._bodies: defaultdict[str, deque[tuple[int, str]]] = defaultdict(deque)

    def due(self, now_ns: int) -> bool:
        """Return whether it is time to keep the books again; each time once."""
        if now_ns < self._due_ns:
            return False
        self._due_ns = now_ns + self._step_ns
        return True

    def keep(self, symbol: str, body: str, now_ns: int) -> None:
        """Keep a body, and drop those that nobody can ask for any more."""
        bodies = self._bodies[symbol]
        bodies.append((now_ns, body))
        while len(bodies) > 1 and bodies[1][0] <= now_ns - self._reach_ns:
            bodies.popleft()

    def before(self, symbol: str, time_ns: int) -> str | None:
        """Return the body of that time or the last before it, else the oldest; None when there is none."""
        bodies = self._bodies[symbol]
        older = [body for kept_ns, body in bodies if kept_ns <= time_ns]
        if older:
            return older[-1]
        return bodies[0][1] if bodies else None


def cut(body: str, limit: int) -> str:
    """Return the body of a book with at most ``limit`` levels a side, Binance's or OKX's.

    >>> cut('{"lastUpdateId":7,"bids":[["1","2"],["0.9","1"]],"asks":[]}', 1)
    '{"lastUpdateId":7,"bids":[["1","2"]],"asks":[]}'
    """
    answer = json.loads(body)
    book = answer["data"][0] if "data" in answer else answer
    for side in ("bids", "asks"):
        book[side] = book[side][:limit]
    return json.dumps(answer, separators=(",", ":"))
