"""What a compacted file says of the parts that it was made of; and what any part says of itself.

A compacted file holds a day of a table, several sessions in one. Its metadata lists the parts that went into
it, in the order of its rows: so that it can be read a session at a time, and so that ingest finds which
frames of a session are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from mmdata.datasets.errors import DatasetError
from mmdata.datasets.stores import Place, Told, open_parquet, read_footer

if TYPE_CHECKING:
    import pyarrow as pa

    from mmdata.datasets.layout import Part

COMPACTED = "compacted"
"""Stands in the name of a compacted file where other parts have their session."""
PARTS_KEY = "mmdata.parts"
_REMEMBERED = 1 << 16  # footers: those of a day of many symbols

_Told = TypeVar("_Told")


class Stretch(msgspec.Struct, frozen=True, omit_defaults=True):
    """The rows of one published part: by itself in a file, or one after the other in a compacted one."""

    start: str
    """First ``ts_recv``, as in the part's name."""
    session: str
    n: int
    rows: int
    first_frame: int
    last_frame: int
    """It holds all rows of its session, table, symbol and date between the two."""
    wide: bool = False
    """It was published wide; a narrow one in a wide file was widened by the compaction."""
    facts: dict[str, str] | None = None
    """Its file's metadata: version, configuration, tick and lot. None in a list: as those before it.

    Others share it: it is never changed."""


def encode(stretches: Sequence[Stretch]) -> str:
    """Return stretches as a compacted file's metadata has them: facts only where they change."""
    told: list[Stretch] = []
    facts = None
    for stretch in stretches:
        told.append(msgspec.structs.replace(stretch, facts=None if stretch.facts == facts else stretch.facts))
        facts = stretch.facts
    return msgspec.json.encode(told).decode()


def _decode(text: bytes) -> list[Stretch]:
    stretches: list[Stretch] = []
    facts = None
    for stretch in msgspec.json.decode(text, type=list[Stretch]):
        facts = stretch.facts if stretch.facts is not None else facts
        stretches.append(msgspec.structs.replace(stretch, facts=facts))
    return stretches


def read_stretches(path: Place) -> list[Stretch]:
    """Return what a compacted file is made of, in the order of its rows.

    DatasetError: it is damaged, or does not say. FileNotFoundError: it has just been replaced.
    """
    return [*_remembered(_read_list, path)]


def _remembered(read: Callable[[Place], _Told], path: Place) -> _Told:
    """Return what ``read`` tells of a file, without reading one again that is as it was.

    Ingest asks for every footer of its session with each segment. Files are never written in place, so the
    same name, inode, size and time are the same file; a compaction makes another one.
    """
    found = path.stat()
    own = (found.st_size,) if isinstance(found, Told) else (found.st_ino, found.st_size, found.st_mtime_ns)
    told: _Told = _read_once(read, path, own)
    return told


@lru_cache(_REMEMBERED)
def _read_once(read: Callable[[Place], Any], path: Place, _identity: tuple[int, int, int]) -> Any:
    return read(path)


def _read_list(path: Place) -> tuple[Stretch, ...]:
    import pyarrow as pa

    try:
        return tuple(_decode(read_footer(path).metadata[PARTS_KEY.encode()]))
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError, KeyError, TypeError, msgspec.MsgspecError) as error:
        raise DatasetError(
            f"{path}: does not say which parts it was made of ({error}), so it is unknown which rows are "
            f"there already; nothing was changed: move it away, then ingest its captures again"
        ) from error


def stretches_of(part: Part) -> list[Stretch]:
    """Return what is known of a part from its file's footer: of each that went into it, where several did.

    DatasetError: the footer cannot be read. FileNotFoundError: the file has just been replaced.
    """
    if part.rows is not None or part.session == COMPACTED:
        known = read_stretches(part.path)
        end = part.offset + (part.rows or 0)
        offsets = accumulate((stretch.rows for stretch in known), initial=0)
        return [stretch for stretch, at in zip(known, offsets, strict=False) if part.offset <= at < end]
    rows, first, last, facts = _remembered(_told_by_footer, part.path)
    return [Stretch(part.start, part.session, part.n, rows, first, last, part.partition.wide, facts)]


class _Footer(NamedTuple):
    rows: int
    first_frame: int
    last_frame: int
    facts: dict[str, str]


def _told_by_footer(path: Place) -> _Footer:
    import pyarrow as pa

    try:
        footer = read_footer(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(
            f"{path}: cannot be read as Parquet ({error}), so it is unknown which frames are there "
            f"already; nothing was changed: move it away, then ingest again"
        ) from error
    column = footer.schema.names.index("frame")
    stats = [footer.row_group(at).column(column).statistics for at in range(footer.num_row_groups)]
    facts = {
        key.decode().removeprefix("mmdata."): value.decode()
        for key, value in (footer.metadata or {}).items()
        if key.startswith(b"mmdata.") and key not in _OF_THE_FILE
    }
    first, last = min(int(stat.min) for stat in stats), max(int(stat.max) for stat in stats)
    return _Footer(footer.num_rows, first, last, facts)


_OF_THE_FILE = (b"mmdata.schema_version", b"mmdata.exchange", b"mmdata.symbol", b"mmdata.session")


def row_groups(part: Part, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a part, a row group at a time. KeyError: a column is not in the file."""
    with open_parquet(part.path) as file:
        missing = {*(columns or ())} - {*file.schema_arrow.names}
        if missing:
            raise KeyError(", ".join(sorted(missing)))
        end = file.metadata.num_rows if part.rows is None else part.offset + part.rows
        at = 0
        for group in range(file.num_row_groups):
            begin, at = at, at + file.metadata.row_group(group).num_rows
            if begin < end and at > part.offset:
                rows = file.read_row_group(group, columns=None if columns is None else list(columns))
                first = max(part.offset - begin, 0)
                yield rows.slice(first, min(end, at) - begin - first)
