"""How late is a frame in the capture? 20,000 messages a second, recorder and ingest on one core together.

    python -m benchmarks.lateness [--rate 20000] [--seconds 30] [--segment 64MiB]

From outside: the feed writes its clock (µs) into each frame as it sends it, the capture's line has the
recorder's stamp, and another process watches the file grow. What the watcher sees is an upper bound: its own
turn on a busy machine is in it. From inside: the histogram of the recorder's metrics, from a read to the end
of its write. Exits 1 when the watcher's 99th percentile from stamp to file is 5 ms or more.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.clients import MMDATA, running_client, running_feed
from benchmarks.processes import quiet
from benchmarks.sources import captures
from mmdata.cli.shell import console, figures, say_table, words
from mmdata.datasets.layout import CAPTURES

_STREAMS = ["depth@100ms", "trade"]
_FEED_CORE, _CLIENT_CORE = 0, 1
_LOOK_S = 0.0003
_MOST_MS = 5.0
_FRAME = re.compile(rb'(\d+) \d+ \{.*?"E":(\d{16})')


class Watcher:
    """Notes when the capture was seen to be how long, segment by segment."""

    def __init__(self, captures_folder: Path) -> None:
        self._folder = captures_folder
        self._stopped = threading.Event()
        self._seen: dict[str, list[tuple[int, int]]] = {}
        """By number of segment: nanoseconds since the epoch, bytes."""

    def watch(self) -> None:
        """Look until `stop`."""
        while not self._stopped.is_set():
            for path in sorted(self._folder.rglob("*.open")):
                self._follow(path)

    def _follow(self, path: Path) -> None:
        """Note each growth of a segment until it is closed."""
        seen = self._seen.setdefault(path.stem, [])
        size = 0
        with path.open("rb") as file:
            while path.exists() and not self._stopped.is_set():
                size = self._look(file.fileno(), size, seen)
                time.sleep(_LOOK_S)
            self._look(file.fileno(), size, seen)

    @staticmethod
    def _look(handle: int, size: int, seen: list[tuple[int, int]]) -> int:
        found = os.fstat(handle).st_size
        if found != size:
            seen.append((time.time_ns(), found))
        return found

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def seen_at(self, segment: str, ends: Sequence[int]) -> np.ndarray:
        """Return when the bytes before each offset were seen; -1: never."""
        looks = np.array(self._seen.get(segment, [(0, 0)]), dtype=np.int64)
        at = np.searchsorted(looks[:, 1], ends)
        return np.where(at < len(looks), looks[np.minimum(at, len(looks) - 1), 0], -1)


def lines(root: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, list[int]]]:
    """Yield of each closed segment: its number, sent ns, stamped ns, and the offset behind each line."""
    for path in sorted(
        [*root.rglob("*.cap"), *root.rglob("*.cap.zst")]
    ):  # those that are not ingested yet are as they were written
        with pa.input_stream(str(path), compression="zstd" if path.suffix == ".zst" else None) as stream:
            content = stream.read()
        sent, stamped, ends, end = [], [], [], 0
        for line in content.splitlines(keepends=True):
            end += len(line)
            match = _FRAME.match(line)
            if match is not None:
                stamped.append(int(match[1]))
                sent.append(int(match[2]) * 1000)
                ends.append(end)
        yield path.name.partition(".")[0], np.array(sent), np.array(stamped), ends


def reads_in_time(metrics_port: int) -> tuple[float, float]:
    """Return by the recorder's own count: socket reads, and those that were in the file within the limit."""
    text = requests.get(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    within = {
        sample.labels["le"]: sample.value
        for sample in samples
        if sample.name == "mmdata_recorder_lag_seconds_bucket"
    }
    return within["+Inf"], within[str(_MOST_MS / 1000)]


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def main() -> None:
    """Record, read back, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=20_000.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--segment", default="64MiB", help="size at which a segment is closed and ingested")
    given = parser.parse_args()
    count = int(given.rate * given.seconds)
    with tempfile.TemporaryDirectory() as folder:
        what, files = captures(Path(folder))
        metrics_port = free_port()
        settings = {"segment": {"bytes": given.segment}, "metrics_port": metrics_port}
        place = Path(folder) / "ours"
        watcher = Watcher(place / "data" / CAPTURES)
        with (
            running_feed(files, _STREAMS, _FEED_CORE) as feed,
            running_client(
                MMDATA, feed.port, _STREAMS, place, core=_CLIENT_CORE, settings=settings
            ) as client,
        ):
            feed.send(2_000, None)
            used_s = quiet(client.pid)
            watching = threading.Thread(target=watcher.watch)
            watching.start()
            begun_ns = time.time_ns()
            feed.send(count, given.rate)
            used_s = quiet(client.pid) - used_s
            watcher.stop()
            watching.join()
            reads, in_time = reads_in_time(metrics_port)
            client.stop()
        stamped_late, written_late = [], []
        for number, sent, stamped, ends in lines(place / "data"):
            of_the_run = sent >= begun_ns
            seen = watcher.seen_at(number, ends)
            stamped_late.append((stamped - sent)[of_the_run])
            written_late.append((seen - stamped)[of_the_run & (seen > 0)])
    late_ms = np.concatenate(stamped_late) / 1e6
    written_ms = np.concatenate(written_late) / 1e6
    venue = client.report["venues"][0]
    rows = [
        (
            name,
            *(f"{np.percentile(values, share):.3f}" for share in (50, 90, 99, 99.9, 100)),
            f"{len(values):,}",
        )
        for name, values in (("sent to stamped", late_ms), ("stamped to seen in the file", written_ms))
    ]
    load = ", ".join(f"{part:.1f}" for part in os.getloadavg())
    title = (
        f"{given.rate:,.0f} messages a second for {given.seconds:.0f} s, {what}; recorder "
        f"{used_s / given.seconds:.0%} of a core; {venue['frames']:,} of {count + 2_000:,} frames, "
        f"{venue['gaps']} gaps; load {load}"
    )
    own = f"{in_time / reads:.3%} of its {reads:,.0f} reads were written within {_MOST_MS:.0f} ms"
    title += f"; by its own count {own}"
    columns = [*words("from, to"), *figures("p50 ms", "p90", "p99", "p99.9", "most", "frames")]
    say_table(title, columns, rows, out=console())
    if np.percentile(written_ms, 99) >= _MOST_MS:
        sys.exit(1)


if __name__ == "__main__":
    main()
