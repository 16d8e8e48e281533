"""The commands of the recorder and of the sandbox exchange."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli.shell import (
    DEFAULT_DATA,
    Column,
    Data,
    Json,
    Quiet,
    Verbose,
    command,
    figures,
    say_json,
    say_table,
    words,
)
from mmdata.cli.watching import live_table
from mmdata.datasets.errors import UsageError

if TYPE_CHECKING:
    from mmdata.datasets.formats.plain_csv import CsvReport
    from mmdata.datasets.formats.session import TableReport
    from mmdata.recorder.config import Job
    from mmdata.recorder.importing import ImportReport
    from mmdata.recorder.job import RecordReport
    from mmdata.recorder.watch import Watch

config = typer.Typer(
    name="config", help="The effective configuration, and what may stand in one.", no_args_is_help=True
)

_Config = Annotated[
    Path | None,
    typer.Argument(
        envvar="CONFIG_PATH", help="A recording job, such as config/demo.yaml.", show_default=False
    ),
]


@command
def record(
    config: _Config = None,
    root: Annotated[Path | None, typer.Option(help="The dataset's folder, instead of the job's.")] = None,
    duration: Annotated[str | None, typer.Option(help="Stop after so long, such as 20s or 1h.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Before the window: wait until it opens.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Look at all that the job needs, record nothing.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Record until the window closes, then make tables.

    Made for cron and `docker run`. What an earlier run left is ingested first. SIGTERM and Ctrl-C end
    cleanly: captures synced, exit 0.
    Before the window, without --wait: says when it opens, exit 0. Exit 2: configuration, lock, or a
    symbol that the venue does not have; 3: not one frame came in time; 4: disk.
    With --check: window, disk, lock, proxy, venue, clock, symbols; exit 0, or that of the first that fails.

    Example: mmdata record config/binance.yaml --root /data
    """
    import msgspec

    from mmdata.recorder.config import load_job, parse_job
    from mmdata.recorder.job import RecordReport, describe
    from mmdata.recorder.job import record as run

    if config is None:
        raise UsageError(
            "no configuration: name a file, or set CONFIG_PATH; config/demo.yaml is one to start with"
        )
    job = load_job(config)
    if root is not None or duration is not None:
        plain: dict[str, Any] = msgspec.to_builtins(job)
        plain |= {"root": str(root)} if root is not None else {}
        plain |= {"duration": duration} if duration is not None else {}
        job = parse_job(plain, "the command line")
    if check:
        return _check(config, job, as_json=as_json, quiet=quiet)
    with live_table(quiet=quiet or as_json) as progress:
        outcome = run(job, wait=wait, progress=progress)
    if not isinstance(outcome, RecordReport):
        opens = outcome.start.isoformat()
        if as_json:
            say_json({"schema": 1, "recorded": False, "window_opens": opens})
        elif not quiet:
            print(f"the window opens at {opens} (--wait waits for it); nothing was recorded")  # noqa: T201
        return 0
    if as_json:
        say_json(describe(outcome))
    elif not quiet:
        say_record(outcome)
    return 0


def _check(config: Path, job: Job, *, as_json: bool, quiet: bool) -> int:
    """Say what the job needs and whether it is there; return the exit code of the first that fails."""
    import dataclasses

    from mmdata.recorder.check import check, exit_code

    findings = check(job)
    status = exit_code(findings)
    if as_json:
        told = [dataclasses.asdict(finding) for finding in findings]
        say_json({"schema": 1, "config": str(config), "exit": status, "checks": told})
    elif not quiet:
        rows = [(finding.part, finding.status, finding.found) for finding in findings]
        columns = [*words("part", "status"), Column("found", numeric=False, wraps=True)]
        say_table(f"{config}: would it record?", columns, rows)
    return status


