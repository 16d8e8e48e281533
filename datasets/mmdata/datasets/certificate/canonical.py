"""The form of a certificate: JSON of which the same facts have the same bytes, sealed by its own sha256.

Keys sorted by code point, no spaces, UTF-8 unescaped where JSON allows, integers in full, no floats, no line
end: RFC 8785, but for integers beyond 2^53, which that form cannot tell apart and this one writes out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from mmdata.datasets.errors import DatasetError
from mmdata.datasets.stores import Place

FORMAT = 1
"""Version of the certificate's format."""
SEAL = "sha256"
"""The key of a certificate's own sha256, which is over the canonical form of everything else."""
MADE = "made"
"""The key of what cannot be derived again: version, host, time."""

Facts = dict[str, Any]


def canonical(facts: Facts) -> bytes:
    """Return the one form of ``facts``. TypeError, ValueError: a float or another thing without one.

    >>> canonical({"b": [1, None], "a": "é"}).decode()
    '{"a":"é","b":[1,null]}'
    """
    _refuse_floats(facts)
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError(f"{value!r} is a float, which has no exact form in a certificate")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_floats(inner)


def seal(facts: Facts) -> Facts:
    """Return ``facts`` with their own sha256."""
    unsealed = {key: value for key, value in facts.items() if key != SEAL}
    return {**unsealed, SEAL: hashlib.sha256(canonical(unsealed)).hexdigest()}


def read(path: Place) -> Facts:
    """Return a certificate that is whole: canonical, its own sha256 right, of a format that we know.

    DatasetError: it is not; the sentence says what differs. FileNotFoundError: there is none.
    """
    data = path.read_bytes()
    try:
        facts: Facts = json.loads(data)
        own = facts[SEAL]
        expected = seal(facts)[SEAL]
        if canonical(facts) != data:
            raise ValueError("its bytes are not in the canonical form")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(f"{path}: is no certificate as mmdata writes them ({error})") from error
    if own != expected:
        raise DatasetError(
            f"{path}: its own sha256 is off: found {str(own)[:80]}, expected {expected}; it was changed "
            f"after it was made"
        )
    if facts.get("format") != FORMAT:
        raise DatasetError(
            f"{path}: is of format {facts.get('format')!r}, this mmdata knows {FORMAT}: a newer one reads it"
        )
    return facts


def derived(facts: Facts) -> Facts:
    """Return what of a certificate can be derived again."""
    return {key: value for key, value in facts.items() if key not in (SEAL, MADE)}
