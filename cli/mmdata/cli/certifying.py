"""The commands of certificates: make them, and derive them again."""

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
    say_json,
    say_table,
    spinner,
    words,
)

if TYPE_CHECKING:
    from mmdata.datasets.certificate import CertifyReport, VerifyReport

_Exchange = Annotated[str | None, typer.Option(help="Only this exchange.")]
_Symbol = Annotated[str | None, typer.Option(help="Only this symbol.")]
_Date = Annotated[str | None, typer.Option(help="Only this UTC date, YYYY-MM-DD.")]


@command
def verify(
    data: Data = DEFAULT_DATA,
    exchange: _Exchange = None,
    symbol: _Symbol = None,
    date: _Date = None,
    captures: Annotated[
        bool, typer.Option("--captures/--no-captures", help="Count the lines of kept captures again.")
    ] = True,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Compare a dataset with its certificates.

    Every file's bytes, then all that the certificates say, derived again from the rows, and the accounting
    from the captures that were kept. Nothing is changed. Days that a recorder still writes are left. Exit 1:
    any difference; a day without a certificate is one.

    Example: mmdata verify data --exchange binance --date 2026-11-21
    """
    from mmdata.datasets import verify as run
    from mmdata.recorder.segments import recount

    with spinner("verifying ...", quiet=quiet or as_json) as progress:
        report = run(
            data,
            exchange=exchange,
            symbol=symbol,
            date=date,
            recount=recount if captures else None,
            progress=progress,
        )
    if as_json:
        say_json(report.to_json_dict() | {"exit": report.exit_code()})
    elif not quiet:
        say_verification(report)
    return report.exit_code()


def say_verification(report: VerifyReport) -> None:
    """Print the differences, and how much is as its certificates say."""
    out = console()
    if report.differences:
        columns = [
            *words("exchange", "symbol", "date"),
            *(Column(name, numeric=False, wraps=True) for name in ("what", "expected", "found")),
        ]
        rows = [
            (found.exchange, found.symbol, found.date, found.field, str(found.expected), str(found.found))
            for found in report.differences
        ]
        say_table(f"differences in {report.root}", columns, rows)
        for found in report.differences:
            out.print(found.sentence, markup=False)
    for sentence in (*report.skipped, *report.notes):
        out.print(sentence, markup=False)
    out.print(
        f"{len(report.verified)} days of a symbol are as certified ({report.rows:,} rows, {report.recounted} "
        f"captures counted again), {len(report.differences)} differences, {len(report.skipped)} open",
        style="bold red" if report.differences else "bold green",
    )


@command
def certify(
    data: Data = DEFAULT_DATA,
    exchange: _Exchange = None,
    symbol: _Symbol = None,
    date: _Date = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Make the certificates that are lacking.

    `record`, `recover` and `import` do it at their end; this is for days that were recorded before there were
    certificates. One that is there is never replaced by another that its files do not bear out: look at it
    with `mmdata verify`. Exit 1: a day cannot be certified.

    Example: mmdata certify data
    """
    from mmdata.datasets import certify as run

    with spinner("certifying ...", quiet=quiet or as_json) as progress:
        report = run(data, exchange=exchange, symbol=symbol, date=date, progress=progress)
    if as_json:
        say_json(report.to_json_dict() | {"exit": report.exit_code()})
    elif not quiet:
        say_certification(report)
    return report.exit_code()


def say_certification(report: CertifyReport) -> None:
    """Print the days that were certified, and those that were not, with the reason."""
    if report.done:
        say_table(f"certified in {report.root}", words("exchange", "symbol", "date"), report.done)
    out = console()
    for sentence in (*report.warnings, *report.skipped, *report.failures):
        out.print(sentence, markup=False)
    out.print(
        f"{len(report.done)} certified, {report.left} had their certificate, {len(report.skipped)} skipped, "
        f"{len(report.failures)} failed",
        style="bold red" if report.failures else "bold green",
    )
