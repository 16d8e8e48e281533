"""What a session asks of its venue now and then: instruments, the clock, books to audit ours with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count

from mmdata.datasets.errors import ConfigError, VenueError
from mmdata.recorder.ask import Asker
from mmdata.recorder.books import Journal
from mmdata.recorder.capture import Event, RestAnswer
from mmdata.recorder.clock import offset
from mmdata.recorder.records import Instrument
from mmdata.recorder.venues import DECODERS
from mmdata.recorder.venues.stream import Request, Stream

_log = logging.getLogger(__name__)

_TRADING = ("TRADING", "live", None)
"""What venues call the state in which a market trades; others are halts, or will be."""
_FIRST_AUDIT_S = 60.0
"""By then the books are in sync, and the requests of the start are done."""
_MATTERS = ("status", "tick_size", "lot_size", "min_size", "min_notional", "contract_value")


def changes(before: Instrument, now: Instrument) -> dict[str, list[str | None]]:
    """Return what of an instrument is not as it was: name -> [before, now]."""
    pairs = ((name, getattr(before, name), getattr(now, name)) for name in _MATTERS)
    return {name: [old, new] for name, old, new in pairs if old != new}


class Upkeep:
    """The side work of one session."""

    def __init__(self, streams: Sequence[Stream], asker: Asker, journal: Journal) -> None:
        self._streams = streams
        self._asker = asker
        self._journal = journal
        self._exchange = streams[0].exchange
        self._known: dict[str, Instrument] = {}

    def is_halted(self, symbol: str) -> bool:
        """Tell whether the venue said that the symbol does not trade now."""
        known = self._known.get(symbol)
        return known is not None and known.status not in _TRADING

    async def read_instruments(self, grid: dict[str, tuple[str, str]], every_s: float) -> None:
        """Read tick, lot and state of every symbol now and then, and note what changed.

        ConfigError: the venue does not know one at the start.
        """
        for number in count():
            for request in [r for stream in self._streams for r in stream.instruments_requests()]:
                try:
                    await self._read(request, grid, is_first=number == 0)
                except VenueError as error:
                    _log.warning("%s; the instruments are read again in %.0f s", error, every_s)
            await asyncio.sleep(every_s)

    async def _read(self, request: Request, grid: dict[str, tuple[str, str]], *, is_first: bool) -> None:
        decode = DECODERS[self._exchange].decode_instruments
        found, answer, _ = await self._asker.ask(
            request,
            lambda body: decode(body, request.symbols),
            symbol=",".join(request.symbols),
            tries=None if is_first else 3,
            refused=self._refuse(request) if is_first else None,
        )
        for instrument in found:
            grid[instrument.symbol] = (instrument.tick_size, instrument.lot_size)
            before = self._known.get(instrument.symbol, instrument)
            changed = changes(before, instrument)
            self._known[instrument.symbol] = instrument
            if changed:
                self._journal.note(Event("instrument", symbol=instrument.symbol, detail={"changed": changed}))
                _log.warning("%s: %s changed: %s", self._exchange, instrument.symbol, changed)
            elif is_first and self.is_halted(instrument.symbol):
                detail = {"status": instrument.status}
                self._journal.note(Event("instrument", symbol=instrument.symbol, detail=detail))
                _log.warning("%s: %s does not trade now: %s", self._exchange, instrument.symbol, detail)
        missing = sorted({*request.symbols} - {instrument.symbol for instrument in found})
        if missing and is_first:
            raise ConfigError(
                f"{self._exchange} has no instrument {', '.join(missing)}; its own list is "
                f"{answer.url.partition('?')[0]}; recording ends"
            )

    def _refuse(self, request: Request) -> Callable[[RestAnswer], None]:
        """Return what raises when the venue does not know a symbol: asking again would not help."""

        def refused(answer: RestAnswer) -> None:
            if answer.status == 400:
                raise ConfigError(
                    f"{self._exchange} does not know all of {', '.join(request.symbols)} (it says: "
                    f"{answer.body[:200]}); recording ends"
                )

        return refused

    async def compare_clocks(self, every_s: float) -> None:
        """Measure the venue's clock against ours now and then, and note it."""
        decode = DECODERS[self._exchange].decode_time
        while True:
            try:
                told = await self._asker.ask(self._streams[0].time_request(), decode, tries=1)
                measured = offset(told.answer.t0, told.ts_recv, told.value)
            except (VenueError, ValueError) as error:
                _log.warning("%s; the clocks are compared again in %.0f s", error, every_s)
            else:
                counts = self._journal.counts
                counts.clock_offset_ns, counts.clock_uncertainty_ns = measured
                self._journal.note(Event("clock", detail={**measured._asdict(), "url": told.answer.url}))
            await asyncio.sleep(every_s)

    async def audit(self, audits: Mapping[str, Callable[[str], Awaitable[None]]], every_s: float) -> None:
        """Ask for a book of each symbol every ``every_s``, one symbol after the other, evenly spread."""
        pause_s = every_s / max(1, len(audits))
        await asyncio.sleep(min(_FIRST_AUDIT_S, pause_s))
        while True:
            for symbol, audit in audits.items():
                await audit(symbol)
                await asyncio.sleep(pause_s)
