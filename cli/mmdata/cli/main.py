"""`mmdata`: record market data, prove it, replay it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mmdata.cli import catalog, certifying, datasets, demo, exporting, merging, recording, replaying, watching
from mmdata.cli.shell import fail

app = typer.Typer(
    name="mmdata",
    help="Market data you can trust, and fills you can believe: record it, prove it, replay it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("record")(recording.record)
app.command("schedule")(recording.schedule)
app.command("status")(watching.status)
app.command("recover")(recording.recover)
app.command("import")(recording.import_)
app.command("ls")(catalog.ls)
app.command("validate")(datasets.validate)
app.command("verify")(certifying.verify)
app.command("certify")(certifying.certify)
app.command("compact")(datasets.compact)
app.command("merge")(merging.merge)
app.command("export")(exporting.export)
app.command("replay")(replaying.replay)
app.command("sandbox")(recording.sandbox)
app.add_typer(recording.config, name="config")


def _say_version(value: bool) -> None:
    if value:
        from mmdata.datasets.version import version

        print(f"mmdata {version()}")  # noqa: T201
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Market data you can trust, and fills you can believe: record it, prove it, replay it.

    Start with `mmdata demo`: everything on a local sandbox exchange, in a minute, no account, no network.
    """


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status: 0 done, 1 defects, 2 usage, 3 venue, 4 disk, 70 bug."""
    args = list(sys.argv[1:] if argv is None else argv)
    if os.getpid() == 1:
        # The system takes no default action for SIGTERM in a container's first process: without a handler
        # `docker stop` would wait in vain. `record` sets its own.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        status = app(args=args, prog_name="mmdata", standalone_mode=False)
    except typer.Exit as done:
        status = done.exit_code
    except typer.Abort:
        status = 130
    except Exception as error:
        # Wrong usage: the parser's own errors carry their sentence and status.
        if not hasattr(error, "format_message"):
            raise
        try:
            fail(f"{error.format_message()} See mmdata --help.", 2, as_json="--json" in args)
        except typer.Exit as done:
            status = done.exit_code
    sys.exit(status or 0)


if __name__ == "__main__":
    main()