def say_record(report: RecordReport) -> None:
    """Print what a job did, a row a venue."""
    names = ("depth", "snapshots", "trades", "bbo")
    rows = [
        (
            *(venue.exchange, venue.session, venue.counts.frames, venue.counts.gaps),
            *(venue.ingest.rows.get(name, 0) for name in names),
            *(venue.ingest.quarantined, venue.ingest.pending),
        )
        for venue in report.venues
    ]
    spare = ("snapshots", "quarantined", "segments left")
    counted = figures("frames", "gaps", *names, "quarantined", "segments left", optional=spare)
    say_table(f"recorded into {report.root}", [*words("exchange", "session"), *counted], rows)
    if report.removed:
        print(f"removed, since older than retain_days: {len(report.removed)} folders")  # noqa: T201
        for path in report.removed:
            print(f"  {path}")  # noqa: T201
    if report.certified:
        print(f"certified: {report.certified} days of a symbol (`mmdata verify` compares them)")  # noqa: T201
    if report.compacted:
        print(f"compacted: {report.compacted} finished days of a table, each to one file")  # noqa: T201


def record_line(watch: Watch) -> str:
    """Return one line on what each exchange's session has done so far."""
    return "   ".join(
        f"{seen.exchange}: {seen.counts.frames:,} frames, {seen.counts.gaps} gaps, "
        f"books {sum(seen.counts.synced.values())}/{len(seen.counts.synced)} whole"
        for seen in watch.look()
    )


