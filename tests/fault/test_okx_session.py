"""A venue that refuses and falls silent at the wrong moment: the book is whole again all the same."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec.structs
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from mmdata.datasets.errors import DiskError
from mmdata.recorder import books as books_module
from mmdata.recorder.capture import CaptureWriter
from mmdata.recorder.rest import RestClient
from mmdata.recorder.session import VenueSession
from mmdata.recorder.venues import open_stream
from tests.builders import HEADER

ARG = {"channel": "books", "instId": "BTC-USDT"}
INSTRUMENT = {"instType": "SPOT", "instId": "BTC-USDT", "tickSz": "0.1", "lotSz": "0.1", "state": "live"}


def book(action: str, seq: int, prev: int) -> str:
    levels = {"asks": [["2", "1", "0", "1"]], "bids": [["1", "1", "0", "1"]]}
    data = {**levels, "ts": "1787612486207", "checksum": 0, "seqId": seq, "prevSeqId": prev}
    return json.dumps({"arg": ARG, "action": action, "data": [data]}, separators=(",", ":"))


class FussyVenue:
    """OKX that answers one subscription after the other as ``answers`` says; ``gap`` comes with a gap."""

    def __init__(self, answers: list[str], *, rest_books: str) -> None:
        self._answers = answers
        self._rest_books = rest_books
        self.subscriptions = 0

    async def start(self) -> Server:
        """Listen on a free port."""
        return await serve(self._talk, "127.0.0.1", 0, process_request=self._rest)

    async def _talk(self, socket: ServerConnection) -> None:
        async for message in socket:
            if json.loads(message)["op"] != "subscribe":
                continue
            answer = self._answers[min(self.subscriptions, len(self._answers) - 1)]
            self.subscriptions += 1
            if answer == "gap":
                for text in (book("snapshot", 10, -1), book("update", 15, 10), book("update", 30, 20)):
                    await socket.send(text)
            elif answer == "refuse":
                error = {"event": "error", "code": "60014", "msg": "Requests too frequent", "connId": "x"}
                await socket.send(json.dumps(error))
            elif answer == "snapshot":
                await socket.send(book("snapshot", 50, -1))

    def _rest(self, socket: ServerConnection, request: Request) -> Response | None:
        if request.path.startswith("/ws/"):
            return None
        if "instruments" in request.path:
            return socket.respond(
                http.HTTPStatus.OK, json.dumps({"code": "0", "msg": "", "data": [INSTRUMENT]})
            )
        return socket.respond(http.HTTPStatus(int(self._rest_books)), "busy")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books_module, "_RESUBSCRIBE_INTERVAL_S", 0.1)
    monkeypatch.setattr(books_module, "_ANSWER_WITHIN_S", 0.3)


async def recorded(
    venue: FussyVenue, folder: Path, until: Callable[[VenueSession], Coroutine[None, None, None]]
) -> VenueSession:
    server = await venue.start()
    port = next(iter(server.sockets)).getsockname()[1]
    stream = open_stream("okx", ["BTC-USDT"], ["books"], f"ws://127.0.0.1:{port}")
    header = msgspec.structs.replace(HEADER, exchange="okx")
    writer = CaptureWriter(folder, header, seconds=60, size=1 << 20)
    rest = RestClient(f"http://127.0.0.1:{port}")
    session = VenueSession([stream], rest, writer, on_segment=lambda path: None)
    stop = asyncio.Event()
    running = asyncio.create_task(session.run(stop))
    watching = asyncio.create_task(until(session))
    try:
        async with asyncio.timeout(10):
            await asyncio.wait([running, watching], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await running
    finally:
        watching.cancel()
        rest.close()
        server.close()
        await server.wait_closed()  # else its connections outlive the loop, and a later test is blamed
        writer.close()
    return session


async def whole_after_a_resync(session: VenueSession) -> None:
    while not (session.counts.resyncs and session.counts.synced["BTC-USDT"]):
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("answers", "rest_books"),
    [
        (["gap", "snapshot"], "503"),  # the audit is asked for again and again meanwhile
        (["gap", "refuse", "snapshot"], "200"),
        (["gap", "nothing", "refuse", "snapshot"], "503"),
        (["nothing", "snapshot"], "200"),
        (["refuse", "snapshot"], "503"),
    ],
)
def test_book_becomes_whole_whatever_the_venue_refuses_first(
    tmp_path: Path, answers: list[str], rest_books: str
) -> None:
    venue = FussyVenue(answers, rest_books=rest_books)
    session = asyncio.run(recorded(venue, tmp_path, whole_after_a_resync))
    assert session.counts.synced == {"BTC-USDT": True}
    assert venue.subscriptions == len(answers)


def test_disk_that_fails_to_sync_is_the_disks_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fdatasync", full)

    async def never(session: VenueSession) -> None:
        await asyncio.sleep(60)

    with pytest.raises(DiskError, match="cannot be synced to the disk"):
        asyncio.run(recorded(FussyVenue(["snapshot"], rest_books="503"), tmp_path, never))
