"""``python -m mmdata.sandbox '<options as JSON>'``: print one line of addresses, then serve.

The line: ``{"binance":{"rest_url":..,"ws_url":..},"okx":{..},"pid":..}``.
"""

from __future__ import annotations

import json
import os
import sys

from mmdata.datasets.errors import MmdataError
from mmdata.sandbox import SandboxOptions, serve


def main(argv: list[str]) -> int:
    """Serve with the options given as JSON (none: the defaults); return the exit status."""
    try:
        options = SandboxOptions.from_json(argv[0] if argv else "{}")
        serve(options, _announce)
    except MmdataError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


def _announce(addresses: dict[str, dict[str, str]]) -> None:
    sys.stdout.write(json.dumps({**addresses, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
