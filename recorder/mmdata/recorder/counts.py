"""What a session has done so far: plain numbers that the recorder adds to, and others only read."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

LAG_BOUNDS_S = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)
"""Upper bounds of the buckets of `Counts.lags`; one more bucket holds what is beyond the last."""


@dataclass
class Counts:
    """What a session has done so far; times are ns since the epoch, by the recorder's clock."""

    frames: int = 0
    """Text and binary frames received, over all connections."""
    bytes: int = 0
    gaps: int = 0
    resyncs: int = 0
    connections: int = 0
    """Connections opened so far."""
    reconnects: int = 0
    """Those of them that were opened in place of a lost one; a planned change of connections is none."""
    live: int = 0
    """Connections that are open now."""
    repeats: int = 0
    """Messages that another connection had brought before."""
    synced: dict[str, bool] = field(default_factory=dict)
    """By symbol: is its book whole now?"""
    last_frame: dict[tuple[str, str], int] = field(default_factory=dict)
    """By (channel, symbol): when the newest frame of the stream was received."""
    lags: list[int] = field(default_factory=lambda: [0] * (len(LAG_BOUNDS_S) + 1))
    """How many socket reads took how long from receiving to the end of their write, by `LAG_BOUNDS_S`."""
    lag_sum_s: float = 0.0
    lag_max_s: float = 0.0
    clock_offset_ns: int | None = None
    """The venue's clock minus ours, as measured last; None: not yet."""
    clock_uncertainty_ns: int | None = None
    """Half of the round trip that the offset was measured with."""
    rest_used_weight: int | None = None
    """What the venue said last of the request weight used in this minute; None where it does not say."""
    backfilled: int = 0
    """Trades that were fetched over REST to fill a hole."""

    def add_lag(self, lag_s: float) -> None:
        """Count one socket read that took ``lag_s`` from receiving to the end of its write."""
        self.lags[bisect_left(LAG_BOUNDS_S, lag_s)] += 1
        self.lag_sum_s += lag_s
        self.lag_max_s = max(self.lag_max_s, lag_s)
