"""A fault script: YAML or plain values in, checked faults out; a sentence for what cannot stand there."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mmdata.datasets.errors import ConfigError
from mmdata.datasets.times import duration_ns
from mmdata.sandbox.faults.kinds import KINDS, Fault, Size, Span, Step

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SIZE = re.compile(r"([0-9]+)(B|KiB|MiB)")
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")


class FaultScript(NamedTuple):
    """Faults in the order of the script; ``seed`` of every choice, None where the sandbox's own holds."""

    faults: tuple[Fault, ...]
    seed: int | None = None


def load_script(path: Path) -> FaultScript:
    """Read a script. ConfigError names the file, what was found and what may stand there."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    return parse_script(content, str(path))


def parse_script(content: object, name: str = "faults") -> FaultScript:
    """Check plain values: a list of faults, or a mapping of ``seed`` and ``faults``.

    ``name`` says in errors (ConfigError) where the values came from.

    >>> script = parse_script([{"kind": "drop", "at": "5s", "venue": "okx"}])
    >>> script.faults[0].kind, int(script.faults[0].at)
    ('drop', 5000000000)
    """
    seed = None
    if isinstance(content, dict):
        _refuse_unknown(content, ("seed", "faults"), name)
        seed = content.get("seed")
        if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or seed < 0):
            raise ConfigError(f"{name}: seed: found {seed!r}, expected a whole number of at least 0")
        content = content.get("faults")
    if not isinstance(content, list):
        raise ConfigError(f"{name}: faults: found {content!r}, expected a list of faults")
    return FaultScript(tuple(_fault(item, f"{name}: faults[{at}]") for at, item in enumerate(content)), seed)


def _fault(item: object, here: str) -> Fault:
    if not isinstance(item, dict):
        raise ConfigError(f"{here}: found {item!r}, expected a mapping with the key kind")
    kind = item.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        found = "is missing" if kind is None else f"found {kind!r}{_hint(kind, KINDS)}"
        raise ConfigError(f"{here}: kind: {found}, expected one of {', '.join(KINDS)}")
    here, cls = f"{here} ({kind})", KINDS[kind]
    fields = {entry.encode_name: entry for entry in msgspec.structs.fields(cls)}
    _refuse_unknown(item, ("kind", *fields), here)
    for key, entry in fields.items():
        if entry.required and key not in item:
            raise ConfigError(f"{here}: {key}: is missing")
    try:
        return msgspec.convert(item, cls, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{here}: {_sentence(str(error), item, fields)}") from error


def _refuse_unknown(content: Mapping[Any, object], known: tuple[str, ...], here: str) -> None:
    for key in content:
        if key not in known:
            hint = _hint(str(key), known)
            raise ConfigError(f"{here}: {key}: unknown key{hint}. Here may stand: {', '.join(known)}")


def _hint(found: object, known: Any) -> str:
    near = difflib.get_close_matches(str(found), known, 1)
    return f" (did you mean {near[0]}?)" if near else ""


def _decode(kind: type, value: object) -> object:
    """Return a value with a unit as a number."""
    if kind is Size:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("expected a size with its unit, such as 17MiB")
        return Size(int(match[1]) * _UNITS[match[2]])
    text = value if isinstance(value, str) else ""
    sign = -1 if kind is Step and text.startswith("-") else 1
    bare = text.lstrip("+-") if kind is Step else text
    ns = duration_ns(bare) if bare and not bare[-1].isdigit() else None
    if ns is None or ns < 0:
        raise ValueError("expected a duration with its unit, such as 5s or 250ms")
    return (Step if kind is Step else Span)(sign * ns)


def _sentence(text: str, item: Mapping[str, object], fields: Mapping[str, Any]) -> str:
    """Return msgspec's complaint in our words: key, what was found, what was expected."""
    place = _PLACE.search(text)
    said = _PLACE.sub("", text)
    if place is None or place[1] not in fields:
        return said  # what a kind says of itself is a sentence already
    expected = said if said.startswith("expected") else f"expected {_expected(fields[place[1]].type)}"
    return f"{place[1]}: found {item.get(place[1])!r}, {expected}"


def _expected(kind: object) -> str:
    info = kind if isinstance(kind, msgspec.inspect.Type) else msgspec.inspect.type_info(kind)
    match info:
        case msgspec.inspect.UnionType(types=types):
            return " or ".join(_expected(t) for t in types if not isinstance(t, msgspec.inspect.NoneType))
        case msgspec.inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
        case msgspec.inspect.IntType(ge=least, le=most):
            bounds = [f"of at least {least}"] if least is not None else []
            bounds += [f"at most {most}"] if most is not None else []
            return " and ".join([f"a whole number {bounds[0]}", *bounds[1:]])
        case msgspec.inspect.BoolType():
            return "true or false"
        case _:
            return "text"
