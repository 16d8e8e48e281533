"""What every command shares: its options, how it says its answer, and how it says what went wrong."""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ParamSpec

import typer

from mmdata.cli.logs import set_logging
from mmdata.datasets.errors import MmdataError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

P = ParamSpec("P")

BUG = 70
"""Exit status for a bug of ours."""

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, for machines.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more of what is done, on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.")]
Data = Annotated[
    Path,
    typer.Argument(envvar="MMDATA_DATA", help="The dataset's folder.", show_default="./data"),
]
DEFAULT_DATA = Path("data")


def command(function: Callable[P, int | None]) -> Callable[P, None]:
    """Make a function a command: its result is the exit status, an error of ours becomes a sentence.

    A bug becomes one sentence too, with the traceback in a file: exit 70.
    """

    @functools.wraps(function)
    def run(*args: P.args, **options: P.kwargs) -> None:
        as_json = bool(options.get("as_json"))
        try:
            verbose, quiet = bool(options.get("verbose")), bool(options.get("quiet"))
            set_logging(console, verbose=verbose, quiet=quiet)
            status = function(*args, **options)
        except MmdataError as error:
            fail(str(error), error.exit_code, as_json=as_json)
        except (typer.Exit, KeyboardInterrupt, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001 the last place that can say what happened
            fail(_report_bug(error), BUG, as_json=as_json)
        else:
            raise typer.Exit(status or 0)

    return run


def fail(sentence: str, status: int, *, as_json: bool) -> None:
    """Say on stderr what went wrong, and exit with ``status``."""
    if as_json:
        print(json.dumps({"schema": 1, "error": sentence, "exit": status}), file=sys.stderr)  # noqa: T201
    else:
        print(f"mmdata: {sentence}", file=sys.stderr)  # noqa: T201
    raise typer.Exit(status)


def _report_bug(error: Exception) -> str:
    handle, path = tempfile.mkstemp(prefix="mmdata-bug-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        traceback.print_exception(error, file=file)
    return f"this is a bug in mmdata ({type(error).__name__}: {error}); please report it with {path}"


def say_json(answer: dict[str, Any]) -> None:
    """Print an answer for machines."""
    print(json.dumps(answer, default=str))  # noqa: T201


@functools.cache
def console(*, stderr: bool = False) -> Console:
    """Return the console of a stream, always the same; on a file or pipe it is wide and plain."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=False)


@contextmanager
def spinner(first: str, *, quiet: bool) -> Iterator[Callable[[str], None] | None]:
    """Yield a function that says on a terminal what is being done; None elsewhere, or with ``quiet``."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.status import Status

    with Status(first, console=console(stderr=True)) as status:
        yield status.update


@dataclass(frozen=True)
class Column:
    """A column of a table for people."""

    title: str
    numeric: bool = True
    optional: bool = False
    """Left out where the terminal is too narrow for all."""
    wraps: bool = False


def words(*titles: str) -> list[Column]:
    """Return columns of words."""
    return [Column(title, numeric=False) for title in titles]


def figures(*titles: str, optional: Sequence[str] = ()) -> list[Column]:
    """Return columns of numbers."""
    return [Column(title, optional=title in optional) for title in titles]


def say_table(
    title: str, columns: Sequence[Column], rows: Iterable[Sequence[object]], *, out: Console | None = None
) -> None:
    """Print a table; optional columns give way, the last first, until it fits, and that is said."""
    out = out or console()
    made, hidden = fitting_table(title, columns, rows, out)
    out.print(made)
    if hidden:
        out.print(f"left out of this narrow terminal: {', '.join(hidden)} (--json has all)\n", style="dim")


def fitting_table(
    title: str, columns: Sequence[Column], rows: Iterable[Sequence[object]], out: Console
) -> tuple[Table, list[str]]:
    """Return a table that fits ``out``, and the titles of the optional columns that gave way for it."""
    shown = list(range(len(columns)))
    texts = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    while True:
        made = _table(title, [columns[at] for at in shown], [[row[at] for at in shown] for row in texts])
        spare = [at for at in shown if columns[at].optional]
        if not spare or _width(made, out) <= out.width:
            return made, [column.title for at, column in enumerate(columns) if at not in shown]
        shown.remove(spare[-1])


def _width(made: Table, out: Console) -> int:
    """Return how wide a table is when no column gives way; one that wraps always fits."""
    if not all(column.no_wrap for column in made.columns):
        return 0
    return out.measure(made, options=out.options.update(width=1_000)).maximum


def _table(title: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> Table:
    from rich import box
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        made.add_column(
            column.title,
            justify="right" if column.numeric else "left",
            no_wrap=not column.wraps,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    return made
