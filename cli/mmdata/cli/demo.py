"""`mmdata demo`: the whole way of the data on a local exchange, in a minute, no account, no network."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmdata.cli.datasets import say_validation
from mmdata.cli.recording import record_line, say_record
from mmdata.cli.replaying import say_conditions, say_models, say_parameters
from mmdata.cli.shell import Json, Quiet, Verbose, command, console, say_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from mmdata.datasets.validation import ValidationReport
    from mmdata.recorder.config import Job
    from mmdata.recorder.job import RecordReport
    from mmdata.replay.result import Result

_DURATION_S = 20
_DROP_S = 8
_SIMULATED = (("binance", "BTCUSDT"), ("okx", "BTC-USDT"))


@dataclass(frozen=True)
class Demo:
    """What the demo did, step by step."""

    root: Path
    recorded: RecordReport
    healed: list[str]
    """A sentence a gap: what was lost, and when the book was whole again."""
    validation: ValidationReport
    replayed: dict[str, int]
    """Events streamed, by kind."""
    results: list[Result]
    seconds: float


@command
def demo(
    out: Annotated[
        Path | None, typer.Option(help="The dataset's folder.", show_default="./data/demo-<time>")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Record, validate, replay and simulate on a sandbox.

    Starts a local exchange, records 20 s of Binance and OKX through real sockets with one message
    withheld, makes tables, proves them, replays them, and quotes Avellaneda-Stoikov under four fill
    models. No account, no network.

    Example: mmdata demo --out /tmp/demo
    """
    root = out or Path("data") / f"demo-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    done = run_demo(root, show=sys.stderr.isatty() and not (quiet or as_json))
    if as_json:
        say_json(demo_json(done))
    elif not quiet:
        say_demo(done, console())
    return done.validation.exit_code()


def demo_job(root: Path) -> Job:
    """Return the job that the demo records: `config/demo.yaml` with one gap injected."""
    from mmdata.recorder.config import parse_job

    return parse_job(
        {
            "root": str(root),
            "sandbox": {"drop": [f"{_DROP_S}s"]},
            "venues": [
                {"exchange": "binance", "symbols": ["BTCUSDT", "ETHUSDT"]},
                {"exchange": "okx", "symbols": ["BTC-USDT", "ETH-USDT"]},
            ],
            "window": "none",
            "duration": f"{_DURATION_S}s",
        },
        "the demo",
    )


def run_demo(root: Path, *, show: bool) -> Demo:
    """Run all steps; with ``show`` tell on stderr, as it goes, what is done."""
    from mmdata.recorder.job import RecordReport, record

    begun = time.monotonic()
    with _compiling_kernels() as compiled, _Steps(show=show) as step:
        step.begin(f"recording {_DURATION_S} s of both venues", seconds=_DURATION_S)
        recorded = record(demo_job(root), progress=lambda watch: step.tell(record_line(watch)))
        assert isinstance(recorded, RecordReport)
        step.begin("compiling kernels (begun with the recording)")
        compiled.wait()
        step.begin("validating")
        from mmdata.datasets import validate
        from mmdata.replay import replay, simulate

        validation = validate(root)
        healed = healed_gaps(root)
        replayed: dict[str, int] = {}
        results = []
        for exchange, symbol in _SIMULATED:
            step.begin(f"replaying {exchange} {symbol}")
            for event in replay(root, exchange=exchange, symbol=symbol):
                name = type(event).__name__.removesuffix("Event").lower()
                replayed[name] = replayed.get(name, 0) + 1
            step.begin(f"simulating on {exchange} {symbol}")
            results.append(simulate(root, exchange=exchange, symbol=symbol, seed=1))
    return Demo(root, recorded, healed, validation, replayed, results, time.monotonic() - begun)


