"""How a frame is spoilt: text in, text out; what is left to chance is drawn from the given generator."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

_PAYLOAD = re.compile(r'"data":\[?\{')
_PADDING = "padding"


def truncate(text: str, count: int | None, draw: Random) -> str:
    """Return the first ``count`` characters, or a part that is neither empty nor whole."""
    return text[: draw.randrange(1, len(text)) if count is None else count]


def break_json(text: str, draw: Random) -> str:
    """Return the text without one of its quotation marks: an odd number of them is never JSON."""
    marks = [at for at, letter in enumerate(text) if letter == '"']
    if not marks:  # another fault has left nothing to break
        return text
    at = draw.choice(marks)
    return text[:at] + text[at + 1 :]


def add_field(text: str, name: str, value: object) -> str:
    """Return the text with one more field at the head of its payload.

    >>> add_field('{"stream":"s","data":{"e":"trade"}}', "xf", [1])
    '{"stream":"s","data":{"xf":[1],"e":"trade"}}'
    >>> add_field('{"u":1}', "xf", None)
    '{"xf":null,"u":1}'
    """
    match = _PAYLOAD.search(text)
    at = match.end() if match else text.index("{") + 1
    return f"{text[:at]}{json.dumps(name)}:{_compact(value)},{text[at:]}"


def change_type(text: str, name: str | None, draw: Random) -> str:
    """Return the text with a value of another type in one field of its payload.

    As it is when the payload has no such field, or when another fault has left no JSON.

    >>> from random import Random
    >>> change_type('{"stream":"s","data":{"u":5,"p":"1.5"}}', "u", Random(0))
    '{"stream":"s","data":{"u":"5","p":"1.5"}}'
    """
    try:
        frame = json.loads(text)
    except ValueError:
        return text
    payload = frame.get("data", frame)
    while isinstance(payload, list):
        payload = payload[0]
    chosen = draw.choice(sorted(payload)) if name is None else name
    if chosen not in payload:
        return text
    payload[chosen] = _other_type(payload[chosen])
    return _compact(frame)


def pad(text: str, size: int) -> str:
    """Return the text made so many bytes long by a field of padding; never shorter than it is."""
    empty = add_field(text, _PADDING, "")
    return add_field(text, _PADDING, "x" * max(size - len(empty.encode()), 0))


def _other_type(value: Any) -> object:
    """Return a value that a reader of this one does not expect: numbers and texts change places."""
    if isinstance(value, str):
        try:
            return json.loads(value) if not isinstance(json.loads(value), str) else None
        except ValueError:
            return 0
    if isinstance(value, list):
        return {}
    return json.dumps(value)


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
