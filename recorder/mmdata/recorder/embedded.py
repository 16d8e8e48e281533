"""The sandbox exchange in a child process, for a job that says ``sandbox: embedded``.

Started by its command, not imported: the sandbox stands above the recorder, and must share no code.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import msgspec

from mmdata.datasets.errors import ConfigError, VenueError
from mmdata.datasets.units import seconds
from mmdata.recorder.config import Job, Sandbox

Addresses = dict[str, tuple[str, str]]
"""REST and WebSocket address by exchange."""


def addresses(job: Job) -> contextlib.AbstractContextManager[Addresses]:
    """Return where the job's venues are, as a context: an embedded sandbox runs as long as it lasts."""
    if job.sandbox is None:
        return contextlib.nullcontext({venue.exchange: job.addresses_of(venue) for venue in job.venues})
    return embedded_sandbox(Sandbox() if job.sandbox == "embedded" else job.sandbox)


@contextlib.contextmanager
def embedded_sandbox(sandbox: Sandbox) -> Iterator[Addresses]:
    """Run a sandbox exchange on a free port; it ends with the context, or with this process.

    ConfigError: it refused its options, and said why on stderr. VenueError: it did not start.
    """
    options = {
        "port": 0,
        "seed": sandbox.seed,
        "speed": sandbox.speed,
        "sweep": sandbox.sweep,
        "drop": [seconds(after) for after in sandbox.drop],
        "faults": sandbox.faults,
        "until_eof": True,
    }
    command = [sys.executable, "-m", "mmdata.sandbox", json.dumps(options)]
    with subprocess.Popen(  # noqa: S603 our own command
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            line = child.stdout.readline()
            if not line and child.wait() == ConfigError.exit_code:
                raise ConfigError(
                    f"sandbox: the exchange refuses what the job says of it (faults: {sandbox.faults}); its "
                    f"own sentence stands above, and nothing is recorded"
                )
            yield _read_addresses(line)
        finally:
            child.stdin.close()
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()


def _read_addresses(line: bytes) -> Addresses:
    try:
        found = msgspec.json.decode(line)
    except msgspec.DecodeError as error:
        raise VenueError(f"the sandbox exchange did not start: it said {line!r}") from error
    return {
        name: (urls["rest_url"], urls["ws_url"]) for name, urls in found.items() if isinstance(urls, dict)
    }
