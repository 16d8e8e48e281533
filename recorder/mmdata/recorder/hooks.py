"""Telling others how a recording goes: a command at its end, and a monitor that expects to hear of it.

Neither can harm the recording: what fails here is a warning, and nothing waits for it while frames come.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import requests

_log = logging.getLogger(__name__)

_PING_TIMEOUT_S = (3.0, 3.0)  # to connect, between bytes


def ping(url: str) -> str | None:
    """Ask for ``url``; return the warning when that failed. Its path is a secret and stays out of it."""
    try:
        status = requests.get(url, timeout=_PING_TIMEOUT_S).status_code
    except (requests.RequestException, ValueError) as error:
        return f"ping_url: {urlsplit(url).hostname} was not told ({type(error).__name__})"
    if status >= 400:
        return f"ping_url: {urlsplit(url).hostname} answered with status {status}"
    return None


def ping_start(url: str) -> None:
    """Tell the monitor at ``url`` that a recording starts, without waiting for its answer."""

    def work() -> None:
        warning = ping(f"{url}/start")
        if warning is not None:
            _log.warning("%s", warning)

    threading.Thread(target=work, name="ping", daemon=True).start()


def ping_end(url: str, exit_code: int) -> str | None:
    """Tell the monitor at ``url`` how a recording ended; return the warning when that failed."""
    return ping(url if exit_code == 0 else f"{url}/{exit_code}")


def run_on_end(command: Sequence[str], root: str, exit_code: int, summary: Mapping[str, Any]) -> str | None:
    """Run the ``on_end`` command to its end, without a shell; return the warning when it failed.

    ``summary`` is JSON on its stdin; ``MMDATA_EXIT_CODE`` and ``MMDATA_ROOT`` are in its environment. What
    it prints goes to our stderr: stdout is for the answer.
    """
    environment = os.environ | {"MMDATA_EXIT_CODE": str(exit_code), "MMDATA_ROOT": root}
    told = json.dumps(summary, default=str).encode()
    try:
        done = subprocess.run(  # noqa: S603 the user's own command
            [*command], input=told, stdout=2, env=environment, check=False
        )
    except OSError as error:
        return f"on_end: {command[0]} cannot be run ({error.strerror or error})"
    if done.returncode != 0:
        return f"on_end: {command[0]} ended with status {done.returncode}"
    return None
