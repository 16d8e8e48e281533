"""The command that says what a dataset holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.shell import (
    DEFAULT_DATA,
    Column,
    Data,
    Json,
    Quiet,
    Verbose,
    command,
    console,
    figures,
    say_json,
    say_table,
    spinner,
    words,
)
from mmdata.datasets.layout import NO_SYMBOL

if TYPE_CHECKING:
    from mmdata.datasets.contents import Catalog, Holding

_TABLES = ("depth", "snapshots", "trades", "bbo", "events")
_SPARE = ("snapshots", "bbo", "events", "files", "sessions")


@command
def ls(
    data: Data = DEFAULT_DATA,
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Say what a dataset holds: symbols, days, rows, bytes, coverage.

    Covered is the share of the recorded time in which the book is proven: by the certificates, else (~) by
    the gaps on record. DATA may be s3://bucket/prefix. --json tells each day, and sessions.

    Example: mmdata ls data --exchange binance
    """
    from mmdata.datasets.contents import catalog

    with spinner("looking ...", quiet=quiet or as_json):
        found = catalog(data, exchange=exchange, symbol=symbol)
    if as_json:
        say_json(found.to_json_dict())
    elif not quiet:
        say_catalog(found)
    return 0


def say_catalog(found: Catalog) -> None:
    """Print a row a symbol, and what could not be read."""
    rows = [
        (
            *(held.exchange, held.symbol, len(held.days), held.days[0].date, held.days[-1].date),
            *(held.rows.get(table, 0) for table in _TABLES),
            *(held.bytes, held.files, len(held.sessions), _covered(held), _state(held)),
        )
        for held in found.symbols
    ]
    counts = [Column(name, optional=name in _SPARE) for name in (*_TABLES, "bytes", "files", "sessions")]
    columns = [
        *words("exchange", "symbol"),
        *figures("days", "first", "last", optional=("first",)),
        *counts,
        *figures("covered"),
        *words("state"),
    ]
    symbols = sum(held.symbol != NO_SYMBOL for held in found.symbols)
    say_table(f"{found.root}: {symbols} symbols", columns, rows)
    for sentence in found.unreadable:
        console().print(f"warning: {sentence}; its rows are not counted", style="yellow", markup=False)


def _covered(held: Holding) -> str:
    if held.coverage is None:
        return "-"
    return f"{'' if held.coverage_from == 'certificates' else '~'}{held.coverage:.2%}"


def _state(held: Holding) -> str:
    """Return how many days have a certificate, and whether one is being recorded."""
    certified = sum(day.certified for day in held.days)
    words = {0: "not certified", len(held.days): "certified"}.get(certified, f"{certified} certified")
    return f"{words}, open" if any(day.open for day in held.days) else words
