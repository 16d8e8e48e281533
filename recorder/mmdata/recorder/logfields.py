"""What a log line is about (exchange, session), told once for a whole task and those that it starts.

The sentences name it for people; a program that reads the lines gets it as fields of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_fields: ContextVar[Mapping[str, str]] = ContextVar("mmdata_log_fields", default={})  # noqa: B039 never changed


@contextmanager
def log_fields(**fields: str) -> Iterator[None]:
    """Give every log line from within the block, and from tasks that are started in it, these fields.

    >>> with log_fields(exchange="okx"):
    ...     current_log_fields()
    {'exchange': 'okx'}
    """
    token = _fields.set({**_fields.get(), **fields})
    try:
        yield
    finally:
        _fields.reset(token)


def current_log_fields() -> Mapping[str, str]:
    """Return the fields that a log line from here has."""
    return _fields.get()
