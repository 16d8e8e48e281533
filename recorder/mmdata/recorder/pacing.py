"""How often a venue may be spoken to. Pure: time is an argument, waiting is somebody else's."""

from __future__ import annotations

from collections.abc import Mapping

_SHARE_OF_LIMIT = 0.5
"""Of a limit that is counted an address, so much is ours: other programs ask from here too."""
_DEFAULT_BAN_S = 60.0


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` saved up."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._at_s: float | None = None

    def take(self, now_s: float, cost: float = 1.0) -> float:
        """Take ``cost`` tokens; return the seconds to wait before acting on them.

        >>> bucket = TokenBucket(rate=2.0, burst=1.0)
        >>> bucket.take(0.0), bucket.take(0.0), bucket.take(10.0)
        (0.0, 0.5, 0.0)
        """
        if self._at_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        self._tokens -= cost
        return max(0.0, -self._tokens / self._rate)


class RestBudget:
    """Requests of one venue by weight, and what it said of limits: 429, 418, ``Retry-After``, used weight.

    ``per_minute`` is the venue's limit of weight; half of it is used.
    Source: Binance ``rest-api.md`` "IP Limits" (July 2026); OKX v5 "Rate limits" (July 2026).
    """

    def __init__(self, per_minute: float) -> None:
        self._limit = per_minute * _SHARE_OF_LIMIT
        self._bucket = TokenBucket(self._limit / 60, self._limit / 4)
        self._closed_until_s = 0.0
        self.used: int | None = None
        """Weight used in this minute, as the venue said last."""

    def wait_s(self, weight: float, now_s: float) -> float:
        """Take the weight of one request; return the seconds to wait before it may be sent."""
        return max(self._bucket.take(now_s, weight), self._closed_until_s - now_s)

    def closed_s(self, now_s: float) -> float:
        """Return for how long the venue takes no request at all: something may have come up meanwhile."""
        return max(0.0, self._closed_until_s - now_s)

    def answered(self, status: int, headers: Mapping[str, str], now_s: float) -> None:
        """Take note of an answer's status and headers."""
        told = {name.lower(): value for name, value in headers.items()}
        used = told.get("x-mbx-used-weight-1m", "")
        if used.isdigit():
            self.used = int(used)
            if self.used > self._limit * 1.6:  # somebody else here asks as well: leave them the rest
                self._close(now_s + 10.0)
        if status in (418, 429):
            after = told.get("retry-after", "")
            self._close(now_s + (float(after) if after.isdigit() else _DEFAULT_BAN_S))

    def _close(self, until_s: float) -> None:
        self._closed_until_s = max(self._closed_until_s, until_s)
