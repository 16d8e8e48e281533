"""The feed of the benchmarks: what a client gets over the socket, and over REST beside it."""

from __future__ import annotations

import json
from pathlib import Path

import requests
from websockets.sync.client import connect

from benchmarks.clients import running_feed

_CAPTURE = [
    '{"lastUpdateId":7,"bids":[["10.0","1.0"]],"asks":[["11.0","2.0"]]}',
    '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":5,"s":"BTCUSDT","U":8,"u":9,"b":[["10.0","3.0"]],"a":[]}}',
    '{"stream":"btcusdt@depth@100ms","data":{"e":"depthUpdate","E":5,"s":"BTCUSDT","U":10,"u":12,"b":[["10.5","1.0"]],"a":[]}}',
]


def test_frames_come_as_commanded_and_the_snapshot_fits_between_them(tmp_path: Path) -> None:
    capture = tmp_path / "capture"
    capture.write_text("".join(f"1 {line}\n" for line in _CAPTURE))
    with running_feed([capture], ["depth@100ms"], None) as feed:
        here = f"127.0.0.1:{feed.port}"
        with connect(f"ws://{here}/stream?streams=btcusdt@depth@100ms&timeUnit=MICROSECOND") as socket:
            assert feed.send(3, 100.0)["sent"] == 3
            data = [json.loads(socket.recv(timeout=10))["data"] for _ in range(3)]
            book = requests.get(f"http://{here}/api/v3/depth?symbol=BTCUSDT&limit=5000", timeout=10).json()
            assert feed.send(1, None)["sent"] == 1
            after = json.loads(socket.recv(timeout=10))["data"]
        best = feed.book()
    assert [frame["U"] for frame in data] == [10, 13, 15]
    assert len(str(data[0]["E"])) == 16
    assert book["lastUpdateId"] == data[-1]["u"] == after["U"] - 1
    assert book["bids"] == [["10.5", "1.0"], ["10.0", "3.0"]]
    assert (best["bid"], best["ask"], best["sent"]) == (["10.0", "3.0"], ["11.0", "2.0"], {"depth@100ms": 4})
