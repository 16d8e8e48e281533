"""One configuration is one recording job: read once, checked whole, before anything connects.

A key is accepted only once it works. An unknown key, a wrong type, an impossible value is refused with a
sentence that names file, key, what was found and what may stand there.
"""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
import msgspec.inspect
import pytz
import yaml
from msgspec import Meta

from mmdata.datasets.errors import ConfigError
from mmdata.datasets.units import Duration, Size, seconds, size_bytes
from mmdata.recorder.regions import REGIONS, default_region
from mmdata.recorder.window import WEEKDAYS, Weekday, parse_clock

CHANNELS: dict[str, tuple[str, ...]] = {
    "binance": ("depth@100ms", "depth", "trade", "aggTrade", "bookTicker"),
    "okx": ("books", "trades", "bbo-tbt"),
}
"""Channels that can be recorded, by exchange, by the venue's own names."""
_DEFAULT_CHANNELS = {
    "binance": ["depth@100ms", "trade", "bookTicker"],
    "okx": ["books", "trades", "bbo-tbt"],
}
_ADDRESSES = {"binance": ("https://api.binance.com", "wss://stream.binance.com:9443")}
"""Of exchanges without regions."""
_PING_URL = r"^https?://[^\s?#]+[^\s?#/]$"
_REST_URL = r"^https?://[A-Za-z0-9.\[\]:_-]+$"
_WS_URL = r"^wss?://[A-Za-z0-9.\[\]:_-]+$"
_FASTEST = 10_000
_LONGEST_S = 10 * 366 * 86_400.0
_SYMBOL = r"^[^\s/_.][^\s/]*$"
_Port = Annotated[int, Meta(ge=1, le=65_535, description="a port from 1 to 65535")]
_Clock = Annotated[str, Meta(description='a time of day in quotes, such as "08:00"')]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the configuration: immutable, and typos are errors."""


class Venue(Strict, frozen=True):
    """What is recorded of one exchange."""

    exchange: Literal["binance", "okx"]
    symbols: Annotated[
        list[Annotated[str, Meta(pattern=_SYMBOL, description="a symbol such as BTCUSDT or BTC-USDT")]],
        Meta(min_length=1),
    ]
    """The venue's own names: BTCUSDT, BTC-USDT."""
    channels: list[str] = []
    """Default: the book at 100 ms, trades, best bid and ask."""
    rest_url: (
        Annotated[str, Meta(pattern=_REST_URL, description="an address such as https://host:port")] | None
    ) = None
    ws_url: Annotated[str, Meta(pattern=_WS_URL, description="an address such as wss://host:port")] | None = (
        None
    )
    region: Literal["global", "eea", "us"] | None = None
    """Which of OKX's companies serves you; default: global. In place of addresses."""


class Window(Strict, frozen=True):
    """When to record; ``end`` at or before ``start`` is on the next day."""

    zone: str = "Europe/Berlin"
    start: _Clock = "08:00"
    end: _Clock = "22:00"
    weekdays: Annotated[list[Weekday], Meta(min_length=1)] = msgspec.field(
        default_factory=lambda: list(WEEKDAYS)
    )
    """The days on which it opens."""


class Segment(Strict, frozen=True):
    """When a capture segment is closed and turned into Parquet: at this age, or at this size."""

    seconds: Duration = "300s"
    bytes: Size = "64MiB"


class Sandbox(Strict, frozen=True):
    """How the embedded sandbox exchange behaves."""

    seed: int = 1
    speed: Annotated[float, Meta(ge=0)] = 20.0
    """Orders come this many times faster than in the reference world (71 events a second)."""
    sweep: Annotated[float, Meta(ge=0, le=1)] = 0.6
    """Share of market orders that take more than the front order; with none, no trade goes beyond it."""
    drop: list[Duration] = []
    """After so long, one book message of each venue's first symbol is withheld: a gap to be healed."""
    faults: Annotated[str, Meta(min_length=1)] | None = None
    """A file that says what else shall go wrong, as of `mmdata sandbox --faults`."""


