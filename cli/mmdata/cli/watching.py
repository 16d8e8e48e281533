"""The recorder as it is seen from outside: `mmdata status`, and the table that `record` shows meanwhile."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    fitting_table,
    say_json,
    say_table,
    words,
)
from mmdata.datasets.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from mmdata.recorder.status import Status, Verdict
    from mmdata.recorder.watch import Watch, Watched

_LIVE = [
    *words("exchange"),
    *figures("frames", "per s", "lag", "gaps", "books", "last", "queue"),
    *figures("resyncs", "conns", "MB", optional=("resyncs", "conns", "MB")),
]
_RATE_LOOKS = 10  # half a second apart: the rate is that of the last five seconds


@command
def status(
    data: Data = DEFAULT_DATA,
    exchange: Annotated[str | None, typer.Option(help="Only this exchange.")] = None,
    stale_after: Annotated[
        str, typer.Option(help="A recording without a frame for so long is stale.")
    ] = "60s",
    as_json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Tell whether the recorder does what it should.

    Made for a container's health check. Exit 0: recording, waiting for its window, or ended cleanly.
    Exit 1: a recorder is gone, hangs, failed, or gets no frames; or nothing was ever recorded here.

    Example: mmdata status data --stale-after 2m
    """
    from mmdata.datasets.units import seconds
    from mmdata.recorder.status import check

    try:
        stale_after_s = seconds(stale_after)
    except ValueError as error:
        raise UsageError(f"--stale-after: {error}") from error
    now_ns = time.time_ns()
    verdicts = check(data, exchange=exchange, stale_after_s=stale_after_s, now_ns=now_ns)
    stale = not verdicts or any(verdict.stale for verdict in verdicts)
    if as_json:
        say_json(_status_json(data, verdicts, now_ns, stale=stale))
    elif not quiet:
        _say_status(data, verdicts, now_ns)
    return int(stale)


def _status_json(data: Path, verdicts: Sequence[Verdict], now_ns: int, *, stale: bool) -> dict[str, Any]:
    import msgspec

    return {
        "schema": 1,
        "root": str(data),
        "stale": stale,
        "recorders": [
            {
                "exchange": verdict.exchange,
                "stale": verdict.stale,
                "sentence": verdict.sentence,
                "last_frame_age_s": _age_s(verdict.status, now_ns),
                "status": msgspec.to_builtins(verdict.status),
            }
            for verdict in verdicts
        ],
    }


def _say_status(data: Path, verdicts: Sequence[Verdict], now_ns: int) -> None:
    if not verdicts:
        print(f"{data}: no recorder has left a status here; was another folder meant?")  # noqa: T201
        return
    rows = [
        (
            *(status.exchange, "stale" if verdict.stale else status.state),
            *(_seconds(_age_s(status, now_ns)), _lag(status.lag_p99_s, status.lag_max_s), status.gaps),
            *(_share(status.synced), _size(status.disk_free_bytes)),
        )
        for verdict in verdicts
        if (status := verdict.status) is not None
    ]
    counted = figures("last frame", "lag", "holes", "books whole", "disk free")
    say_table(f"recorders of {data}", [*words("exchange", "state"), *counted], rows)
    for verdict in verdicts:
        if verdict.stale or verdict.status is None or verdict.status.state != "recording":
            style = "bold red" if verdict.stale else None
            console().print(verdict.sentence, style=style, markup=False, soft_wrap=True)


def _age_s(status: Status | None, now_ns: int) -> float | None:
    if status is None or status.last_frame is None:
        return None
    return max(0.0, (now_ns - status.last_frame) / 1e9)


@contextmanager
def live_table(*, quiet: bool) -> Iterator[Callable[[Watch], None] | None]:
    """Yield a function that shows a job on a terminal as it goes; None elsewhere, or with ``quiet``."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.live import Live

    out = console(stderr=True)
    shown = LiveTable(out)
    # Transient: what was recorded is told by another table when it is done.
    with Live(shown.first(), console=out, transient=True, refresh_per_second=4) as live:
        yield lambda watch: live.update(shown.at(watch, time.monotonic()))


class LiveTable:
    """A row an exchange, of a job that is being recorded."""

    def __init__(self, out: Console) -> None:
        from rich.spinner import Spinner

        from mmdata.recorder.watch import RecentLag

        self._out = out
        self._spinner = Spinner("dots", "connecting ...")
        self._frames: dict[str, deque[tuple[float, int]]] = {}
        self._lags: dict[str, RecentLag] = {}

    def first(self) -> RenderableType:
        """Return what is shown before there is anything to tell."""
        return self._spinner

    def at(self, watch: Watch, now_s: float) -> RenderableType:
        """Return what is shown at ``now_s``, of a monotonic clock."""
        from rich.console import Group

        self._spinner.update(text=_headline(watch))
        rows = [self._row(seen, now_s) for seen in watch.look()]
        if not rows:
            return self._spinner
        table, _ = fitting_table("", _LIVE, rows, self._out)
        return Group(self._spinner, table)

    def _row(self, seen: Watched, now_s: float) -> tuple[object, ...]:
        from mmdata.recorder.watch import RecentLag

        counts = seen.counts
        lag = self._lags.setdefault(seen.exchange, RecentLag())
        return (
            *(seen.exchange, counts.frames, self._rate(seen.exchange, now_s, counts.frames)),
            *(_lag(lag.p99_s(counts.lags), counts.lag_max_s), counts.gaps, _share(counts.synced)),
            *(_seconds(seen.silence_s(time.time_ns())), seen.tally.pending),
            *(counts.resyncs, counts.live, f"{counts.bytes / 1e6:,.1f}"),
        )

    def _rate(self, exchange: str, now_s: float, frames: int) -> int:
        """Return the frames per second since the oldest look that is kept."""
        looks = self._frames.setdefault(exchange, deque(maxlen=_RATE_LOOKS))
        looks.append((now_s, frames))
        then_s, before = looks[0]
        return round((frames - before) / (now_s - then_s)) if now_s > then_s else 0


def _headline(watch: Watch) -> str:
    if watch.state == "recovering":
        return "ingesting what an earlier run left ..."
    if watch.state == "waiting":
        return "waiting for the window to open ..."
    if watch.state == "recording":
        return f"recording ({_size(watch.disk_free_bytes())} free) into {watch.root}"
    return f"ended ({watch.reason}); ingesting the rest ..."


def _lag(p99_s: float | None, max_s: float) -> str:
    if p99_s is not None and p99_s != float("inf"):
        return f"≤ {p99_s * 1e3:g} ms"
    return "-" if not max_s else f"{max_s * 1e3:.0f} ms"


def _seconds(age_s: float | None) -> str:
    return "-" if age_s is None else f"{age_s:,.1f} s"


def _share(synced: dict[str, bool]) -> str:
    return f"{sum(synced.values())}/{len(synced)}" if synced else "-"


def _size(free_bytes: int | None) -> str:
    if free_bytes is None:
        return "-"
    return f"{free_bytes / 1e9:,.1f} GB"