@contextmanager
def _compiling_kernels() -> Iterator[subprocess.Popen[bytes]]:
    """Compile the kernels in another process while the recording runs; they are found in its cache."""
    code = "from mmdata.replay import warm_up; warm_up()"
    with subprocess.Popen([sys.executable, "-c", code]) as child:  # noqa: S603 our own command
        try:
            yield child
        finally:
            child.terminate()


def healed_gaps(root: Path) -> list[str]:
    """Return a sentence a gap of the dataset's books: what was lost, and when the book was whole again."""
    import polars as pl

    from mmdata.datasets import scan

    events = (
        scan(root, "events")
        .filter((pl.col("channel") == "depth") & pl.col("kind").is_in(["gap", "synced"]))
        .sort("exchange", "symbol", "session", "frame")
        .with_columns(
            after=pl.col("kind").shift(-1).over("exchange", "symbol"),
            whole=pl.col("ts_recv").shift(-1).over("exchange", "symbol"),
        )
        .filter(pl.col("kind") == "gap")
        .collect()
    )
    sentences = []
    for row in events.iter_rows(named=True):
        lost = f"{row['symbol']} on {row['exchange']}: a message after id {row['last_id']} is missing"
        if row["after"] == "synced":
            invalid_s = (row["whole"] - row["ts_recv"]).total_seconds()
            sentences.append(f"{lost}; the book was whole again {invalid_s:.3f} s later")
        else:
            sentences.append(f"{lost}; the book was not whole again before the end")
    return sentences


class _Steps:
    """Tells each step on a terminal, with a bar where its length is known; silent elsewhere."""

    def __init__(self, *, show: bool) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/green]"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}[/dim]"),
            console=console(stderr=True),
            disable=not show,
        )
        self._task: TaskID | None = None
        self._begun = 0.0

    def __enter__(self) -> _Steps:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._end()
        self._progress.stop()

    def begin(self, name: str, *, seconds: float | None = None) -> None:
        """End the step before, and begin another; ``seconds`` is how long it will take, if that is known."""
        self._end()
        self._task = self._progress.add_task(name, total=seconds, note="")
        self._begun = time.monotonic()

    def tell(self, note: str) -> None:
        """Say how the step is coming along."""
        if self._task is not None:
            self._progress.update(self._task, completed=time.monotonic() - self._begun, note=note)

    def _end(self) -> None:
        if self._task is not None:
            self._progress.update(self._task, total=1, completed=1, note="")


def say_demo(done: Demo, out: Console) -> None:
    """Print what the demo did, where the files lie, and how they are read."""
    say_record(done.recorded)
    for sentence in done.healed:
        out.print(f"gap injected and healed: {sentence}", markup=False)
    out.print()
    say_validation(done.validation)
    counted = ", ".join(f"{count:,} {name} events" for name, count in done.replayed.items())
    out.print(f"\nreplayed {counted}, in the order of arrival, books rebuilt at each\n")
    for result in done.results:
        say_models(result)
    say_parameters(done.results[0])
    for result in done.results:
        say_conditions(result)
    out.print(f"\nall of it in {done.seconds:.0f} s; the files lie in {done.root}, and this reads them:\n")
    out.print(polars_line(done.root), style="bold", markup=False, soft_wrap=True)


def polars_line(root: Path) -> str:
    """Return the line of Python that reads the demo's trades with Polars alone."""
    pattern = root / "trades/**/*.parquet"
    return f"import polars as pl; print(pl.scan_parquet({str(pattern)!r}, hive_partitioning=True).collect())"


def demo_json(done: Demo) -> dict[str, Any]:
    """Return what the demo did, for machines."""
    from mmdata.recorder.job import describe

    return {
        "schema": 1,
        "root": str(done.root),
        "seconds": round(done.seconds, 1),
        "recorded": describe(done.recorded),
        "healed": done.healed,
        "validation": done.validation.to_json_dict(),
        "replayed": done.replayed,
        "results": [result.to_json_dict() for result in done.results],
        "polars": polars_line(done.root),
    }
