"""Log lines on stderr: for people on a terminal, one JSON object a line everywhere else.

``MMDATA_LOG=text`` or ``json`` decides it for both.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mmdata.datasets.errors import UsageError
from mmdata.recorder.logfields import current_log_fields

if TYPE_CHECKING:
    from rich.console import Console

ENVIRONMENT = "MMDATA_LOG"

_PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One object a line: ``ts`` (UTC), ``level``, ``logger``, ``message``, and what the line is about."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; ``extra`` and the fields of the task stand beside the message."""
        told: dict[str, object] = {
            "ts": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = {**current_log_fields()}
        about |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        told |= {key: value for key, value in about.items() if key not in told}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False, default=str)


def set_logging(console: Callable[..., Console], *, verbose: bool, quiet: bool) -> None:
    """Log warnings on stderr; more with ``verbose``, only errors with ``quiet``.

    On a terminal the lines go through the ``console`` of stderr: the one that shows progress prints them
    above it, instead of through it. UsageError: the environment asks for a form that there is not.
    """
    level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, handlers=[_handler(console, os.environ.get(ENVIRONMENT) or None)])


def _handler(console: Callable[..., Console], form: str | None) -> logging.Handler:
    if form not in (None, "json", "text"):
        raise UsageError(f"{ENVIRONMENT}: found {form!r}, expected json or text")
    if form == "json" or (form is None and not sys.stderr.isatty()):
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
    elif sys.stderr.isatty():
        from rich.logging import RichHandler

        handler = RichHandler(console=console(stderr=True), show_path=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return handler
