"""The image, built and run for real: what docs/docker.md promises.

Needs root and the tool that stands for a Docker engine. The recorder in a container and the sandbox
exchange outside of it share the host's network.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import tomllib
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.recorder.capture import FRAME, read_segment
from mmdata.sandbox import read_truth
from tests.builders import flaws, rows
from tests.conftest import SHARED
from tests.integration.conftest import REPOSITORY, RunningSandbox, running_sandbox, write_job

pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

TOOL = SHARED / "tools/container"
IMAGE = "mmdata-test"
OWN_UID, OTHER_UID = 1000, 12345
SYMBOLS = {"binance": ["BTCUSDT"], "okx": ["BTC-USDT"]}
GRACE_S = 10  # what `docker stop` gives by default, before it kills
KERNELS = """
import sys
from numba.core.dispatcher import Dispatcher
from mmdata.recorder import levels
from mmdata.replay import warm_up
levels.warm_up()
warm_up()
kernels = {id(found): found for name, module in [*sys.modules.items()] if name.startswith("mmdata.")
           for found in vars(module).values() if isinstance(found, Dispatcher)}.values()
print(sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels),
      sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels))
"""

Container = Callable[..., subprocess.CompletedProcess[str]]


def tool(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a verb of the tool in the repository, to its end."""
    return subprocess.run(
        [str(TOOL), *map(str, args)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def container(request: pytest.FixtureRequest) -> Container:
    """Return the tool, after the image was built from the repository as it is."""
    sentence = None
    if not TOOL.is_file():
        sentence = f"{TOOL} is missing (MMDATA_SHARED says where the shelf is)"
    elif os.geteuid() != 0:
        sentence = f"{TOOL} runs as root only"
    if sentence is not None:
        if request.config.getoption("--require-container"):
            pytest.fail(sentence)
        pytest.skip(sentence)
    built = tool("build", IMAGE)
    assert built.returncode == 0, built.stderr
    return tool


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder for the volume that the image's own user may write."""
    return owned(tmp_path / "data", OWN_UID)


def owned(folder: Path, uid: int) -> Path:
    folder.mkdir()
    os.chown(folder, uid, uid)
    return folder


@contextmanager
def running(container: Container, *args: str | Path) -> Iterator[str]:
    """Run a container in the background until the block ends; yield its name."""
    name = f"{IMAGE}-{uuid.uuid4().hex[:8]}"
    started = container("run", "--detach", "--name", name, *args)
    try:
        assert started.returncode == 0, started.stderr
        yield name
    finally:
        container("rm", "--force", "--time", "0", name)


def stopped(container: Container, name: str) -> int:
    """Stop a container as `docker stop` does; return its exit status."""
    container("stop", "--time", str(GRACE_S), name)
    return int(container("inspect", "--format", "{{.State.ExitCode}}", name).stdout)


def sandbox_job(path: Path, sandbox: RunningSandbox) -> Path:
    """Write a job that records the sandbox until it is stopped, into the default root."""
    return write_job(path, venues=[sandbox.venue(name, symbols) for name, symbols in SYMBOLS.items()])


def wait_for_frames(container: Container, name: str, data: Path, size: int = 100_000) -> None:
    """Wait until the open capture of each venue holds something."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        captures = [[*(data / ".captures" / exchange).glob("*/*.open")] for exchange in SYMBOLS]
        if all(sum(path.stat().st_size for path in paths) > size for paths in captures):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing was recorded within 30 s: {container('logs', name).stderr}")


def test_demo_job_records_into_the_volume_and_the_host_reads_it(container: Container, data: Path) -> None:
    """The README's own command."""
    run = container("run", "--rm", "-v", f"{data}:/data", IMAGE, "record", "config/demo.yaml")
    assert run.returncode == 0, run.stderr
    assert flaws(data) == []
    trades = pl.scan_parquet(data / "trades/**/*.parquet", hive_partitioning=True)
    counted = dict(trades.group_by("exchange").len().collect().iter_rows())
    assert counted.keys() == {"binance", "okx"}
    assert min(counted.values()) > 500
    assert {path.stat().st_uid for path in data.rglob("*")} == {OWN_UID}


def test_stop_in_mid_recording_loses_nothing(container: Container, tmp_path: Path, data: Path) -> None:
    """Per connection an exact prefix of what was sent; what is missing was sent as the signal came."""
    with running_sandbox(tmp_path / "truth", seed=3) as sandbox:
        job = sandbox_job(tmp_path / "job.yaml", sandbox)
        volumes = ("-v", f"{data}:/data", "-v", f"{job}:/mmdata/config/job.yaml:ro")
        with running(container, *volumes, IMAGE, "record", "config/job.yaml") as name:
            wait_for_frames(container, name, data)
            asked_ns, asked_s = time.time_ns(), time.monotonic()
            status = stopped(container, name)
            taken_s = time.monotonic() - asked_s
            assert status == 0, container("logs", name).stderr
            assert taken_s < GRACE_S
    truth = read_truth(tmp_path / "truth")
    for exchange in SYMBOLS:
        received: dict[int, list[str]] = {}
        for path in sorted((data / ".captures" / exchange).glob("*/*")):
            for line in read_segment(path).lines:
                if line.kind == FRAME:
                    assert line.conn is not None
                    received.setdefault(line.conn, []).append(line.payload.decode())
        sent: dict[int, list[tuple[int, str]]] = {}
        for frame in truth.frames:
            if frame.venue == exchange:
                sent.setdefault(frame.conn, []).append((frame.ts, frame.frame))
        # Both sides number connections in the order in which they are made.
        assert len(received) == len(sent) > 0
        for ours, theirs in zip(sorted(received), sorted(sent), strict=True):
            count = len(received[ours])
            assert received[ours] == [text for _, text in sent[theirs][:count]]
            assert all(ts > asked_ns - 100_000_000 for ts, _ in sent[theirs][count:])
        assert sum(map(len, received.values())) > 100
    kinds = [row["kind"] for row in rows(data, "events")]
    assert kinds.count("session_end") == len(SYMBOLS)
    assert "gap" not in kinds
    assert flaws(data) == []


def test_stop_ends_a_verb_that_minds_no_signal_too(container: Container) -> None:
    """The first process of a container has no default action for SIGTERM; 137 would be a kill."""
    blocked = ("import", "/dev/stdin", "--format", "cryptofeed", "--exchange", "okx")
    with running(container, "--interactive", IMAGE, *blocked) as name:
        pid = int(container("inspect", "--format", "{{.State.Pid}}", name).stdout)
        wait_for_handler(pid, signal.SIGTERM)
        assert stopped(container, name) == 128 + signal.SIGTERM


def wait_for_handler(pid: int, number: signal.Signals) -> None:
    """Wait until a process handles a signal: before, the signal would be lost on it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        [caught] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")]
        if int(caught, 16) >> (number - 1) & 1:
            return
        time.sleep(0.02)
    raise AssertionError(f"no handler for {number.name} within 30 s")


def test_any_user_records_where_the_folder_is_theirs(container: Container, tmp_path: Path) -> None:
    folder = owned(tmp_path / "data", OTHER_UID)
    user = ("--user", f"{OTHER_UID}:{OTHER_UID}")
    run = container(
        *("run", "--rm", *user, "-v", f"{folder}:/data", IMAGE),
        *("record", "config/demo.yaml", "--duration", "3s", "--json"),
    )
    assert run.returncode == 0, run.stderr
    assert all(venue["rows"]["depth"] > 0 for venue in json.loads(run.stdout)["venues"])
    assert {path.stat().st_uid for path in folder.rglob("*")} == {OTHER_UID}


def test_folder_of_somebody_else_is_exit_4_naming_uid_owner_and_the_option(
    container: Container, tmp_path: Path
) -> None:
    folder = owned(tmp_path / "data", 0)
    run = container("run", "--rm", "-v", f"{folder}:/data", IMAGE, "record", "config/demo.yaml")
    assert run.returncode == 4
    assert (
        f"/data belongs to uid 0, gid 0 and has mode drwxr-xr-x, this process is uid {OWN_UID}" in run.stderr
    )
    assert '--user "$(id -u):$(id -g)"' in run.stderr
    assert [*folder.iterdir()] == []


def test_health_is_good_while_frames_come_and_bad_when_the_exchange_stops(
    container: Container, tmp_path: Path, data: Path
) -> None:
    with ExitStack() as exchange:
        sandbox = exchange.enter_context(running_sandbox(tmp_path / "truth"))
        job = sandbox_job(tmp_path / "job.yaml", sandbox)
        volumes = ("-v", f"{data}:/data", "-v", f"{job}:/mmdata/config/job.yaml:ro")
        with running(container, *volumes, IMAGE, "record", "config/job.yaml") as name:
            wait_for_frames(container, name, data)
            healthy = container("healthcheck", "run", name)
            assert healthy.returncode == 0, healthy.stdout + healthy.stderr
            exchange.close()
            # No timer runs it here. A recording is sound for 60 s without a frame, then not.
            deadline = time.monotonic() + 120
            while container("healthcheck", "run", name).returncode == 0:
                assert time.monotonic() < deadline, "still healthy 120 s after the last frame"
                time.sleep(2)
            assert container("inspect", "--format", "{{.State.Running}}", name).stdout.strip() == "true"
            assert stopped(container, name) == 0  # it went on trying, and ends as cleanly as ever


def test_demo_runs_in_it(container: Container) -> None:
    """In a volume of its own: what the image prepares at /data is writable for its user."""
    run = container("run", "--rm", IMAGE, "demo", "--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told["healed"]
    assert len(told["results"]) == 2


@pytest.mark.parametrize("uid", [OWN_UID, OTHER_UID])
def test_kernels_are_compiled_for_any_user(container: Container, uid: int) -> None:
    run = container("run", "--rm", "--user", f"{uid}:{uid}", "--entrypoint", "python", IMAGE, "-c", KERNELS)
    hits, misses = map(int, run.stdout.split())
    assert hits > 0
    assert misses == 0
    assert "compiled anew" not in run.stderr


def test_image_holds_no_compiler_no_installer_and_nothing_downloaded(container: Container) -> None:
    script = (
        'for name in gcc cc g++ c++ clang make ld; do command -v "$name"; done; ls /opt/mmdata/bin/pip*; '
        "find /opt /root /tmp /home /var /build /install -name '*.whl' -o -path '*/.cache/pip' 2>/dev/null"
    )
    run = container("run", "--rm", "--entrypoint", "sh", IMAGE, "-c", script)
    assert run.stdout == ""


def test_image_says_what_it_is_and_how_it_is_stopped_watched_and_run(container: Container) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [image] = json.loads(container("image", "inspect", IMAGE).stdout)
    config: dict[str, Any] = image["Config"]
    assert config["User"] == f"{OWN_UID}:{OWN_UID}"
    assert config["Entrypoint"] == ["mmdata"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert list(config["Volumes"]) == ["/data"]
    assert image["Healthcheck"]["Test"] == ["CMD", "mmdata", "status"]
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["version"] == project["version"]
    assert labels["description"] == project["description"]
    assert labels["licenses"] == project["license"]
    run = container("run", "--rm", IMAGE, "--version")
    assert run.stdout == f"mmdata {project['version']}\n"
