"""What a dataset already holds of a session, and publishing what it does not: the same again changes nothing.

A crash between two published files is mended by doing it once more: rows of frames that are there are
left out, by table, symbol and date.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.errors import DatasetError
from mmdata.datasets.layout import Partition, date_name, first_date, list_parts
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import TABLES
from mmdata.datasets.stretches import Stretch, stretches_of
from mmdata.datasets.times import DAY_NS

_ATTEMPTS = 5  # at looking at what is being compacted

_Frames = tuple[int, int]
"""First and last frame of a part: it holds all rows of its table, symbol and date between them."""


class Published:
    """What the dataset holds of a session: each part's frames, narrow and wide alike.

    Threads may publish at the same time, each a table of its own.
    """

    def __init__(self, root: Path, exchange: str, session: str) -> None:
        self._root = root
        self._session = session
        self._frames: dict[tuple[str, str, str], list[_Frames]] = defaultdict(list)
        self._next: dict[str, int] = defaultdict(int)
        self._wide_since: dict[str, int] = {}
        """By symbol: where its first wide part begins."""
        self._looking = Lock()
        """Held while two threads might look at what is published, or add to it."""
        for partition, stretch in _stored(root, exchange, session):
            self._add(partition, stretch.n, (stretch.first_frame, stretch.last_frame), wide=stretch.wide)

    def publish(self, partition: Partition, rows: pa.Table, facts: Mapping[str, str]) -> int:
        """Publish the rows of a partition that are not there yet; return how many.

        The symbol's lock is the caller's. DatasetError: later frames are there already. DiskError: the disk
        failed; doing it again completes it.
        """
        with self._looking:
            fresh = self._fresh(partition, rows)
            if not fresh.num_rows:
                return 0
            first, _ = frames_of(fresh)
            later = self._last_frame(partition.table, partition.symbol)
            n = self._next[partition.table]
        if first < later:
            raise DatasetError(
                f"{self._session}: frames from {first} on of {partition.symbol} come after frame {later} was "
                f"published in {partition.table}, so their rows would stand out of order; they are not "
                f"ingested, and their capture stays"
            )
        publish(self._root, partition, self._session, n, fresh, facts)
        with self._looking:
            self._add(partition, n, frames_of(fresh), wide=partition.wide)
        return int(fresh.num_rows)

    def is_wide(self, symbol: str) -> bool:
        """Tell whether a part of the symbol is wide; all later ones are then."""
        return symbol in self._wide_since

    def is_wide_before(self, symbol: str, frame: int) -> bool:
        """Tell whether a wide part of the symbol begins before ``frame``."""
        return self._wide_since.get(symbol, frame) < frame

    def _add(self, partition: Partition, n: int, frames: _Frames, *, wide: bool) -> None:
        """Add a part; ``wide`` as it was published, whatever a compaction has made of it."""
        key = (partition.table, partition.symbol, partition.date)
        self._frames[key].append(frames)
        self._next[partition.table] = max(n + 1, self._next[partition.table])
        if wide:
            before = self._wide_since.get(partition.symbol, frames[0])
            self._wide_since[partition.symbol] = min(before, frames[0])

    def _fresh(self, partition: Partition, rows: pa.Table) -> pa.Table:
        """Return the rows that are not there yet."""
        known = self._frames.get((partition.table, partition.symbol, partition.date), ())
        first, last = frames_of(rows)
        known = [frames for frames in known if frames[0] <= last and frames[1] >= first]
        if not known:
            return rows
        frames = rows["frame"].to_numpy()
        there = np.zeros(len(frames), np.bool_)
        for begin, end in known:
            there |= (frames >= begin) & (frames <= end)
        return rows.filter(pa.array(~there))

    def _last_frame(self, table: str, symbol: str) -> int:
        """Return the highest frame of a symbol in a table that is there, -1 for none."""
        parts = (
            frames for key, known in self._frames.items() if key[:2] == (table, symbol) for frames in known
        )
        return max((last for _, last in parts), default=-1)


def by_date(rows: pa.Table) -> list[tuple[str, pa.Table]]:
    """Split rows at each change of the UTC date of ``ts_recv``.

    The clock may step back over midnight: then a date comes twice, as two parts, in the order of arrival.
    """
    stamps = rows["ts_recv"].cast(pa.int64())
    bounds = pc.min_max(stamps).as_py()
    if bounds["min"] // DAY_NS == bounds["max"] // DAY_NS:
        return [(date_name(bounds["min"]), rows)]
    days = stamps.to_numpy() // DAY_NS
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    return [
        (date_name(int(days[begin]) * DAY_NS), rows.slice(begin, end - begin))
        for begin, end in pairwise(starts)
    ]


def frames_of(rows: pa.Table | Mapping[str, pa.Array]) -> _Frames:
    """Return the first and the last frame of rows that are in their order."""
    frames = rows["frame"]
    return int(frames[0].as_py()), int(frames[-1].as_py())


def _stored(root: Path, exchange: str, session: str) -> list[tuple[Partition, Stretch]]:
    """Return each part that is there of a session, those in compacted files too."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(FileNotFoundError):  # a day was compacted between listing and looking
            return _look(root, exchange, session)
    return _look(root, exchange, session)


def _look(root: Path, exchange: str, session: str) -> list[tuple[Partition, Stretch]]:
    return [
        (part.partition, stretch)
        for table in TABLES
        for part in list_parts(root, table, exchange=exchange, since=first_date(session), session=session)
        for stretch in stretches_of(part)
    ]