@command
def schedule(
    configs: Annotated[list[Path], typer.Argument(help="Recording jobs, such as config/binance.yaml.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line for each event.")] = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Record many jobs in their windows, day after day, until SIGTERM or Ctrl-C.

    Each recorder is a process of its own, started a minute before its window opens, or at once if it is
    open; without a window it runs always. One that dies (exit 3 or 70, a signal) is started again, after
    1 to 60 s; exit 2 and 4 are told, and tried again when the next window opens. The configuration is
    read at each opening. The signal goes on to the recorders, and a second one ends them at once. Exit 2:
    a configuration, or two of them recording one exchange into one dataset.

    Example: mmdata schedule config/binance.yaml config/okx.yaml --json
    """
    from mmdata.recorder.schedule import Happening
    from mmdata.recorder.schedule import schedule as run

    options = ["--verbose"] * verbose + ["--quiet"] * quiet

    def command_of(config: Path) -> list[str]:
        words = ["record", str(config), "--wait", "--json", *options]
        return [sys.executable, "-m", "mmdata.cli.main", *words]

    def tell(happening: Happening) -> None:
        if as_json:
            say_json(happening.to_json_dict())
        elif not quiet:
            which = "" if happening.config is None else f"{happening.config}: "
            print(f"{happening.at:%Y-%m-%dT%H:%M:%SZ} {which}{happening.text}")  # noqa: T201
        sys.stdout.flush()

    run(configs, command_of, tell)
    return 0


@command
def recover(
    data: Data = DEFAULT_DATA, as_json: Json = False, verbose: Verbose = False, quiet: Quiet = False
) -> int:
    """Make tables and certificates of what a dead recorder left.

    Every `record` does it first. Exit 1: a segment could not be ingested, or a day not certified; it stays.

    Example: mmdata recover /data
    """
    from mmdata.recorder.segments import recover_all

    report, segments = recover_all(data)
    for failure in report.failures:
        print(f"mmdata: {failure}", file=sys.stderr)  # noqa: T201
    if as_json:
        answer = {"schema": 1, "segments": [str(path) for path in segments], "rows": dict(report.rows)}
        told = {"warnings": report.warnings, "failures": report.failures}
        say_json(answer | {"quarantined": report.quarantined, "certified": report.certified} | told)
    elif not quiet:
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
        rows = sum(report.rows.values())
        print(  # noqa: T201
            f"{len(segments)} segments ingested, {rows:,} rows; {report.certified} days of a symbol certified"
        )
    return 1 if report.failures else 0


@command
def import_(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Files, one stream in the order given; a dataset too with --compare."),
    ],
    source_format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="mmdata, hftbacktest, cryptofeed, tardis, csv, binance-public or okx-public.",
        ),
    ] = "mmdata",
    exchange: Annotated[str | None, typer.Option(help="binance, binance-usdm or okx.")] = None,
    symbol: Annotated[
        str | None, typer.Option(help="Names the symbol where the source does not, filters elsewhere.")
    ] = None,
    out: Annotated[Path, typer.Option(envvar="MMDATA_DATA", help="The dataset's folder.")] = DEFAULT_DATA,
    tick: Annotated[str | None, typer.Option(help="Tick size of --symbol; else derived, and said.")] = None,
    lot: Annotated[str | None, typer.Option(help="Lot size of --symbol; else derived, and said.")] = None,
    instruments: Annotated[
        Path | None, typer.Option(help="YAML with tick and lot by symbol: BTCUSDT: ['0.01', '0.00001'].")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Import nothing: compare by id with this dataset.")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Import recordings into a dataset, or compare them with one.

    Reads our own captures, hftbacktest's collector files, cryptofeed's logs, Tardis CSV, and the public
    archives of Binance and OKX. Importing the same bytes again changes nothing. Exit 1: a line could not be
    decoded; it lies in the table quarantine. With --compare: which book messages and trades each lacks and
    which differ, exit 1 if any does; a source may be a dataset itself.

    Example: mmdata import btcusdt_20240808.gz -f hftbacktest --exchange binance --symbol BTCUSDT --out data
    """
    from mmdata.datasets.formats.importing import read_grid

    grid = None if instruments is None else read_grid(instruments)
    if tick is not None or lot is not None:
        if tick is None or lot is None or symbol is None:
            raise UsageError("--tick and --lot go together, with the --symbol that they are of")
        grid = (grid or {}) | {symbol: (tick, lot)}
    asked = {"source_format": source_format, "exchange": exchange, "symbol": symbol, "grid": grid}
    if compare is not None:
        return _compare(sources, compare, asked, as_json=as_json, quiet=quiet)
    report = _run_import(sources, out, asked)
    if as_json:
        say_json(_import_json(report))
    elif not quiet:
        _say_import(report, out)
    return 1 if report.quarantined else 0


def _run_import(
    sources: list[Path], out: Path, asked: dict[str, Any]
) -> ImportReport | TableReport | CsvReport:
    from mmdata.datasets.formats.importing import READERS, import_tables
    from mmdata.recorder.importing import FORMATS, import_sources

    wanted = asked["source_format"]
    if wanted not in (known := (*FORMATS, *READERS, "csv")):
        raise UsageError(f"format {wanted!r} is not known, expected one of {', '.join(known)}")
    if wanted == "csv":
        return _run_csv_import(sources, out, asked)
    run = import_tables if wanted in READERS else import_sources
    return run(sources, out, **asked)


def _run_csv_import(sources: list[Path], out: Path, asked: dict[str, Any]) -> CsvReport:
    from mmdata.datasets.formats.plain_csv import import_csv

    if asked["grid"]:
        raise UsageError(
            "csv: tick and lot were named, but its files hold the dataset's own instruments; nothing was "
            "imported"
        )
    return import_csv(sources, out, exchange=asked["exchange"], symbol=asked["symbol"])


def _compare(sources: list[Path], other: Path, asked: dict[str, Any], *, as_json: bool, quiet: bool) -> int:
    """Compare sources, or a dataset, with a dataset; what is imported for it goes again."""
    import tempfile

    from mmdata.cli.merging import say_comparison
    from mmdata.datasets.comparing import compare

    only = {"exchange": asked["exchange"], "symbol": asked["symbol"]}
    with tempfile.TemporaryDirectory(prefix="mmdata-compare-") as folder:
        if len(sources) == 1 and sources[0].is_dir():
            found = compare(sources[0], other, **only)
        else:
            _run_import(sources, Path(folder), asked)
            found = compare(Path(folder), other, **only, told=" ".join(map(str, sources)))
    if as_json:
        say_json(found.to_json_dict() | {"exit": found.exit_code()})
    elif not quiet:
        say_comparison(found)
    return found.exit_code()


def _import_json(report: ImportReport | TableReport | CsvReport) -> dict[str, Any]:
    return {
        "schema": 1,
        "session": report.session,
        "exchange": report.exchange,
        "gaps": report.gaps,
        "accounting": dict(report.accounting()),
        "certified": report.certified,
        "derived": {symbol: [f"{tick:f}", f"{lot:f}"] for symbol, (tick, lot) in report.derived.items()},
        "warnings": report.warnings,
    }


def _say_import(report: ImportReport | TableReport | CsvReport, out: Path) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)  # noqa: T201
    rows = [(what, count) for what, count in report.accounting() if count]
    rows.append(("gaps in the chains", report.gaps))
    title = f"{report.session}: {report.exchange} into {out}"
    say_table(title, [*words("what"), *figures("count")], rows)
    for symbol, (tick, lot) in report.derived.items():
        print(f"{symbol}: tick {tick:f}, lot {lot:f} (derived from the values seen)")  # noqa: T201


