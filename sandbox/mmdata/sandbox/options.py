"""What a sandbox is asked to be; read once, checked once, handed down as a value."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mmdata.datasets.errors import UsageError


@dataclass(frozen=True)
class SandboxOptions:
    """The options of one sandbox; UsageError when a value cannot be.

    host, port       where to listen; port 0 takes a free one
    seed             of the order flow; each market draws from its own child
    speed            time units of the flow per second; 0 leaves the markets still
    sweep            share of market orders that take more than the front order (0 in the model)
    drop             seconds after a venue's first book subscription: at each, one book message of
                     the first subscribed symbol is withheld from everybody
    faults           what shall go wrong: a script's file, or what would stand in one (docs/faults.md)
    truth            folder for what really happened, or None
    captures         capture files (or folders of segments) to play back instead of own markets
    pace             playback speed; 1 is as recorded
    heartbeat_s      OKX: silence after which an unchanged book says so
    idle_s           OKX: a socket to which nothing was sent for so long is closed
    ping_interval_s, ping_timeout_s    Binance: WebSocket pings, and how long a pong may take
    until_eof        also stop when stdin ends: dies with the parent that holds the pipe
    """

    host: str = "127.0.0.1"
    port: int = 0
    seed: int = 0
    speed: float = 20.0
    sweep: float = 0.0
    drop: tuple[float, ...] = ()
    faults: Path | dict[str, Any] | list[Any] | None = None
    truth: Path | None = None
    captures: tuple[Path, ...] = ()
    pace: float = 1.0
    heartbeat_s: float = 60.0
    idle_s: float = 30.0
    ping_interval_s: float = 20.0
    ping_timeout_s: float = 60.0
    until_eof: bool = False

    def __post_init__(self) -> None:
        _require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(self.speed >= 0, "speed", self.speed, "0 or more")
        _require(0 <= self.sweep <= 1, "sweep", self.sweep, "0 to 1")
        _require(self.pace > 0, "pace", self.pace, "more than 0")
        _require(all(t >= 0 for t in self.drop), "drop", self.drop, "times of 0 s or more")
        for name in ("heartbeat_s", "idle_s", "ping_interval_s", "ping_timeout_s"):
            value = getattr(self, name)
            _require(value > 0, name, value, "more than 0")

    @classmethod
    def from_json(cls, text: str) -> SandboxOptions:
        """Return the options that a JSON object names; UsageError for an unknown key or a wrong type."""
        try:
            given = json.loads(text)
        except ValueError as error:
            raise UsageError(f"sandbox options are not JSON: {error}") from error
        if not isinstance(given, dict):
            raise UsageError(f"sandbox options are {given!r}, must be a JSON object")
        known = {field.name for field in fields(cls)}
        for key in given:
            if key not in known:
                raise UsageError(f"sandbox option {key!r} is unknown; there are {', '.join(sorted(known))}")
        return cls(**{key: _typed(key, value) for key, value in given.items()})

    def to_json(self) -> str:
        """Return the options as JSON that ``from_json`` reads back."""
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, default=str)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"sandbox option {name} is {value}, must be {expected}")


def _typed(key: str, value: Any) -> Any:
    """Return a JSON value as the option's type; UsageError when it is of another."""
    if key in ("port", "seed"):
        right = isinstance(value, int) and not isinstance(value, bool)
    elif key == "until_eof":
        right = isinstance(value, bool)
    elif key == "host":
        right = isinstance(value, str)
    elif key == "faults":
        right = value is None or isinstance(value, str | dict | list)
        value = Path(value) if isinstance(value, str) else value
    elif key == "truth":
        right = value is None or isinstance(value, str)
        value = Path(value) if isinstance(value, str) else value
    elif key == "captures":
        right = isinstance(value, list) and all(isinstance(path, str) for path in value)
        value = tuple(Path(path) for path in value) if right else value
    elif key == "drop":
        right = isinstance(value, list) and all(_is_number(time) for time in value)
        value = tuple(value) if right else value
    else:
        right = _is_number(value)
    if not right:
        raise UsageError(f"sandbox option {key} is {value!r}, which is of the wrong type")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
