"""How far a venue's clock is from ours, as one request to its time endpoint tells it. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Offset(NamedTuple):
    """The venue's clock minus ours, and how wrong that can be; both in ns."""

    offset_ns: int
    uncertainty_ns: int


def offset(t0_ns: int, t1_ns: int, venue_ns: int) -> Offset:
    """Return the venue's clock minus ours: asked at ``t0_ns``, answered ``venue_ns``, received at ``t1_ns``.

    All are ns since the epoch. The venue read its clock at an unknown moment of the round trip, so the
    middle is taken, and the truth lies within half the trip of it (and the last digit that the venue
    tells, up to 1 ms more). ValueError: our clock was set back meanwhile, the measurement says nothing.

    Source: Cristian (1989), "Probabilistic clock synchronization", section 4.

    >>> offset(1_000, 1_400, 5_200)
    Offset(offset_ns=4000, uncertainty_ns=200)
    """
    trip = t1_ns - t0_ns
    if trip < 0:
        raise ValueError(f"the answer came {-trip} ns before it was asked for: our clock was set back")
    return Offset(venue_ns - (t0_ns + trip // 2), (trip + 1) // 2)
