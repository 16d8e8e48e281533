"""A WebSocket connection that hands over every message within the read that completed it.

The library does the handshake, answers pings and closes; messages are split off before its queue, so
that nothing is read ahead of the capture and the stamp is as early as it can be. This leans on two
internals of `websockets`, `data_received` and `protocol.state`, which ``tests/unit/test_wire.py`` holds
fast; the version is pinned.

Source: RFC 6455 section 5.2 (frames), 5.4 (fragments); websockets 15 to 17, ``asyncio/connection.py``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.protocol import State

_WHOLE_TEXT = 0x81
_FINAL, _RESERVED, _OPCODE = 0x80, 0x70, 0x0F
_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_END_OF_HEAD = b"\r\n\r\n"
_IN_EXTENDED_16, _IN_EXTENDED_64 = 126, 127


class Splitter:
    """Splits what a server sends into messages and everything else. Pure: bytes in, messages out.

    ``take`` calls ``on_messages(messages, is_text)`` with all messages of a read at once, in parts only
    where text and binary ones alternate or something else stands between them. That goes to ``on_rest``:
    control frames, and whatever breaks the protocol or exceeds ``max_size`` bytes.
    """

    def __init__(
        self,
        on_messages: Callable[[list[bytes], bool], None],
        on_rest: Callable[[bytes], None],
        max_size: int,
    ) -> None:
        self._on_messages = on_messages
        self._on_rest = on_rest
        self._max_size = max_size
        self._begun = b""
        self._parts: list[bytes] = []
        self._opcode = _TEXT
        self._broken = False

    def take(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._broken:
            self._on_rest(data)
            return
        if self._begun:
            data = self._begun + data
        messages: list[bytes] = []
        at, end = 0, len(data)
        while end - at >= 2:
            begin, length = at + 2, data[at + 1]
            if length >= _IN_EXTENDED_16:
                begin, length = self._long_head(data, at)
            stop = begin + length
            if stop > end or self._broken:
                break
            if data[at] == _WHOLE_TEXT and not self._parts:
                messages.append(data[begin:stop])
            else:
                if messages:
                    self._on_messages(messages, True)
                    messages = []
                if not self._take_other(data[at], data[begin:stop]):
                    self._on_rest(data[at:stop])
            at = stop
        if messages:
            self._on_messages(messages, True)
        self._begun = data[at:]
        if self._broken:
            self._on_rest(self._begun)
            self._begun = b""

    def _long_head(self, data: bytes, at: int) -> tuple[int, int]:
        """Return where a long frame's payload begins and how long it is; beyond what has come if unknown.

        A length that is not allowed, or a mask, which no server may use, breaks the protocol.
        """
        code = data[at + 1]
        begin = at + (4 if code == _IN_EXTENDED_16 else 10)
        length = int.from_bytes(data[at + 2 : begin], "big")
        self._broken = code > _IN_EXTENDED_64 or (begin <= len(data) and length > self._max_size)
        return begin, length

    def _take_other(self, head: int, payload: bytes) -> bool:
        """Take a fragment or a binary message; False: it is neither."""
        opcode = head & _OPCODE
        if head & _RESERVED or opcode > _BINARY or (opcode == _CONTINUATION) != bool(self._parts):
            # Control frames may stand between fragments; the rest breaks the protocol.
            self._broken = opcode <= _BINARY or bool(head & _RESERVED)
            return False
        if opcode != _CONTINUATION:
            self._opcode = opcode
        self._parts.append(payload)
        if sum(map(len, self._parts)) > self._max_size:
            self._broken = True
            return False
        if head & _FINAL:
            whole, self._parts = b"".join(self._parts), []
            self._on_messages([whole], self._opcode == _TEXT)
        return True


class Wire(ClientConnection):
    """A client connection; calls ``on_open`` before the first message, ``on_messages`` in each read.

    ``on_messages(ts_recv, messages, is_text)`` runs inside the read. An error that it raises ends the
    connection and is kept in ``failure``.
    """

    def __init__(
        self,
        *args: Any,
        on_open: Callable[[Wire], None],
        on_messages: Callable[[int, list[bytes], bool], None],
        max_message: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._on_open = on_open
        self._on_messages = on_messages
        self._splitter = Splitter(self._hand_over, super().data_received, max_message)
        self._head = b""
        self._ts_recv = 0
        self.last_bytes_s = self.loop.time()
        """The loop's clock when anything last came, pings too."""
        self.failure: Exception | None = None

    def data_received(self, data: bytes) -> None:
        """Take what the socket gave."""
        self._ts_recv = time.time_ns()
        self.last_bytes_s = self.loop.time()
        if self.protocol.state is State.CONNECTING:
            data = self._shake_hands(data)
        if data:
            self._splitter.take(data)

    def _shake_hands(self, data: bytes) -> bytes:
        """Give the answer's head to the library; return what stands behind it."""
        before = len(self._head)
        self._head += data
        end = self._head.find(_END_OF_HEAD)
        cut = len(data) if end < 0 else end + len(_END_OF_HEAD) - before
        super().data_received(data[:cut])
        if self.protocol.state is State.OPEN:
            self._on_open(self)
            return data[cut:]
        if data[cut:]:  # the body of a refusal
            super().data_received(data[cut:])
        return b""

    def _hand_over(self, messages: list[bytes], is_text: bool) -> None:
        if self.failure is not None:
            return
        try:
            self._on_messages(self._ts_recv, messages, is_text)
        except Exception as error:  # noqa: BLE001 whoever waits for the connection's end raises it
            self.failure = error
            self.transport.abort()