class Job(Strict, frozen=True):
    """A recording job."""

    venues: Annotated[list[Venue], Meta(min_length=1)]
    root: str = "data"
    """The dataset's folder."""
    window: Window | Literal["none"] = Window()
    duration: Duration | None = None
    """Stop after so long, if the window has not closed before."""
    segment: Segment = Segment()
    connections: Annotated[int, Meta(ge=1, le=2)] = 1
    """Two connections record every stream twice, and are merged: one may end without a hole."""
    audit_interval: Duration | Literal["none"] = "1h"
    """How often a book of each symbol is asked for, to compare the recorded one with."""
    keep_captures: bool = True
    """Keep the frames as they came, compressed, beside the tables made from them."""
    min_free: Size = "2GiB"
    """With less free space than this the recorder warns, once a minute."""
    stop_free: Size = "256MiB"
    """With less than this it closes its captures and ends: exit 4."""
    connect_timeout: Duration = "30s"
    """Without a single frame by then, the venue is given up: exit 3."""
    stop_timeout: Duration = "4s"
    """After a signal, ingest may take so long; the rest is done at the next start."""
    on_end: Annotated[list[str], Meta(min_length=1)] | None = None
    """A command and its arguments, run when the recording has ended: a summary is on its stdin."""
    ping_url: (
        Annotated[
            str, Meta(pattern=_PING_URL, description="an address such as https://hc-ping.com/your-uuid")
        ]
        | None
    ) = None
    """Asked at the start (``/start`` added), at success, and at failure (``/<exit code>`` added)."""
    retain_days: Annotated[int, Meta(ge=1)] | None = None
    """Days of this job that are older are removed after each recording; none: everything is kept."""
    compact: bool = True
    """After each recording, make one file of each finished UTC day of each table of this job."""
    metrics_port: _Port | None = None
    """Serve Prometheus metrics on this port; without one there are none."""
    metrics_host: str = "127.0.0.1"
    """Address to serve them on; 0.0.0.0 lets other machines, and a container's host, scrape them."""
    sandbox: Sandbox | Literal["embedded"] | None = None
    """Record a local exchange started for this job, instead of the venues."""

    def channels_of(self, venue: Venue) -> list[str]:
        """Return the channels of ``venue``, the default ones where none are named."""
        return venue.channels or _DEFAULT_CHANNELS[venue.exchange]

    def addresses_of(self, venue: Venue) -> tuple[str, str]:
        """Return REST and WebSocket address of ``venue``, the real ones where none are named."""
        rest_url, ws_url = _own_addresses(venue)
        return venue.rest_url or rest_url, venue.ws_url or ws_url

    def audit_s(self) -> float | None:
        """Return the seconds between two audits of a symbol; None: there are none."""
        return None if self.audit_interval == "none" else seconds(self.audit_interval)

    def region_of(self, venue: Venue) -> str | None:
        """Return the region that ``venue`` is reached in; None: it has none, or other addresses are named."""
        region = venue.region or default_region(venue.exchange)
        elsewhere = self.sandbox is not None or self.addresses_of(venue) != _own_addresses(venue)
        return None if elsewhere else region

    def effective(self) -> dict[str, Any]:
        """Return the configuration with every default filled in, as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for venue, own in zip(plain["venues"], self.venues, strict=True):
            venue["channels"] = self.channels_of(own)
            venue["region"] = self.region_of(own)
            if self.sandbox is None:
                venue["rest_url"], venue["ws_url"] = self.addresses_of(own)
        return plain

    def fingerprint(self) -> str:
        """Return the first 12 hex digits of the sha256 over the effective configuration."""
        canonical = msgspec.json.encode(self.effective(), order="deterministic")
        return hashlib.sha256(canonical).hexdigest()[:12]


def _own_addresses(venue: Venue) -> tuple[str, str]:
    """Return the venue's own addresses in its region."""
    region = venue.region or default_region(venue.exchange)
    return _ADDRESSES[venue.exchange] if region is None else REGIONS[venue.exchange][region]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a configuration file."""
    schema = msgspec.json.schema(Job)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "mmdata recording job",
        **schema,
    }


def load_job(path: Path) -> Job:
    """Read and check a configuration file. ConfigError: it cannot be used; nothing has connected."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name a configuration file, or set CONFIG_PATH"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    try:
        content = yaml.load(text, _UniqueKeys)  # noqa: S506 a SafeLoader that refuses a key twice
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    return parse_job(content, str(path))


def parse_job(content: object, name: str) -> Job:
    """Check plain values and return them as a job; ``name`` says in errors where they came from."""
    _check(content, msgspec.inspect.type_info(Job), name, "")
    job = msgspec.convert(content, Job)
    _check_sense(job, name)
    return job


