"""Frames split off before the library's queue: the same messages, however the bytes are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.frames import Frame, Opcode

from mmdata.recorder.wire import Splitter, Wire

Message = tuple[bytes, bool]
"""A whole message, and whether it is text."""

SIZES = st.one_of(st.integers(0, 300), st.sampled_from([125, 126, 65535, 65536, 70000]))


def encoded(opcode: Opcode, payload: bytes, *, final: bool = True) -> bytes:
    return Frame(opcode, payload, final).serialize(mask=False)


def split(chunks: list[bytes], max_size: int = 1 << 20) -> tuple[list[Message], list[bytes]]:
    messages: list[Message] = []
    rest: list[bytes] = []
    splitter = Splitter(
        lambda found, is_text: messages.extend((m, is_text) for m in found), rest.append, max_size
    )
    for chunk in chunks:
        splitter.take(chunk)
    return messages, rest


@st.composite
def streams(draw: Any) -> tuple[list[bytes], list[Message], list[bytes]]:
    """Return chunks as a socket may give them, the messages in them, and the control frames."""
    wire, messages, control = b"", [], []
    for _ in range(draw(st.integers(1, 8))):
        is_text = draw(st.booleans())
        payload = bytes(draw(SIZES))
        opcode = Opcode.TEXT if is_text else Opcode.BINARY
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=2)))
        parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
        for at, part in enumerate(parts):
            wire += encoded(opcode if at == 0 else Opcode.CONT, part, final=at == len(parts) - 1)
            if draw(st.booleans()):
                control.append(encoded(Opcode.PING, b"x"))
                wire += control[-1]
        messages.append((payload, is_text))
    ends = sorted(draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    chunks = [wire[a:b] for a, b in zip([0, *ends], [*ends, len(wire)], strict=True)]
    return chunks, messages, control


@given(streams())
def test_messages_are_the_same_however_the_bytes_are_cut(
    stream: tuple[list[bytes], list[Message], list[bytes]],
) -> None:
    chunks, messages, control = stream
    assert split(chunks) == (messages, control)


@pytest.mark.parametrize(
    "frame",
    [
        bytes([0x81, 0x85]) + b"mask" + b"12345",  # masked by a server
        bytes([0xC1, 1]) + b"x",  # a reserved bit without an extension
        encoded(Opcode.CONT, b"x"),  # nothing to continue
    ],
)
def test_what_breaks_the_protocol_goes_to_the_library_with_all_that_follows(frame: bytes) -> None:
    good = encoded(Opcode.TEXT, b"{}")
    messages, rest = split([good + frame + good, good])
    assert messages == [(b"{}", True)]
    assert b"".join(rest) == frame + good + good


def test_message_that_is_too_long_is_not_gathered() -> None:
    long = encoded(Opcode.TEXT, bytes(2000))
    messages, rest = split([long[:100], long[100:]], max_size=1000)
    assert messages == []
    assert b"".join(rest) == long


async def talk(
    server: Callable[[ServerConnection], Coroutine[None, None, None]],
    take: Callable[[list[Message]], None],
    **options: Any,
) -> Wire:
    """Connect to a server, and wait for the end."""
    wires: list[Wire] = []
    async with serve(server, "127.0.0.1", 0) as listening:
        port = next(iter(listening.sockets)).getsockname()[1]
        factory = partial(
            Wire,
            on_open=wires.append,
            on_messages=lambda _, found, is_text: take([(message, is_text) for message in found]),
            max_message=1 << 20,
        )
        wire = await connect(
            f"ws://127.0.0.1:{port}",
            create_connection=factory,  # type: ignore[arg-type]
            ping_interval=None,
            **options,
        )
        await wire.wait_closed()
        assert wires == [wire]
    assert isinstance(wire, Wire)
    return wire


def test_library_still_does_handshake_pings_and_close() -> None:
    ponged: list[float] = []

    async def server(ws: ServerConnection) -> None:
        await ws.send("first, maybe in one segment with the handshake")
        ponged.append(await (await ws.ping()))
        await ws.send(["in ", "fragments"])
        await ws.send(b"\x00\x01")
        await ws.close(4004, "No data received in 30s")

    got: list[Message] = []
    wire = asyncio.run(talk(server, got.extend, compression=None))
    assert got == [
        (b"first, maybe in one segment with the handshake", True),
        (b"in fragments", True),
        (b"\x00\x01", False),
    ]
    assert len(ponged) == 1
    assert "4004" in str(wire.protocol.close_exc)


def test_error_in_taking_a_message_ends_the_connection_and_is_kept() -> None:
    async def server(ws: ServerConnection) -> None:
        await ws.send("one")
        await ws.wait_closed()

    def full(messages: list[Message]) -> None:
        raise OSError(28, "No space left on device")

    wire = asyncio.run(talk(server, full, compression=None))
    assert isinstance(wire.failure, OSError)
