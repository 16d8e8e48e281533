"""Metrics: each number of the counts under its name, read at the scrape and never before."""

from __future__ import annotations

import math
import re
import socket
from pathlib import Path

import prometheus_client
import pytest

from mmdata.datasets.errors import UsageError
from mmdata.recorder.counts import LAG_BOUNDS_S, Counts
from mmdata.recorder.metrics import serving_metrics
from mmdata.recorder.watch import Watch, quantile_s
from tests.watched import NOW, SECOND, full_counts, full_watch, scrape

PAGE = (Path(__file__).parents[2] / "docs/monitoring.md").read_text(encoding="utf-8")


def values(watch: Watch) -> dict[tuple[str, ...], float]:
    """Return what is served, by name and label values, the exchange first."""
    return {
        (
            sample.name.removeprefix("mmdata_recorder_"),
            *(
                sample.labels[label]
                for label in sorted(sample.labels, key=lambda name: (name != "exchange", name))
            ),
        ): sample.value
        for family in scrape(watch)
        for sample in family.samples
    }


def test_every_number_of_the_counts_is_served_under_its_name() -> None:
    served = values(full_watch())
    expected = {
        ("frames_total", "okx"): 101,
        ("received_bytes_total", "okx"): 102_000,
        ("gaps_total", "okx"): 3,
        ("resyncs_total", "okx"): 4,
        ("connections_total", "okx"): 7,
        ("reconnects_total", "okx"): 5,
        ("live_connections", "okx"): 2,
        ("repeats_total", "okx"): 11,
        ("backfilled_trades_total", "okx"): 13,
        ("quarantined_total", "okx"): 6,
        ("pending_segments", "okx"): 1,
        ("rows_total", "okx", "depth"): 900,
        ("rows_total", "okx", "trades"): 80,
        ("book_whole", "okx", "BTC-USDT"): 1,
        ("book_whole", "okx", "ETH-USDT"): 0,
        ("last_frame_age_seconds", "okx", "books", "BTC-USDT"): 2.0,
        ("last_frame_age_seconds", "okx", "trades", "BTC-USDT"): 0.5,
        ("silence_seconds", "okx"): 0.5,
        ("clock_offset_seconds", "okx"): -0.02,
        ("clock_uncertainty_seconds", "okx"): 0.0015,
        ("rest_used_weight", "okx"): 250,
        ("window_end_timestamp_seconds",): NOW / 1e9 + 3600,
        ("disk_min_free_bytes",): 2 << 30,
        ("disk_stop_free_bytes",): 1 << 28,
    }
    assert {key: served.get(key) for key in expected} == expected
    assert served["disk_free_bytes",] > 0


def test_lag_is_a_histogram_whose_last_bucket_counts_all() -> None:
    served = values(full_watch())
    buckets = [served["lag_seconds_bucket", "okx", str(bound)] for bound in LAG_BOUNDS_S]
    assert buckets == [1, 2, 2, 2, 2, 2, 2, 3, 3]
    assert served["lag_seconds_bucket", "okx", "+Inf"] == served["lag_seconds_count", "okx"] == 4
    assert served["lag_seconds_sum", "okx"] == pytest.approx(3.2004)


def test_scrape_tells_what_the_counts_are_then() -> None:
    counts = full_counts()
    watch = full_watch(counts=counts)
    assert values(watch)["frames_total", "okx"] == 101
    counts.frames += 1
    assert values(watch)["frames_total", "okx"] == 102


def test_what_was_not_measured_is_not_served() -> None:
    names = {name for name, *_ in values(full_watch(counts=Counts()))}
    assert "frames_total" in names
    assert not names & {"clock_offset_seconds", "clock_uncertainty_seconds", "rest_used_weight"}


def test_silence_counts_from_the_start_until_a_frame_comes_and_ends_with_the_recording() -> None:
    watch = full_watch(counts=Counts())
    assert values(watch)["silence_seconds", "okx"] == 60.0
    watch.state = "ending"
    assert ("silence_seconds", "okx") not in values(watch)


def test_recorder_that_waits_serves_its_build_and_its_disk() -> None:
    names = {name for name, *_ in values(Watch(Path(), ["okx"]))}
    assert names == {"build_info", "window_end_timestamp_seconds", "disk_free_bytes"}


def test_job_without_a_window_ends_never() -> None:
    assert values(Watch(Path(), ["okx"]))["window_end_timestamp_seconds",] == math.inf


def test_quantile_is_the_bound_of_its_bucket() -> None:
    assert quantile_s([0] * 10, 0.99) is None
    assert quantile_s([99, 1, *[0] * 8], 0.99) == LAG_BOUNDS_S[0]
    assert quantile_s([98, 2, *[0] * 8], 0.99) == LAG_BOUNDS_S[1]
    assert quantile_s([0] * 9 + [1], 0.99) == math.inf


def test_port_in_use_is_told_and_the_global_registry_stays_its_owners() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"metrics_port: 127.0.0.1:{port} cannot be listened on"),
            serving_metrics(full_watch(), "127.0.0.1", port),
        ):
            pass
    assert not [m for m in prometheus_client.REGISTRY.collect() if m.name.startswith("mmdata")]


def test_page_lists_every_metric_with_its_type_and_labels_and_no_other() -> None:
    told = re.findall(r"^\| `(mmdata_recorder_\w+)` \| (\w+) \|([^|]*)\|", PAGE, re.MULTILINE)
    listed = {name: (kind, {*re.findall(r"`(\w+)`", labels)}) for name, kind, labels in told}
    assert len(listed) == len(told)
    served = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in scrape(full_watch())
    }
    assert listed == served


def test_ages_are_never_negative_when_the_clock_steps_back() -> None:
    counts = Counts(last_frame={("books", "BTC-USDT"): NOW + SECOND})
    served = values(full_watch(counts=counts))
    assert served["last_frame_age_seconds", "okx", "books", "BTC-USDT"] == 0
    assert served["silence_seconds", "okx"] == 0
