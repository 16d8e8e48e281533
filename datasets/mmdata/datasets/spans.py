"""When sessions received: two that ran at the same time cannot be played as one tape."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from mmdata.datasets.errors import UsageError
from mmdata.datasets.times import iso


@dataclass(frozen=True, slots=True)
class Span:
    """When a session received: by the exchange's clock, and by its recorder's; ns since the epoch."""

    name: str
    first: int
    last: int
    raw_first: int
    raw_last: int


def refuse_two_at_once(of: str, spans: Iterable[Span], what: str, remedy: str) -> None:
    """Raise UsageError when two sessions ran at the same time.

    One follows the other in the order of everything: played so, time would run backwards, or what the
    later one saw of the overlap would act when the earlier had ended. The sentence begins with ``of`` (the
    symbol), says that ``what`` can follow only one, and ends with the ``remedy``.
    """
    for before, after in itertools.pairwise(sorted(spans, key=lambda span: span.first)):
        # By both clocks: neither recorders whose clocks differ nor one wrong event time make an overlap.
        by_recorder = max(before.raw_first, after.raw_first) < min(before.raw_last, after.raw_last)
        if after.first < before.last and by_recorder:
            raise UsageError(
                f"{of}: the sessions {before.name} and {after.name} both recorded {iso(after.first)} to "
                f"{iso(min(before.last, after.last))} (the exchange's clock), and {what} can follow only "
                f"one: {remedy}"
            )