class _UniqueKeys(yaml.SafeLoader):
    """YAML without surprises: a key that stands twice is refused, not overwritten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands twice in one mapping", node.start_mark
                )
        return super().construct_mapping(node, deep)


def _check(value: object, kind: msgspec.inspect.Type, name: str, key: str) -> None:
    """Compare plain values with the types of the configuration; the first mismatch raises."""
    described = kind
    if isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    if isinstance(kind, msgspec.inspect.UnionType):
        _check_union(value, kind, name, key)
    elif isinstance(kind, msgspec.inspect.StructType):
        _check_mapping(value, kind, name, key)
    elif isinstance(kind, msgspec.inspect.ListType):
        if not isinstance(value, list) or len(value) < (kind.min_length or 0):
            raise _mismatch(name, key, value, _expected(kind))
        for at, item in enumerate(value):
            _check(item, kind.item_type, name, f"{key}[{at}]")
    else:
        try:
            msgspec.convert(value, _python_type(kind))
        except msgspec.ValidationError:
            raise _mismatch(name, key, value, _expected(described)) from None


def _check_union(value: object, kind: msgspec.inspect.UnionType, name: str, key: str) -> None:
    if isinstance(value, dict):
        for option in kind.types:
            if isinstance(option, msgspec.inspect.StructType):
                _check(value, option, name, key)
                return
    for option in kind.types:
        if isinstance(option, msgspec.inspect.StructType):
            continue
        try:
            _check(value, option, name, key)
        except ConfigError:
            continue
        return
    raise _mismatch(name, key, value, " or ".join(_expected(option) for option in kind.types))


def _check_mapping(value: object, kind: msgspec.inspect.StructType, name: str, key: str) -> None:
    fields = {field.encode_name: field for field in kind.fields}
    if not isinstance(value, dict):
        raise _mismatch(name, key, value, f"a mapping with the keys {', '.join(fields)}")
    prefix = f"{key}." if key else ""
    for found in value:
        if found not in fields:
            near = difflib.get_close_matches(str(found), fields, 1)
            hint = f", did you mean {near[0]}?" if near else "."
            raise ConfigError(
                f"{name}: {prefix}{found}: unknown key{hint} Here may stand: {', '.join(fields)}"
            )
    for field_name, field in fields.items():
        if field_name in value:
            _check(value[field_name], field.type, name, prefix + field_name)
        elif field.required:
            raise ConfigError(f"{name}: {prefix}{field_name}: is missing, expected {_expected(field.type)}")


def _mismatch(name: str, key: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{name}: {key or 'the file'}: found {value!r}, expected {expected}")


def _expected(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.Metadata):
        return str((kind.extra_json_schema or {}).get("description") or _expected(kind.type))
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(str(value) for value in kind.values)
    if isinstance(kind, msgspec.inspect.UnionType):
        return " or ".join(_expected(option) for option in kind.types)
    if isinstance(kind, msgspec.inspect.StructType):
        return f"a mapping with the keys {', '.join(field.encode_name for field in kind.fields)}"
    if isinstance(kind, msgspec.inspect.ListType):
        return "a list of at least one" if kind.min_length else "a list"
    if isinstance(kind, msgspec.inspect.FloatType | msgspec.inspect.IntType):
        least = f" of at least {kind.ge:g}" if kind.ge is not None else ""
        return ("a number" if isinstance(kind, msgspec.inspect.FloatType) else "a whole number") + least
    names = {
        msgspec.inspect.StrType: "text",
        msgspec.inspect.BoolType: "true or false",
        msgspec.inspect.NoneType: "nothing",
    }
    return names[type(kind)]


def _python_type(kind: msgspec.inspect.Type) -> Any:
    """Return the Python type of a scalar kind, with its bounds."""
    match kind:
        case msgspec.inspect.StrType(pattern=pattern, min_length=least):
            return Annotated[str, Meta(pattern=pattern, min_length=least)]
        case msgspec.inspect.FloatType(ge=ge):
            return Annotated[float, Meta(ge=ge)]
        case msgspec.inspect.IntType(ge=ge, le=le):
            return Annotated[int, Meta(ge=ge, le=le)]
        case msgspec.inspect.BoolType():
            return bool
        case msgspec.inspect.NoneType():
            return None
        case msgspec.inspect.LiteralType(values=values):
            return Literal[values]
        case _:
            raise AssertionError(f"the configuration has no {kind}")


def _check_sense(job: Job, name: str) -> None:
    """Refuse what has the right type and makes no sense."""
    seen: set[str] = set()
    for at, venue in enumerate(job.venues):
        here = f"venues[{at}]"
        if venue.exchange in seen:
            raise ConfigError(
                f"{name}: {here}.exchange: {venue.exchange} stands twice, expected each exchange once: "
                f"name all its symbols in one entry"
            )
        seen.add(venue.exchange)
        _check_names(venue, name, here)
        if job.sandbox is not None and (venue.rest_url or venue.ws_url or venue.region):
            found = "a region" if venue.region else "addresses"
            raise ConfigError(
                f"{name}: {here}: found {found} beside sandbox: embedded, expected one or the other"
            )
        _check_region(job, venue, name, here)
    _check_amounts(job, name)
    if isinstance(job.window, Window):
        _check_window(job.window, name)


def _check_names(venue: Venue, name: str, here: str) -> None:
    if {"depth", "depth@100ms"} <= {*venue.channels}:
        raise ConfigError(
            f"{name}: {here}.channels: found depth and depth@100ms, which are one book told twice; expected "
            f"one of the two"
        )
    for at, channel in enumerate(venue.channels):
        if channel not in CHANNELS[venue.exchange]:
            raise _mismatch(
                name, f"{here}.channels[{at}]", channel, f"one of {', '.join(CHANNELS[venue.exchange])}"
            )
    for key in ("rest_url", "ws_url"):
        address = getattr(venue, key)
        if address is not None and not _has_sound_port(address):
            raise _mismatch(name, f"{here}.{key}", address, "a host, and a port from 1 to 65535")
    for at, symbol in enumerate(venue.symbols):
        if symbol != symbol.upper():
            raise _mismatch(name, f"{here}.symbols[{at}]", symbol, f"capitals: {symbol.upper()}")
        if venue.symbols.count(symbol) > 1:
            raise ConfigError(f"{name}: {here}.symbols: {symbol} stands twice, expected each symbol once")


def _check_region(job: Job, venue: Venue, name: str, here: str) -> None:
    if venue.region is None:
        return
    if venue.exchange not in REGIONS:
        raise ConfigError(
            f"{name}: {here}.region: found {venue.region!r}, but {venue.exchange} is reached everywhere at "
            f"the same addresses, expected no region"
        )
    if job.addresses_of(venue) != _own_addresses(venue):  # its own may stand there: `config show` says them
        raise ConfigError(
            f"{name}: {here}: found region {venue.region} beside other addresses than its own, expected one "
            f"or the other"
        )


def _has_sound_port(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return parts.hostname is not None and parts.port != 0
    except ValueError:
        return False


def _check_amounts(job: Job, name: str) -> None:
    durations = {
        "segment.seconds": job.segment.seconds,
        "connect_timeout": job.connect_timeout,
        "stop_timeout": job.stop_timeout,
    }
    if job.audit_interval != "none":
        durations["audit_interval"] = job.audit_interval
    if job.duration is not None:
        durations["duration"] = job.duration
    if isinstance(job.sandbox, Sandbox):
        durations |= {f"sandbox.drop[{at}]": after for at, after in enumerate(job.sandbox.drop)}
        if not 0 <= job.sandbox.speed <= _FASTEST:
            raise _mismatch(name, "sandbox.speed", job.sandbox.speed, f"a number from 0 to {_FASTEST}")
    for key, text in durations.items():
        try:
            amount = seconds(text)
        except ValueError:
            raise _mismatch(name, key, text, "a duration with its unit, such as 20s or 5m") from None
        if not 0 < amount <= _LONGEST_S:
            raise _mismatch(name, key, text, "more than nothing, and at most ten years")
    if size_bytes(job.segment.bytes) <= 0:
        raise _mismatch(name, "segment.bytes", job.segment.bytes, "more than nothing")
    if size_bytes(job.stop_free) > size_bytes(job.min_free):
        raise _mismatch(name, "stop_free", job.stop_free, f"at most min_free, which is {job.min_free}")
    if "\0" in job.root or job.root.startswith("s3:"):  # an object store has no locks, and renames nothing
        raise _mismatch(name, "root", job.root, "the path of a local folder")
    for at, word in enumerate(job.on_end or ()):
        if "\0" in word or (at == 0 and not word):
            raise _mismatch(name, f"on_end[{at}]", word, "a program or one of its arguments")
    if job.ping_url is not None and not _has_sound_port(job.ping_url):
        raise _mismatch(name, "ping_url", job.ping_url, "a host, and a port from 1 to 65535")


def _check_window(window: Window, name: str) -> None:
    if window.zone not in pytz.all_timezones_set:
        near = difflib.get_close_matches(window.zone, pytz.all_timezones, 1)
        hint = f", such as {near[0]}" if near else ", such as Europe/Berlin"
        raise _mismatch(name, "window.zone", window.zone, f"a zone of the IANA database{hint}")
    clocks = []
    for key in ("start", "end"):
        try:
            clocks.append(parse_clock(getattr(window, key)))
        except ValueError:
            found = getattr(window, key)
            raise _mismatch(name, f"window.{key}", found, 'a time of day such as "08:00"') from None
    for day in window.weekdays:
        if window.weekdays.count(day) > 1:
            raise ConfigError(f"{name}: window.weekdays: {day} stands twice, expected each day once")
    if clocks[0] == clocks[1]:
        raise ConfigError(
            f"{name}: window: found start and end both at {window.start}, expected two times of day, or "
            f"window: none to record around the clock"
        )
