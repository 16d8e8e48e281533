"""Prometheus metrics of a job, read from its counts when they are scraped: recording costs nothing more.

Served by the HTTP server of prometheus-client in a thread of its own, from a registry of our own: a
program that records with this library keeps its global one. `docs/monitoring.md` lists every metric.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mmdata.datasets.errors import UsageError
from mmdata.datasets.version import version
from mmdata.recorder.counts import LAG_BOUNDS_S, Counts
from mmdata.recorder.watch import Watch, Watched

_PREFIX = "mmdata_recorder_"

_COUNTERS: tuple[tuple[str, str, Callable[[Watched], int]], ...] = (
    ("frames", "Frames received, over all connections.", lambda seen: seen.counts.frames),
    ("received_bytes", "Bytes of the frames received.", lambda seen: seen.counts.bytes),
    ("gaps", "Holes in a chain of sequence ids; each is on record.", lambda seen: seen.counts.gaps),
    ("resyncs", "Times that a fresh book was asked for after a gap.", lambda seen: seen.counts.resyncs),
    ("connections", "Connections opened.", lambda seen: seen.counts.connections),
    ("reconnects", "Connections opened in place of a lost one.", lambda seen: seen.counts.reconnects),
    ("repeats", "Messages that another connection had brought before.", lambda seen: seen.counts.repeats),
    ("backfilled_trades", "Trades fetched over REST to fill a hole.", lambda seen: seen.counts.backfilled),
    ("quarantined", "Capture lines that could not be decoded.", lambda seen: seen.tally.quarantined),
)

_GAUGES: tuple[tuple[str, str, Callable[[Watched], float | None]], ...] = (
    ("live_connections", "Connections that are open.", lambda seen: seen.counts.live),
    ("pending_segments", "Closed capture segments that wait for ingest.", lambda seen: seen.tally.pending),
    (
        "clock_offset_seconds",
        "The venue's clock minus ours, as measured last.",
        lambda seen: _seconds(seen.counts.clock_offset_ns),
    ),
    (
        "clock_uncertainty_seconds",
        "Half of the round trip that the clock offset was measured with.",
        lambda seen: _seconds(seen.counts.clock_uncertainty_ns),
    ),
    (
        "rest_used_weight",
        "Request weight used in this minute, as the venue said last.",
        lambda seen: seen.counts.rest_used_weight,
    ),
)


class JobCollector(Collector):
    """Reads a job's counts at each scrape."""

    def __init__(self, watch: Watch, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._watch = watch
        self._now_ns = now_ns

    def collect(self) -> Iterable[Metric]:
        """Yield every metric as it is now."""
        now_ns, seen = self._now_ns(), self._watch.look()
        yield from _of_the_job(self._watch)
        for name, told, count in _COUNTERS:
            counter = CounterMetricFamily(_PREFIX + name, told, labels=["exchange"])
            for own in seen:
                counter.add_metric([own.exchange], count(own))
            yield counter
        for name, told, read in _GAUGES:
            gauge = GaugeMetricFamily(_PREFIX + name, told, labels=["exchange"])
            for own in seen:
                value = read(own)
                if value is not None:
                    gauge.add_metric([own.exchange], value)
            yield gauge
        yield _silences(seen if self._watch.state == "recording" else (), now_ns)
        yield _rows(seen)
        yield _lag(seen)
        yield _frame_ages(seen, now_ns)
        yield _books(seen)


def _of_the_job(watch: Watch) -> Iterator[Metric]:
    build = {"version": version(), "python": platform.python_version()}
    yield InfoMetricFamily(_PREFIX + "build", "The version that records.", build)
    ends = float("inf") if watch.window_end_ns is None else watch.window_end_ns / 1e9
    told = "When the window closes; +Inf: it records until it is stopped."
    yield GaugeMetricFamily(_PREFIX + "window_end_timestamp_seconds", told, ends)
    free = watch.disk_free_bytes()
    if free is not None:
        told = "What the file system of the dataset still takes."
        yield GaugeMetricFamily(_PREFIX + "disk_free_bytes", told, free)
    if watch.min_free_bytes is not None:
        told = "The job's min_free: with less the recorder warns."
        yield GaugeMetricFamily(_PREFIX + "disk_min_free_bytes", told, watch.min_free_bytes)
    if watch.stop_free_bytes is not None:
        told = "The job's stop_free: with less the recorder ends."
        yield GaugeMetricFamily(_PREFIX + "disk_stop_free_bytes", told, watch.stop_free_bytes)


def _rows(seen: Iterable[Watched]) -> Metric:
    rows = CounterMetricFamily(_PREFIX + "rows", "Rows published.", labels=["exchange", "table"])
    for own in seen:
        for table, count in own.tally.rows.copy().items():
            rows.add_metric([own.exchange, table], count)
    return rows


def _lag(seen: Iterable[Watched]) -> Metric:
    told = "From a socket read to the end of its write to the capture."
    lag = HistogramMetricFamily(_PREFIX + "lag_seconds", told, labels=["exchange"])
    for own in seen:
        lag.add_metric([own.exchange], _buckets(own.counts), own.counts.lag_sum_s)
    return lag


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    bounds = [*map(str, LAG_BOUNDS_S), "+Inf"]
    return [*zip(bounds, accumulate(counts.lags.copy()), strict=True)]


def _silences(seen: Iterable[Watched], now_ns: int) -> Metric:
    told = "Since the newest frame of any stream, or the start when none came yet; while it records."
    silences = GaugeMetricFamily(_PREFIX + "silence_seconds", told, labels=["exchange"])
    for own in seen:
        silences.add_metric([own.exchange], own.silence_s(now_ns))
    return silences


def _frame_ages(seen: Iterable[Watched], now_ns: int) -> Metric:
    told = "Since the newest frame of the stream."
    labels = ["exchange", "channel", "symbol"]
    ages = GaugeMetricFamily(_PREFIX + "last_frame_age_seconds", told, labels=labels)
    for own in seen:
        for stream, received_ns in own.counts.last_frame.copy().items():
            ages.add_metric([own.exchange, *stream], max(0.0, (now_ns - received_ns) / 1e9))
    return ages


def _books(seen: Iterable[Watched]) -> Metric:
    told = "1: the book is whole; 0: it waits for a snapshot."
    books = GaugeMetricFamily(_PREFIX + "book_whole", told, labels=["exchange", "symbol"])
    for own in seen:
        for symbol, whole in own.counts.synced.copy().items():
            books.add_metric([own.exchange, symbol], whole)
    return books


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / 1e9


@contextmanager
def serving_metrics(watch: Watch, host: str, port: int) -> Iterator[None]:
    """Serve the metrics of a job on ``http://host:port/metrics`` until the block ends.

    UsageError: the address cannot be listened on.
    """
    registry = CollectorRegistry()
    registry.register(JobCollector(watch))
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, OverflowError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UsageError(
            f"metrics_port: {host}:{port} cannot be listened on ({problem}); "
            f"nothing has connected: free the port, or name another"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
