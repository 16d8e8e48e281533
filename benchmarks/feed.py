"""A Binance spot of one client that costs next to nothing: frames of a tape, and the REST that goes with it.

    python -m benchmarks.feed --streams depth@100ms,trade --capture FILE [--capture FILE]

Says its port on stdout, then does one JSON command a line of stdin: ``{"send": 1000, "rate": 2000}`` sends
so many frames (``rate`` a second; null: as fast as they are taken) to the connection that is open, or to the
next one, and answers when the last has left; ``{"book": true}`` answers the best bid and ask now, and how
many frames of each stream were sent so far.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import selectors
import sys
import time
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from benchmarks.tape import SYMBOL, Tape, read_tape

_CHUNK = 128  # frames in one write
_FULL_BYTES = 1 << 20  # as much may wait for a client that does not keep up
_PATIENCE_S = 60.0
_SNAPSHOT_LEVELS = 100  # Binance's default


class Feed:
    """One tape, played to one connection after the other; a new one goes on where the last one ended."""

    def __init__(self, tape: Tape, streams: set[str]) -> None:
        self._tape = tape
        self._streams = streams
        self._position = 0
        self._sent: Counter[str] = Counter()
        self._connection: ServerConnection | None = None
        self._connected = asyncio.Event()

    async def serve(self) -> None:
        """Serve, and do what stdin says, until it ends."""
        loop = asyncio.get_running_loop()
        commands = asyncio.StreamReader()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
        async with serve(
            self._hold,
            "127.0.0.1",
            0,
            process_request=self._process_request,
            compression=None,
            ping_interval=None,
        ) as server:
            say({"port": next(iter(server.sockets)).getsockname()[1]})
            async for line in commands:
                say(await self._do(json.loads(line)))

    async def _do(self, command: Mapping[str, Any]) -> dict[str, Any]:
        if "send" in command:
            return await self._send(command["send"], command["rate"])
        book = self._tape.book(self._position)
        (bid, *_), (ask, *_) = book.best(1)
        return {"last_id": book.last_id, "bid": bid, "ask": ask, "sent": dict(self._sent)}

    async def _hold(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._connected.set()
        try:
            with contextlib.suppress(ConnectionClosed):
                async for _ in connection:
                    pass  # nothing that a client could say changes anything
        finally:
            if self._connection is connection:
                self._connection = None
                self._connected.clear()

    async def _send(self, count: int, rate: float | None) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._connected.wait()
        except TimeoutError:
            return {"error": f"no client connected within {_PATIENCE_S:.0f} s"}
        connection = self._connection
        assert connection is not None
        assert connection.request is not None
        micros = "MICROSECOND" in connection.request.path.upper()
        bare = connection.request.path.startswith("/ws/")
        transport, clock = connection.transport, time.perf_counter
        begun, sent, size = clock(), 0, 0
        while sent < count and self._connection is connection:
            due = count if rate is None else min(count, int((clock() - begun) * rate) + 1)
            now = time.time_ns() // (1_000 if micros else 1_000_000)
            chunk = [self._next(now, bare=bare) for _ in range(min(due - sent, _CHUNK))]
            if chunk:
                data = b"".join(chunk)
                transport.write(data)
                sent, size = sent + len(chunk), size + len(data)
            await asyncio.sleep(0 if rate is None else max(0.0, begun + sent / rate - clock()))
            await self._drained(connection, _FULL_BYTES)
        await self._drained(connection, 0)
        return {"sent": sent, "bytes": size, "seconds": clock() - begun}

    def _next(self, now: int, *, bare: bool) -> bytes:
        payload = self._tape.render(self._position, now)
        self._sent[self._tape.stream(self._position)] += 1
        self._position += 1
        return as_text_frame(payload[payload.index(b'"data":') + 7 : -1] if bare else payload)

    async def _drained(self, connection: ServerConnection, most: int) -> None:
        while connection.transport.get_write_buffer_size() > most and self._connection is connection:
            await asyncio.sleep(0.0005)

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        path, _, query = request.path.partition("?")
        if request.headers.get("Upgrade", "").lower() == "websocket":
            asked = _streams(request.path)
            if asked == self._streams:
                return None
            return connection.respond(HTTPStatus.NOT_FOUND, f"the tape is of {self._streams}, not of {asked}")
        answer = self._answer(path, parse_qs(query))
        if answer is None:
            return connection.respond(HTTPStatus.NOT_FOUND, f"no {path} here")
        response = connection.respond(HTTPStatus.OK, json.dumps(answer))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json;charset=UTF-8"
        return response

    def _answer(self, path: str, query: Mapping[str, list[str]]) -> object:
        now_ms = time.time_ns() // 1_000_000
        if path == "/api/v3/depth":
            book = self._tape.book(self._position)
            bids, asks = book.best(int(query.get("limit", [str(_SNAPSHOT_LEVELS)])[0]))
            return {"lastUpdateId": book.last_id, "bids": bids, "asks": asks}
        if path == "/api/v3/exchangeInfo":
            return {"timezone": "UTC", "serverTime": now_ms, "rateLimits": [], "symbols": [_INSTRUMENT]}
        if path == "/api/v3/time":
            return {"serverTime": now_ms}
        return {} if path == "/api/v3/ping" else None


_INSTRUMENT = {
    "symbol": SYMBOL,
    "status": "TRADING",
    "baseAsset": "BTC",
    "quoteAsset": "USDT",
    "filters": [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000.00000", "stepSize": "0.00001"},
    ],
}


def as_text_frame(payload: bytes) -> bytes:
    """Return a payload as one unmasked WebSocket text frame (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%s" % (size, payload)
    if size < 1 << 16:
        return b"\x81\x7e%s%s" % (size.to_bytes(2, "big"), payload)
    return b"\x81\x7f%s%s" % (size.to_bytes(8, "big"), payload)


def _streams(target: str) -> set[str]:
    """Return the streams that an address asks for, without the symbol."""
    parts = urlsplit(target)
    names = parts.path[4:] if parts.path.startswith("/ws/") else parse_qs(parts.query)["streams"][0]
    return {name.partition("@")[2] for name in unquote(names).split("/")}


def say(answer: Mapping[str, Any]) -> None:
    """Print one line of JSON at once."""
    print(json.dumps(answer), flush=True)


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", default="depth@100ms,trade")
    parser.add_argument("--capture", type=Path, action="append", required=True)
    given = parser.parse_args()
    streams = set(given.streams.split(","))
    tape = read_tape(given.capture).select(streams)

    # An epoll loop sleeps whole milliseconds; at 20,000 frames a second that would be bursts of 20.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(Feed(tape, streams).serve())


if __name__ == "__main__":
    main()