@command
def sandbox(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8700,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    seed: Annotated[int, typer.Option(help="Of the order flow.")] = 1,
    speed: Annotated[float, typer.Option(help="Times the reference flow of 71 events a second.")] = 20.0,
    sweep: Annotated[
        float, typer.Option(help="Share of market orders that take more than the front order.")
    ] = 0.0,
    drop: Annotated[
        str, typer.Option(help="Withhold one book message a venue after so long each: 6s,13s,20s.")
    ] = "",
    faults: Annotated[
        Path | None, typer.Option(help="A script of what shall go wrong, such as examples/faults.yaml.")
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Folder to keep what was sent and every order.")] = None,
    capture: Annotated[
        list[Path] | None, typer.Option(help="Serve this capture instead of a market.")
    ] = None,
    pace: Annotated[float, typer.Option(help="Serve a capture so many times faster.")] = 1.0,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Run a local exchange, until Ctrl-C.

    It speaks the protocols of Binance spot and OKX. Its addresses go into a recording job as rest_url and
    ws_url. With --truth, everything that it sent, every order's life and its own books are kept, to
    compare a recording with. With --faults, what goes wrong on venues goes wrong here, by time or by
    message, and the truth says what was done. Exit 2: a key or a kind that may not stand in the script.

    Example: mmdata sandbox --port 0 --faults examples/faults.yaml --truth /tmp/truth
    """
    from mmdata.datasets.units import seconds
    from mmdata.sandbox import SandboxOptions, serve

    try:
        drops = tuple(seconds(after) for after in drop.split(",") if after)
    except ValueError as error:
        raise UsageError(f"--drop: {error}") from error
    options = SandboxOptions(
        host=host,
        port=port,
        seed=seed,
        speed=speed,
        sweep=sweep,
        drop=drops,
        faults=faults,
        truth=truth,
        captures=tuple(capture or ()),
        pace=pace,
    )

    def announce(addresses: dict[str, Any]) -> None:
        if as_json:
            say_json({"schema": 1, **addresses})
        elif not quiet:
            for exchange, urls in addresses.items():
                if isinstance(urls, dict):
                    print(f"{exchange}: rest_url: {urls['rest_url']}  ws_url: {urls['ws_url']}")  # noqa: T201
        sys.stdout.flush()

    serve(options, announce)
    return 0


@config.command("show")
@command
def config_show(
    config: _Config = None, as_json: Json = False, verbose: Verbose = False, quiet: Quiet = False
) -> int:
    """Show a job's effective configuration: every default filled in.

    Example: mmdata config show config/binance.yaml
    """
    import yaml

    from mmdata.recorder.config import load_job

    if config is None:
        raise UsageError("no configuration: name a file, or set CONFIG_PATH")
    effective = load_job(config).effective()
    if as_json:
        say_json({"schema": 1, "job": effective})
    else:
        print(yaml.safe_dump(effective, sort_keys=False, allow_unicode=True), end="")  # noqa: T201
    return 0


@config.command("schema")
@command
def config_schema(as_json: Json = False, verbose: Verbose = False, quiet: Quiet = False) -> int:
    """Print the JSON Schema of a configuration file.

    The answer is JSON with and without --json.

    Example: mmdata config schema > job.schema.json
    """
    import json

    from mmdata.recorder.config import json_schema

    print(json.dumps(json_schema(), indent=2))  # noqa: T201
    return 0
