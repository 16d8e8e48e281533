"""Thirty seconds of the sandbox's four markets, as captures that the sandbox plays back at any pace.

Live markets cost more a message than what records them: on one machine with their recorder they could not
give it 2,000 messages a second. Played back they cost next to nothing, and start anew for every run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import numpy as np

from mmdata.recorder.capture import Header, RestAnswer, format_frame, format_rest
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.live import LiveBinance, LiveOkx
from mmdata.sandbox.market import LiveMarket
from mmdata.sandbox.wire import Message, Style

START_NS = 1_795_248_000_000_000_000
_STEP_NS = 10_000_000


def make_market(folder: Path, *, seconds: float, speed: float, seed: int = 1) -> list[Path]:
    """Write one capture a venue, of all four markets; return their paths."""
    seeds = np.random.SeedSequence(seed).spawn(len(MARKETS))
    markets = [
        LiveMarket(instrument, own, speed, START_NS, 0.6)
        for instrument, own in zip(MARKETS, seeds, strict=True)
    ]
    binance = LiveBinance([m for m in markets if m.instrument.venue == "binance"], None, START_NS)
    okx = LiveOkx([m for m in markets if m.instrument.venue == "okx"], None, START_NS, 60.0)
    greetings = [message for key in sorted(okx.offered) for message in okx.greet(key, START_NS)]
    books = []
    for at, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        url = f"/api/v3/depth?symbol={symbol}&limit=1000"
        answer = RestAnswer(START_NS, url, 200, {}, binance.depth(symbol, 1000) or "")
        books.append(format_rest(START_NS, at, answer))
    paths = []
    for venue, content, opening in (
        ("binance", binance, books),
        ("okx", okx, _lines(START_NS, greetings)),
    ):
        path = folder / f"{venue}.cap"
        header = Header(f"made-{venue}", venue, 0, 0, START_NS, 0, "0", "here", "0")
        with path.open("wb") as file:
            file.write(b"# mmdata-capture 1 %s\n" % msgspec.json.encode(header))
            file.writelines(opening)
            for now_ns in range(START_NS, START_NS + int(seconds * 1e9), _STEP_NS):
                file.writelines(_lines(now_ns, content.due(now_ns)))
        paths.append(path)
    return paths


def _lines(now_ns: int, messages: Iterable[Message]) -> list[bytes]:
    return [format_frame(now_ns, 0, message.render(Style()).encode(), is_text=True) for message in messages]
