"""Does memory grow? Records 2,000 messages a second for an hour, and looks at every process each second.

    python -m benchmarks.memory [--seconds 3600] [--rate 2000] [--json FILE]

Growth is counted from the second five minutes to the last five: before that, caches fill and the first
segments are ingested. Ingest works in bursts, so what it holds at rest and at most are told apart. Exits 1
when either grew by 5 % or more, of the recorder or of its ingest.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.clients import MMDATA, running_client, running_feed
from benchmarks.processes import family, rss_bytes
from benchmarks.sources import captures
from mmdata.cli.shell import console, figures, say_table, words

_STREAMS = ["depth@100ms", "trade"]
_SETTLED_S, _WINDOW_S, _LOOK_S = 300.0, 300.0, 1.0
_MOST_GROWTH = 0.05
_SETTINGS = {"segment": {"seconds": "60s", "bytes": "64MiB"}}  # an hour of ours ingests 60 of them


def main() -> None:
    """Record, look, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--json", type=Path, help="also write every look here")
    given = parser.parse_args()
    if given.seconds < _SETTLED_S + 2 * _WINDOW_S:
        sys.exit(f"--seconds {given.seconds:.0f}: growth after {_SETTLED_S:.0f} s cannot be told so soon")
    count = int(given.rate * given.seconds)
    # SIGTERM, too, unwinds: no client is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder:
        what, files = captures(Path(folder))
        place = Path(folder) / "ours"
        with (
            running_feed(files, _STREAMS, None) as feed,
            running_client(MMDATA, feed.port, _STREAMS, place, core=None, settings=_SETTINGS) as client,
        ):
            feed.send(1, None)
            sending = threading.Thread(target=feed.send, args=(count, given.rate))
            sending.start()
            looks = look_at(client.pid, sending)
            client.stop()
    venue = client.report["venues"][0]
    if given.json:
        given.json.write_text(json.dumps(looks))
    rows, worst = [], 0.0
    for number, name in enumerate(("recorder", "ingest")):
        series = [(age_s, sizes[number]) for age_s, sizes in looks if len(sizes) > number]
        early = [size for age_s, size in series if _SETTLED_S <= age_s < _SETTLED_S + _WINDOW_S]
        late = [size for age_s, size in series if age_s >= series[-1][0] - _WINDOW_S]
        for what_of, pick in (("at rest", min), ("at most", max)):
            before, after = pick(early), pick(late)
            worst = max(worst, after / before - 1)
            shown = (f"{before / 1e6:.1f}", f"{after / 1e6:.1f}", f"{after / before - 1:+.1%}")
            rows.append((f"{name}, {what_of}", *shown))
    title = (
        f"{given.rate:,.0f} messages a second for {given.seconds:,.0f} s, {what}: "
        f"{venue['frames']:,} of {count + 1:,} frames recorded, {venue['gaps']} gaps"
    )
    columns = [*words("process"), *figures("second 5 min, MB", "last 5 min, MB", "growth")]
    say_table(title, columns, rows, out=console())
    if worst >= _MOST_GROWTH:
        sys.exit(1)


def look_at(pid: int, sending: threading.Thread) -> list[tuple[float, list[int]]]:
    """Return the resident bytes of a process and its children, each few seconds while frames are sent."""
    begun = time.monotonic()
    looks = []
    while sending.is_alive():
        sending.join(_LOOK_S)
        looks.append((time.monotonic() - begun, [rss_bytes(one) for one in family(pid)]))
    return looks


if __name__ == "__main__":
    main()
