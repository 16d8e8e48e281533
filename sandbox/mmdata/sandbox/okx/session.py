"""A client's side of an OKX socket: subscribe, unsubscribe, text ping; one answer per argument.

Source: okx.com/docs-v5, sections "Subscribe", "Error Code / WebSocket" (July 2026).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mmdata.sandbox.okx.messages import subscription
from mmdata.sandbox.wire import Join, Leave, Reaction, Send, Style, Window, compact

if TYPE_CHECKING:
    from collections.abc import Container

REQUESTS_PER_HOUR = 480

_INVALID_REQUEST = "60012"
_INVALID_ARGS = "60013"
_TOO_FREQUENT = "60014"
_NO_SUCH_CHANNEL = "60018"
_INVALID_OP = "60019"
_UPGRADE = "64008"

_PATHS = ("/ws/v5/public", "/ws/v5/business", "/ws/v5/private")


class OkxSession:
    """What one connection is subscribed to; ``offered`` holds the keys that its path serves."""

    def __init__(self, offered: Container[str], connection: int) -> None:
        self.style = Style()
        self.keys: dict[str, None] = {}
        self._offered = offered
        # Eight hexadecimal digits that differ widely between neighbours, like the venue's.
        self._conn_id = f"{(0x32F4414F + connection * 2654435761) & 0xFFFFFFFF:08x}"
        self._rate = Window(REQUESTS_PER_HOUR, 3600.0)

    @classmethod
    def at(cls, target: str, offered: Container[str], connection: int) -> OkxSession | None:
        """Return the session of an address, None when OKX has no such path.

        All channels are public ones: on the two other paths every subscription is refused, as there.
        """
        path = urlsplit(target).path
        if path not in _PATHS:
            return None
        return cls(offered if path == "/ws/v5/public" else (), connection)

    def opened(self) -> list[Reaction]:
        """Return nothing: an address asks for nothing on OKX."""
        return []

    def receive(self, text: str, now_ns: int) -> list[Reaction]:
        """Return what a message from the client leads to."""
        if text == "ping":
            return [Send("pong")]
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, a number of thousands of digits, nested too deep
            return [self._error(_INVALID_REQUEST, f"Invalid request: {text}", None)]
        request_id = request.get("id") if isinstance(request, dict) else None
        if not isinstance(request, dict) or not _is_id(request_id):
            return [self._error(_INVALID_REQUEST, f"Invalid request: {text}", None)]
        if request.get("op") not in ("subscribe", "unsubscribe"):
            return [self._error(_INVALID_OP, f"Invalid op: {request.get('op')}", request_id)]
        if self._rate.exceeded(now_ns):
            return [self._error(_TOO_FREQUENT, "Requests too frequent", request_id)]
        args = request.get("args")
        if not isinstance(args, list) or not args or not all(map(_is_arg, args)):
            return [self._error(_INVALID_ARGS, "Invalid args", request_id)]
        carry_out = self._subscribe if request["op"] == "subscribe" else self._unsubscribe
        return [reaction for arg in args for reaction in carry_out(arg, request_id)]

    def upgrade_notice(self) -> str:
        """Return the notice that the connection will be closed for a service upgrade."""
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        return compact({"event": "notice", "code": _UPGRADE, "msg": text, "connId": self._conn_id})

    def _subscribe(self, arg: dict[str, str], request_id: str | None) -> list[Reaction]:
        key = subscription(arg["channel"], arg.get("instId", ""))
        if key not in self._offered:
            text = (
                f"Wrong URL or channel:{arg['channel']}, instId:{arg.get('instId', '')} doesn't "
                "exist. Please use the correct URL, channel and parameters referring to API document."
            )
            return [self._error(_NO_SUCH_CHANNEL, text, request_id)]
        # Subscribing again is legal and starts the channel anew: that is how a gap is mended.
        self.keys[key] = None
        return [self._event("subscribe", arg, request_id), Join(key)]

    def _unsubscribe(self, arg: dict[str, str], request_id: str | None) -> list[Reaction]:
        key = subscription(arg["channel"], arg.get("instId", ""))
        self.keys.pop(key, None)
        return [Leave(key), self._event("unsubscribe", arg, request_id)]

    def _event(self, event: str, arg: dict[str, str], request_id: str | None) -> Send:
        frame: dict[str, object] = {} if request_id is None else {"id": request_id}
        frame |= {"event": event, "arg": arg, "connId": self._conn_id}
        return Send(compact(frame))

    def _error(self, code: str, text: str, request_id: str | None) -> Send:
        frame: dict[str, object] = {} if request_id is None else {"id": request_id}
        frame |= {"event": "error", "code": code, "msg": text, "connId": self._conn_id}
        return Send(compact(frame))


def _is_id(value: Any) -> bool:
    """Return whether OKX takes this as an id: absent, or up to 32 alphanumerics."""
    if value is None:
        return True
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9]{1,32}", value) is not None


def _is_arg(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and "channel" in value
        and all(isinstance(part, str) for part in value.values())
    )
