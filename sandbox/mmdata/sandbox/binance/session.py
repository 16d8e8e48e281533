"""A client's side of a Binance spot socket: its address, its control messages, its rate limit.

Source: binance-spot-api-docs ``web-socket-streams.md`` (July 2026). What a misspelt symbol does is
not documented; it has long been seen accepted and silent, and so it is here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mmdata.sandbox.binance.messages import stamp, wrap
from mmdata.sandbox.wire import Close, Join, Leave, Reaction, Send, Style, Window, compact

MAX_STREAMS = 1024
MESSAGES_PER_SECOND = 5

_UNKNOWN_PROPERTY = 0
_INVALID_TYPE = 1
_INVALID_REQUEST = 2
_INVALID_JSON = 3

_METHODS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"


class BinanceSession:
    """Subscriptions in the order in which they were made, and the style of the frames."""

    def __init__(self, streams: list[str], style: Style) -> None:
        self.style = style
        self.streams: dict[str, None] = dict.fromkeys(streams)
        self._rate = Window(MESSAGES_PER_SECOND, 1.0)
        self._methods: dict[str, Callable[[Any], list[Reaction] | _Refusal]] = {
            "SUBSCRIBE": self._subscribe,
            "UNSUBSCRIBE": self._unsubscribe,
            "LIST_SUBSCRIPTIONS": self._list,
            "SET_PROPERTY": self._set_property,
            "GET_PROPERTY": self._get_property,
        }
        self._result: object = None

    @classmethod
    def at(cls, target: str) -> BinanceSession | None:
        """Return the session of an address, None when Binance has no such path.

        ``/ws``, ``/ws/<stream>[/<stream>...]``: bare payloads. ``/stream[?streams=a/b]``: combined.
        ``timeUnit=MICROSECOND`` holds for every time of the connection.
        """
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        unit = query.get("timeUnit", ["MILLISECOND"])[0].upper()
        if unit not in ("MILLISECOND", "MICROSECOND"):
            return None
        if parts.path == "/stream":
            named, combined = query.get("streams", [""])[0], True
        elif parts.path == "/ws" or parts.path.startswith("/ws/"):
            named, combined = unquote(parts.path)[len("/ws/") :], False
        else:
            return None
        streams = [stream for stream in named.split("/") if stream]
        if len(streams) > MAX_STREAMS:
            return None
        return cls(streams, Style(combined, unit == "MICROSECOND"))

    def opened(self) -> list[Reaction]:
        """Return what the address asked for."""
        return [Join(stream) for stream in self.streams]

    def receive(self, text: str, now_ns: int) -> list[Reaction]:
        """Return what a control message leads to."""
        if self._rate.exceeded(now_ns):
            return [Close(1008, "Too many requests")]
        try:
            request = json.loads(text)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno} column {error.colno}"
            return [_error(_INVALID_JSON, f"Invalid JSON: expected value at {place}")]
        except (ValueError, RecursionError):  # a number of thousands of digits; nested too deep
            return [_error(_INVALID_JSON, "Invalid JSON: recursion or number limit exceeded")]
        if not isinstance(request, dict):
            return [_error(_INVALID_REQUEST, "Invalid request: expected an object")]
        if "id" not in request or not _is_id(request["id"]):
            text = "Invalid request: request ID must be an unsigned integer"
            return [_error(_INVALID_REQUEST, text)]
        return self._carry_out(request)

    def shutdown(self, shape: str, now_ns: int) -> str:
        """Return the notice that the server will close; the WebSocket API wraps it in ``event``."""
        notice = f'{{"e":"serverShutdown","E":{stamp(now_ns, self.style.micro)}}}'
        if shape == "event":
            return f'{{"event":{notice}}}'
        combined = self.style.combined if shape == "auto" else shape == "combined"
        return wrap("!serverShutdown", notice, Style(combined))

    def _carry_out(self, request: dict[str, Any]) -> list[Reaction]:
        request_id = request["id"]
        method = request.get("method")
        if method is None:
            missing = "Invalid request: missing field `method`"
            return [_error(_INVALID_REQUEST, missing, request_id)]
        if not isinstance(method, str) or method not in self._methods:
            unknown = f"Invalid request: unknown variant `{method}`, expected one of {_METHODS}"
            return [_error(_INVALID_REQUEST, unknown, request_id)]
        self._result = None
        reactions = self._methods[method](request.get("params"))
        if isinstance(reactions, _Refusal):
            return [_error(reactions.code, reactions.text, request_id)]
        reply = compact({"result": self._result, "id": request_id})
        return [Send(reply), *reactions]

    def _subscribe(self, params: object) -> list[Reaction] | _Refusal:
        streams = _names(params)
        if streams is None:
            return _Refusal(_INVALID_REQUEST, "Invalid request: params must be stream names")
        new = [stream for stream in dict.fromkeys(streams) if stream not in self.streams]
        if len(self.streams) + len(new) > MAX_STREAMS:
            return _Refusal(_INVALID_REQUEST, "Invalid request: too many parameters")
        self.streams.update(dict.fromkeys(new))
        return [Join(stream) for stream in new]

    def _unsubscribe(self, params: object) -> list[Reaction] | _Refusal:
        streams = _names(params)
        if streams is None:
            return _Refusal(_INVALID_REQUEST, "Invalid request: params must be stream names")
        gone = [stream for stream in dict.fromkeys(streams) if stream in self.streams]
        for stream in gone:
            del self.streams[stream]
        return [Leave(stream) for stream in gone]

    def _list(self, params: object) -> list[Reaction] | _Refusal:
        if params:
            return _Refusal(_INVALID_REQUEST, "Invalid request: too many parameters")
        self._result = list(self.streams)
        return []

    def _set_property(self, params: object) -> list[Reaction] | _Refusal:
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            return _Refusal(_INVALID_REQUEST, "Invalid request: property name must be a string")
        if len(params) > 2:
            return _Refusal(_INVALID_REQUEST, "Invalid request: too many parameters")
        if params[0] != "combined":
            return _Refusal(_UNKNOWN_PROPERTY, "Unknown property")
        if len(params) < 2 or not isinstance(params[1], bool):
            return _Refusal(_INVALID_TYPE, "Invalid value type: expected Boolean")
        self.style = self.style._replace(combined=params[1])
        return []

    def _get_property(self, params: object) -> list[Reaction] | _Refusal:
        if not isinstance(params, list) or not params or not isinstance(params[0], str):
            return _Refusal(_INVALID_REQUEST, "Invalid request: property name must be a string")
        if len(params) > 1:
            return _Refusal(_INVALID_REQUEST, "Invalid request: too many parameters")
        if params[0] != "combined":
            return _Refusal(_UNKNOWN_PROPERTY, "Unknown property")
        self._result = self.style.combined
        return []


class _Refusal:
    """Why a request is not carried out."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        self.text = text


def _names(params: object) -> list[str] | None:
    if not isinstance(params, list) or not all(isinstance(name, str) for name in params):
        return None
    return params


def _is_id(value: object) -> bool:
    """Return whether Binance takes this as an id: a signed 64-bit integer, 36 alphanumerics, null."""
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9-]{1,36}", value) is not None


_NO_ID = object()


def _error(code: int, text: str, request_id: object = _NO_ID) -> Send:
    frame: dict[str, object] = {"code": code, "msg": text}
    if request_id is not _NO_ID:
        frame["id"] = request_id
    return Send(compact(frame))
