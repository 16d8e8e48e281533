"""Plays a recording to an engine part by part, as far as time goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mmdata.datasets.market import Market
from mmdata.replay import state as s
from mmdata.replay.clock import Timekeeper, Timeline
from mmdata.replay.engine import Engine, feed_of
from mmdata.replay.survey import Survey


class Player:
    """Hands a recording's parts to an engine when they are due: no more is at hand than happens next."""

    def __init__(self, engine: Engine, parts: Iterable[Market], survey: Survey) -> None:
        """Begin before the first part."""
        self.shown: list[Callable[[Market, Timeline], None]] = []
        """Who is shown each part before the engine gets it."""
        self._engine = engine
        self._clock = survey.clock
        self._coming = zip(parts, survey.known, strict=True)
        self._keeper = Timekeeper()
        self._known = -s.NEVER

    def advance(self, until: int) -> bool:
        """Let everything happen that happens before ``until``; False: a strategy did what none may do."""
        while self._known < until:
            # First, since what has happened is forgotten when the next part comes.
            if not self._engine.advance(self._known):
                return False
            part, self._known = next(self._coming)
            times = self._keeper.timeline(part, self._clock)
            for show in self.shown:
                show(part, times)
            self._engine.append(feed_of(part, times))
        return self._engine.advance(until)
