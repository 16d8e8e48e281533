"""The commands of the replay."""

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
)
from mmdata.datasets.errors import UsageError

if TYPE_CHECKING:
    from mmdata.replay.result import Result


@command
def replay(
    data: Data = DEFAULT_DATA,
    exchange: Annotated[str, typer.Option(help="binance, binance-usdm or okx.")] = ...,  # type: ignore[assignment]
    symbol: Annotated[str, typer.Option(help="The venue's own name.")] = ...,  # type: ignore[assignment]
    start: Annotated[str | None, typer.Option("--from", help="ISO 8601; without zone UTC.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Half-open; a bare date is the UTC day.")] = None,
    strategy: Annotated[
        str, typer.Option(help="avellaneda-stoikov, or FILE.py:NAME of your own.")
    ] = "avellaneda-stoikov",
    fills: Annotated[
        str, typer.Option(help="Fill models, all in one run; at-or-through and hybrid, too.")
    ] = "price-cross,trade-through,poisson,l2-queue",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="name=value, such as gamma=0.01; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the random fill models.")] = 0,
    clock: Annotated[str, typer.Option(help="mapped, or raw where no latency is negative.")] = "mapped",
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Quote over a recording, under several fill models.

    Avellaneda-Stoikov quotes, or a strategy of your own; each fill model says which quotes would have
    filled. A, k, sigma and the order size, where needed and not set, are estimated from the first tenth
    (at most a day), which is then not traded. Exit 2: an unknown strategy, model or setting, a strategy
    that fails, or nothing to replay.

    Example: mmdata replay data --exchange binance --symbol BTCUSDT --set gamma=0.001 --seed 7
    """
    from mmdata.replay import simulate

    result = simulate(
        data,
        exchange=exchange,
        symbol=symbol,
        start=start,
        end=end,
        strategy=strategy,
        fills=fills,
        settings=_settings(settings or []),
        seed=seed,
        clock=clock,
        curve=False,
    )
    if as_json:
        say_json(result.to_json_dict())
    elif not quiet:
        say_result(result)
    return 0


def _settings(given: list[str]) -> dict[str, str]:
    parsed: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: expected name=value, such as gamma=0.01")
        if name in parsed:
            raise UsageError(f"--set {name}: stands twice, expected each setting once")
        parsed[name] = value
    return parsed


def say_result(result: Result) -> None:
    """Print the models' table, the parameters and the clock."""
    say_models(result)
    say_parameters(result)
    say_conditions(result)


def say_models(result: Result) -> None:
    """Print a row a fill model; the title leads with the band of results."""
    from mmdata.replay.result import TABLE, money

    low, high = result.band
    title = (
        f"{result.exchange} {result.symbol}: {result.strategy} earns {money(low)} to {money(high)} by fill "
        f"model (book valid {result.covered:.2%})"
    )
    columns = [Column(c.title, c.numeric, optional=c.key in _SPARE) for c in TABLE]
    say_table(title, columns, [[row[c.key] for c in TABLE] for row in result.rows()])


_SPARE = ("buys", "sells", "volume", "fees", "max_inventory", "rejected")


def say_parameters(result: Result) -> None:
    """Print a row a parameter: value, unit, where it comes from."""
    from mmdata.replay.result import PARAMETER_TABLE

    columns = [Column(c.title, c.numeric, wraps=c.key == "source") for c in PARAMETER_TABLE]
    rows = [[row[c.key] for c in PARAMETER_TABLE] for row in result.parameter_rows()]
    say_table(f"parameters (seed {result.seed})", columns, rows)


def say_conditions(result: Result) -> None:
    """Print what the result rests on: the clock of each session, the touch, and what speaks against it."""
    out = console()
    for session in result.clock.sessions:
        shift = f"shifted by {session.shift_ns / 1e6:+.3f} ms ({session.source})"
        out.print(f"clock of {session.session}: {shift}", markup=False)
    touches = {"bbo": "the recorded best bid and offers", "depth": "the book messages alone"}
    out.print(f"touch of {result.exchange} {result.symbol}: {touches[result.touch]}", markup=False)
    for warning in result.warnings:
        out.print(f"warning: {warning}", style="yellow", markup=False)
