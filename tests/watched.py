"""A job as its watchers see it, with a number in every field, and a scrape of its metrics."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from mmdata.recorder.counts import Counts
from mmdata.recorder.ingest_process import Tally
from mmdata.recorder.metrics import JobCollector
from mmdata.recorder.watch import Watch, Watched

NOW = 1_795_262_400_000_000_000  # 2026-11-21T12:00:00Z
SECOND = 1_000_000_000


def full_counts() -> Counts:
    """Return counts of which no two numbers are alike."""
    counts = Counts(
        frames=101,
        bytes=102_000,
        gaps=3,
        resyncs=4,
        connections=7,
        reconnects=5,
        live=2,
        repeats=11,
        synced={"BTC-USDT": True, "ETH-USDT": False},
        last_frame={("books", "BTC-USDT"): NOW - 2 * SECOND, ("trades", "BTC-USDT"): NOW - SECOND // 2},
        clock_offset_ns=-20_000_000,
        clock_uncertainty_ns=1_500_000,
        rest_used_weight=250,
        backfilled=13,
    )
    for lag_s in (0.0001, 0.0003, 0.2, 3.0):
        counts.add_lag(lag_s)
    return counts


def full_watch(root: Path = Path(), counts: Counts | None = None) -> Watch:
    """Return a job that records OKX since a minute before `NOW`."""
    tally = Tally(rows={"depth": 900, "trades": 80}, quarantined=6, pending=1)
    own = Watched("okx", "20261121T115900Z-abcdef", NOW - 60 * SECOND, counts or full_counts(), tally)
    watch = Watch(
        root,
        ["okx"],
        NOW + 3600 * SECOND,
        min_free_bytes=2 << 30,
        stop_free_bytes=1 << 28,
        state="recording",
        begun_ns=NOW - 61 * SECOND,
    )
    watch.look = lambda: [own]
    return watch


def scrape(watch: Watch) -> list[Metric]:
    """Return the metrics of a job as a scraper reads them at `NOW`."""
    registry = CollectorRegistry()
    registry.register(JobCollector(watch, now_ns=lambda: NOW))
    return [*text_string_to_metric_families(generate_latest(registry).decode())]
