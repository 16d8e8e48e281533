"""The command that unites two datasets, and how a comparison of two is said."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.shell import (
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

if TYPE_CHECKING:
    from mmdata.datasets.comparing import Comparison
    from mmdata.datasets.merging import MergeReport


_WHAT = {"first": "A lacks ids", "second": "B lacks ids", "different": "different under ids"}


@command
def merge(
    one: Annotated[Path, typer.Argument(help="A dataset's folder.")],
    other: Annotated[Path, typer.Argument(help="That of another recording of the same streams.")],
    out: Annotated[Path, typer.Option(help="The new dataset's folder; there must not be one.")],
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Unite two recordings of the same streams by id in a new dataset.

    Of each message the first that came is taken, a hole of one is filled from the other, and what neither
    has stays on record as a gap. Both datasets stay as they are. The new one appears whole, or not at all.

    Example: mmdata merge tokyo/data dublin/data --out united
    """
    from mmdata.datasets.merging import merge as run

    with spinner("merging ...", quiet=quiet or as_json) as progress:
        report = run(one, other, out, exchange=exchange, symbol=symbol, progress=progress)
    if as_json:
        say_json(report.to_json_dict())
    elif not quiet:
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
        _say_merge(report, (one, other))
    return 0


def _say_merge(report: MergeReport, roots: tuple[Path, Path]) -> None:
    tables = dict.fromkeys(table for table, _ in sorted(report.taken))
    rows = [(table, *(report.taken[table, conn] for conn in (0, 1)), report.rows[table]) for table in tables]
    title = f"{report.session}: {roots[0]} (conn 0) and {roots[1]} (conn 1) into {report.out}"
    say_table(title, [*words("table"), *figures("messages of 0", "messages of 1", "rows")], rows)
    console().print(f"{report.repeats:,} messages were in both, {report.gaps:,} holes are in both")


def say_comparison(found: Comparison) -> None:
    """Print what each lacks, and the first ids of it."""
    rows = [
        (
            *(own.exchange, own.symbol, f"{own.table} {own.kind}".strip(), own.both, *own.lacking),
            *(own.different, *own.outside),
            "-" if own.lag_ns is None else f"{own.lag_ns / 1e6:.3f}",
        )
        for own in found.tables
    ]
    counts = figures(
        *("in both", "A lacks", "B lacks", "different", "A beyond", "B beyond", "B - A, ms"),
        optional=("A beyond", "B beyond"),
    )
    title = f"A: {found.first}, B: {found.second}"
    say_table(title, [*words("exchange", "symbol", "table"), *counts], rows)
    out = console()
    for own in found.tables:
        whole = f"{own.symbol} on {own.exchange}, {own.table} {own.kind}".strip()
        if not own.both:
            out.print(f"{whole}: nothing is in both", markup=False)
        for what, ids in own.ids.items():
            if ids:
                out.print(f"{whole}: {_WHAT[what]} {', '.join(map(str, ids))} ...", markup=False)
    differ = sum(own.differs for own in found.tables)
    out.print(
        f"{differ} of {len(found.tables)} differ", style="bold red" if differ else "bold green", markup=False
    )
