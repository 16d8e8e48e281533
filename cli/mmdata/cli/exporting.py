"""The command that writes other formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmdata.cli.shell import (
    DEFAULT_DATA,
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

if TYPE_CHECKING:
    from mmdata.datasets.exporting import ExportReport


@command
def export(
    data: Data = DEFAULT_DATA,
    to_format: Annotated[
        str, typer.Option("--format", "-f", help="csv, hftbacktest, nautilus or tardis.")
    ] = ...,  # type: ignore[assignment]
    out: Annotated[Path, typer.Option(help="The folder that the files go to.")] = ...,  # type: ignore[assignment]
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    start: Annotated[str | None, typer.Option("--from", help="ISO 8601; without zone UTC.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Half-open; a bare date is the UTC day.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Write a dataset, or some of it, in another format.

    csv keeps everything. hftbacktest (.npz, a file a day) and nautilus (a NautilusTrader catalog, needs the
    extra `nautilus`) hold the proven book and the trades, on the exchange's clock; tardis holds what was
    received, in Tardis' CSV. docs/export.md and docs/formats.md say what each drops. --from and --to are
    receive times. No file is overwritten: exit 2 where one is there already.

    Example: mmdata export data --format hftbacktest --out npz --exchange binance --symbol BTCUSDT
    """
    from mmdata.datasets.exporting import export as run

    with spinner("exporting ...", quiet=quiet or as_json) as progress:
        report = run(
            data,
            to_format,
            out,
            exchange=exchange,
            symbol=symbol,
            start=start,
            end=end,
            progress=progress,
        )
    if as_json:
        say_json(report.to_json_dict())
    elif not quiet:
        say_export(report)
    return 0


def say_export(report: ExportReport) -> None:
    """Print the files, and what their user has to know of each symbol."""
    rows = [(file.path.relative_to(report.out), file.rows, file.bytes) for file in report.files]
    say_table(f"exported to {report.out}", [*words("file"), *figures("rows", "bytes")], rows)
    out = console()
    for facts in report.symbols:
        name = f"{facts['exchange']} {facts['symbol']}"
        out.print(f"{name}: tick {facts['tick_size']}, lot {facts['lot_size']}", markup=False)
        for session in facts["sessions"]:
            shift = f"shifted by {session['shift_ns'] / 1e6:+.3f} ms ({session['source']})"
            out.print(f"clock of {session['session']}: {shift}", markup=False)
