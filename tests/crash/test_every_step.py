"""A kill at each step of finishing a segment, one after the other: nothing is lost, nothing twice there."""

from __future__ import annotations

from pathlib import Path

import msgspec.structs
import pytest

from mmdata.datasets import verify
from mmdata.datasets.layout import list_parts
from mmdata.recorder.capture import CaptureWriter, read_segment
from mmdata.recorder.segments import capture_folder, finish_segment, pending, recount, recover, recover_all
from tests.builders import HEADER, LEVELS, depth, frame, rows
from tests.crash.steps import step_through

TRADE = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 7, "p": "100.2", "q": "0.5", "T": 1, "m": True}
TABLES = ("depth", "trades", "events", "quarantine")


def recorded(root: Path) -> list[Path]:
    """Record two segments of a session."""
    folder = capture_folder(root, "binance") / HEADER.session
    paths = []
    for segment in (0, 1):
        header = msgspec.structs.replace(HEADER, segment=segment, first_frame=3 * segment)
        writer = CaptureWriter(folder, header, seconds=60, size=1 << 20)
        messages = (
            depth(100 + 5 * segment, *LEVELS),
            {"stream": "btcusdt@trade", "data": TRADE | {"t": 7 + segment}},
            b"{what nobody understands",
        )
        for number, message in enumerate(messages):
            line = frame(3 * segment + number, message)
            writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
        path = writer.close()
        assert path is not None
        paths.append(path)
    return paths


@pytest.mark.long
@pytest.mark.parametrize("keep", [True, False], ids=["captures kept", "captures removed"])
def test_kill_at_any_step_of_finishing_a_segment(tmp_path: Path, keep: bool) -> None:
    root = tmp_path / "data"
    first, second = recorded(root)
    finish_segment(root, first, keep=keep)
    steps = step_through("finish", root, second, "keep" if keep else "remove")
    assert steps > 50
    unharmed = tmp_path / f"data-{steps}"  # where the kill was never reached
    for table in TABLES:
        assert len(rows(unharmed, table)) == 2 * len(rows(root, table)) > 0
    for number in range(steps):
        harmed = tmp_path / f"data-{number}"
        at_the_kill = {table: rows(harmed, table) for table in TABLES}  # each file there is can be read
        recover(harmed, "binance", keep=keep)
        assert pending(harmed, "binance") == []
        for table in TABLES:
            told = rows(unharmed, table)
            assert rows(harmed, table) == told, f"{table}, killed at step {number}"
            assert at_the_kill[table] == told[: len(at_the_kill[table])]
        assert [part.path.name for table in TABLES for part in list_parts(harmed, table)] == [
            part.path.name for table in TABLES for part in list_parts(unharmed, table)
        ]
        assert recover_all(harmed)[0].failures == []  # certifies what was ingested
        assert verify(harmed, recount=recount).differences == []
        captures = sorted(capture_folder(harmed, "binance").glob("*/*.cap.zst"))
        assert [line.number for path in captures for line in read_segment(path).lines] == (
            [*range(6)] if keep else []
        )
