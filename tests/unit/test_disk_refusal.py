"""A folder of somebody else: the disk's fault, exit 4, told with uid, owner and what helps."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.datasets.disk import refusal

NOBODY = 12345  # no user of that number need exist
LOCK = "with exchange_lock(folder / '.captures' / 'okx', 'okx'): print('held')"
PUBLISH = "publish(folder, Partition('trades', False, 'okx', 'BTC-USDT', '2026-11-21'), 's', 0, rows, {})"
CODE = """
import os, sys
from pathlib import Path
import pyarrow as pa
from mmdata.datasets.layout import Partition
from mmdata.datasets.publish import publish
from mmdata.recorder.lock import exchange_lock

folder, rows = Path(sys.argv[1]), pa.table({{"ts_recv": pa.array([1], pa.timestamp("ns", "UTC"))}})
if os.geteuid() == 0:  # everything is imported: that user need not be able to read this repository
    os.setgroups([])
    os.setgid({nobody})
    os.setuid({nobody})
{work}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder that anybody may enter and nobody but root may write (`tmp_path` is closed)."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o555)
        yield path
        path.chmod(0o755)


def as_nobody(work: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run ``work`` as a user that is neither root nor, where the tests are root's, the folder's owner."""
    return subprocess.run(
        [sys.executable, "-c", CODE.format(nobody=NOBODY, work=work), str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("work", [LOCK, PUBLISH], ids=["lock", "publish"])
def test_unwritable_folder_is_told_with_uid_owner_mode_and_what_helps(work: str, folder: Path) -> None:
    run = as_nobody(work, folder)
    [sentence] = [line for line in run.stderr.splitlines() if "DiskError: " in line]
    uid = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert f"Permission denied: {folder} belongs to uid {os.getuid()}, gid {os.getgid()}" in sentence
    assert "has mode dr-xr-xr-x" in sentence
    assert f"this process is uid {uid}" in sentence
    assert '--user "$(id -u):$(id -g)"' in sentence


def test_folder_above_that_may_not_even_be_entered_is_the_one_that_is_named(folder: Path) -> None:
    closed = folder / "closed"
    folder.chmod(0o755)
    (closed / "data").mkdir(parents=True)
    closed.chmod(0o000)
    run = as_nobody(LOCK.replace("folder", "folder / 'closed' / 'data'"), folder)
    closed.chmod(0o755)
    assert f"{closed} belongs to uid {os.getuid()}" in run.stderr


def test_lock_file_of_another_user_is_named_itself(folder: Path) -> None:
    """The dataset's folder may be shared while an earlier recorder ran as somebody else."""
    lock = folder / ".captures/okx/.lock"
    folder.chmod(0o755)
    lock.parent.mkdir(parents=True)
    lock.touch()
    lock.chmod(0o444)
    run = as_nobody(LOCK, folder)
    assert f"{lock} belongs to uid {os.getuid()}" in run.stderr
    assert "has mode -r--r--r--" in run.stderr


def test_other_refusals_stay_the_systems_own_words() -> None:
    assert refusal(OSError(errno.ENOSPC, "No space left on device", "/data")) == "No space left on device"
    assert refusal(OSError("cannot be read back")) == "cannot be read back"
