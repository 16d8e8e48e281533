"""The commands of the dataset toolkit."""

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
    from mmdata.datasets.compaction import CompactionReport
    from mmdata.datasets.validation import ValidationReport


@command
def validate(
    data: Data = DEFAULT_DATA,
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    date: Annotated[str | None, typer.Option(help="Only this UTC date, YYYY-MM-DD.")] = None,
    thresholds: Annotated[
        Path | None,
        typer.Option(help="YAML file of what counts as too much; see config/validation/thresholds.yaml."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 for a warning too.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Prove a dataset's files, chains, books and clocks.

    Streams each symbol once, in bounded memory. Exit 1: a finding of severity error. A recorded hole, a clock
    that is behind are warnings. Days that a recorder still writes are checked as far as they are published.

    Example: mmdata validate data --exchange binance --symbol BTCUSDT
    """
    from mmdata.datasets.validation import Thresholds, read_thresholds
    from mmdata.datasets.validation import validate as run

    limits = Thresholds() if thresholds is None else read_thresholds(thresholds)
    with spinner("validating ...", quiet=quiet or as_json) as progress:
        report = run(data, exchange=exchange, symbol=symbol, date=date, thresholds=limits, progress=progress)
    if as_json:
        say_json(report.to_json_dict() | {"exit": report.exit_code(strict=strict)})
    elif not quiet:
        say_validation(report)
    return report.exit_code(strict=strict)


def say_validation(report: ValidationReport) -> None:
    """Print figures, latencies and findings."""
    out = console()
    rows = [
        (
            *(own.exchange, own.symbol, own.messages, own.chain_breaks, own.unrecorded_breaks),
            *(f"{own.valid_share:.2%}", own.trades, own.trade_holes),
            f"{own.bbo_equal:,} of {own.bbo_compared:,}" if own.bbo_compared else "-",
            f"{own.checksums_equal:,} of {own.checksums:,}" if own.checksums else "-",
        )
        for own in report.symbols
    ]
    proven = figures("messages", "breaks", "unrecorded", "valid", "trades", "holes", optional=("holes",))
    equal = figures("bbo equal", "checksums", optional=("checksums",))
    say_table(f"validated {report.root}", [*words("exchange", "symbol"), *proven, *equal], rows)
    latencies = [
        (
            *(own.exchange, own.symbol, line.channel + (" corrected" if line.corrected else "")),
            *(f"{ns / 1e6:.3f}" for ns in (line.min, line.p50, line.p90, line.p99, line.p999, line.max)),
            f"{line.negative_share:.1%}",
        )
        for own in report.symbols
        for line in own.latencies
    ]
    quantiles = figures("min", "p50", "p90", "p99", "p99.9", "max", "negative", optional=("p90", "p99.9"))
    title = "latency, ts_recv - ts_event, ms"
    say_table(title, [*words("exchange", "symbol", "channel"), *quantiles], latencies)
    for finding in report.findings:
        told = (("session", finding.session), ("frame", finding.frame), ("id", finding.id))
        place = ", ".join(f"{name} {value}" for name, value in told if value is not None)
        symbol = "" if finding.symbol == "_" else f" {finding.symbol}"
        out.print(
            f"{finding.severity}: {finding.check}: {finding.exchange}{symbol}: {finding.sentence}"
            + (f" ({place})" if place else ""),
            markup=False,
        )
    errors, warnings = report.count("error"), report.count("warning")
    out.print(f"{errors} errors, {warnings} warnings", style="bold red" if errors else "bold green")


@command
def compact(
    data: Data = DEFAULT_DATA,
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Only this symbol.")] = None,
    date: Annotated[str | None, typer.Option(help="Only this UTC date, YYYY-MM-DD.")] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Make one file of each day of a table.

    Order and values stay; each day is swapped for its file in one step, so readers and recorders may go on.
    Days that a recorder still writes are left. `mmdata record` does this at its end, unless its job says
    `compact: false`. Exit 1: a day was left since a file of it is damaged.

    Example: mmdata compact data --exchange binance
    """
    from mmdata.datasets.compaction import compact as run

    with spinner("compacting ...", quiet=quiet or as_json) as progress:
        report = run(data, exchange=exchange, symbol=symbol, date=date, progress=progress)
    if as_json:
        say_json(report.to_json_dict() | {"exit": report.exit_code()})
    elif not quiet:
        say_compaction(report)
    return report.exit_code()


def say_compaction(report: CompactionReport) -> None:
    """Print the days that were compacted, and those that were not, with the reason."""
    rows = [
        (
            *(found.day.date, found.day.exchange, found.day.symbol),
            found.day.table + ("-wide" if found.wide else ""),
            *(found.files, found.rows, found.bytes_before, found.bytes_after),
        )
        for found in report.done
    ]
    if rows:
        sizes = figures("files", "rows", "bytes before", "bytes after", optional=("bytes before",))
        title = f"compacted in {report.root}, each to one file"
        say_table(title, [*words("date", "exchange", "symbol", "table"), *sizes], rows)
    out = console()
    for sentence in (*report.skipped, *report.failures):
        out.print(sentence, markup=False)
    out.print(
        f"{len(rows)} compacted, {report.left} were one file already, {len(report.skipped)} skipped, "
        f"{len(report.failures)} failed",
        style="bold red" if report.failures else "bold green",
    )
