"""Segments on disk: what is closed is ingested, what an earlier run left is recovered first.

``<root>/.captures/<exchange>/<session>/<n>.open`` is being written (or was, when its recorder died),
``.cap`` is closed and waits for ingest, ``.cap.zst`` is ingested and kept.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from mmdata.datasets.certificate import certify_ingested
from mmdata.datasets.certificate.accounts import ACCOUNTS, Account, write_account
from mmdata.datasets.disk import sync_folder
from mmdata.datasets.errors import DiskError, MmdataError, UsageError
from mmdata.datasets.layout import CAPTURES
from mmdata.datasets.locks import session_lock
from mmdata.datasets.stores import local_root
from mmdata.recorder.capture import (
    CLOSED,
    KEPT,
    OPEN,
    Event,
    Segment,
    cut_torn_line,
    format_event,
    held_back,
    parse_line,
    read_segment,
)
from mmdata.recorder.ingest import Ingest, IngestReport
from mmdata.recorder.lock import exchange_lock
from mmdata.recorder.venues import DECODERS

PARTIAL = ".part"
"""A compressed copy that is being made; never read, and removed when its maker was killed."""
_BLOCK = 1 << 22


def capture_folder(root: Path, exchange: str) -> Path:
    """Return the folder that holds the captures of ``exchange``."""
    return root / CAPTURES / exchange


def ingest_segment(root: Path, path: Path) -> IngestReport:
    """Turn a segment into rows of the tables; what is there already is skipped.

    What became of its lines is kept for the certificates of the days that it has rows of.
    """
    ingest, segment = _take_segment(root, path, dry=False)
    ingest.report.check()
    write_account(root, ingest.account(segment.header.segment))
    if segment.torn:
        ingest.report.warnings.append(
            f"{path}: the last line has no end; its {segment.torn} bytes are left out"
        )
    return ingest.report


def recount(root: Path, exchange: str, session: str, segment: int) -> Account | None:
    """Return what became of the lines of a segment, from its capture; None: that was not kept.

    Nothing is published. It is what `mmdata.datasets.verify` compares with the certificates' accounting.
    """
    folder = capture_folder(root, exchange) / session
    kept = [path for end in (KEPT, CLOSED) if (path := folder / f"{segment:06d}{end}").exists()]
    if not kept:
        return None
    ingest, _ = _take_segment(root, kept[0], dry=True)
    return ingest.account(segment)


def _take_segment(root: Path, path: Path, *, dry: bool) -> tuple[Ingest, Segment]:
    """Take all lines of a segment; return the ingest that did, and the segment."""
    segment = read_segment(path)
    header = segment.header
    if header.exchange not in DECODERS:
        raise UsageError(
            f"{path}: is a capture of {header.exchange!r}, this mmdata knows {', '.join(DECODERS)}; it stays"
        )
    metadata = {"version": header.version, "config": header.config, "source": "mmdata"}
    ingest = Ingest(root, header.exchange, header.session, metadata, header.grid, header.merges, dry=dry)
    number = header.first_frame
    for text in segment.texts():
        number = ingest.take_lines(
            text, number, lambda at, line: ingest.take(parse_line(at, line)), is_tagged=True
        )
    ingest.flush()
    return ingest, segment


def finish_segment(root: Path, path: Path, *, keep: bool) -> IngestReport:
    """Ingest a closed segment, then put a compressed copy in its place, or with ``keep`` False remove it.

    The rows were read back and counted when they were published, so removing the capture loses nothing.
    The copy is made meanwhile, in a thread: most of either work is done outside the interpreter's lock.
    Whoever is at the session already is waited for: the ingest process of a recorder that has just been
    killed lives for a moment longer, and may finish this very segment.
    """
    with session_lock(root, path.parent.name, wait=True):
        if not path.exists():
            return IngestReport()
        return _finish_locked(root, path, keep=keep)


def _finish_locked(root: Path, path: Path, *, keep: bool) -> IngestReport:
    partial = path.with_suffix(PARTIAL)
    try:
        with ThreadPoolExecutor(1) as aside:
            copying = aside.submit(_compress, path, partial) if keep else None
            report = ingest_segment(root, path)
        _put_away(path, copying)
    finally:
        with suppress(OSError):  # the next recovery tries again
            partial.unlink(missing_ok=True)
    return report


def _put_away(path: Path, copying: Future[Path] | None) -> None:
    try:
        if copying is not None:
            copying.result().rename(path.with_name(path.name.removesuffix(CLOSED) + KEPT))
            sync_folder(path.parent)  # the copy's name first: a power cut must find one of the two
        path.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"{path}: is ingested but cannot be put away ({error}); it stays") from error


def _compress(path: Path, partial: Path) -> Path:
    """Write a compressed copy of ``path`` to ``partial``, sync and return it."""
    import pyarrow as pa

    with path.open("rb") as file, pa.output_stream(str(partial), compression="zstd") as stream:
        while block := file.read(_BLOCK):
            stream.write(block)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    return partial


def _clear_partial(folder: Path) -> None:
    """Remove the copies that a kill left unfinished; what they were made from is still there."""
    for path in folder.glob(f"*/*{PARTIAL}"):
        path.unlink()


def recover(root: Path, exchange: str, *, keep: bool = True) -> tuple[IngestReport, list[Path]]:
    """Ingest what earlier runs of ``exchange`` left; call it with the exchange's lock held.

    Returns the report and the segments. A segment that cannot be ingested stays where it is, and so do
    the later ones of its session; their sentences are the report's failures. Other sessions go on.
    """
    report = IngestReport()
    done: list[Path] = []
    failed: set[Path] = set()
    _clear_partial(capture_folder(root, exchange))
    for path in pending(root, exchange):
        if path.parent in failed:
            report.failures.append(held_back(path))
            continue
        try:
            closed = _close(path, report) if path.suffix == OPEN else path
            if closed is not None:
                report.add(finish_segment(root, closed, keep=keep))
                done.append(closed)
        except DiskError:
            raise
        except MmdataError as error:
            failed.add(path.parent)
            report.failures.append(str(error))
    return report, done


def pending(root: Path, exchange: str) -> list[Path]:
    """Return the segments that are not ingested yet, in order."""
    folder = capture_folder(root, exchange)
    return sorted([*folder.glob(f"*/*{OPEN}"), *folder.glob(f"*/*{CLOSED}")])


def _close(path: Path, report: IngestReport) -> Path | None:
    """Close a segment whose recorder died: cut a torn last line off and say so; None: nothing was in it."""
    written = path.stat().st_mtime_ns  # when the dead recorder last wrote
    torn = cut_torn_line(path)
    if path.stat().st_size == 0:  # killed before its header was whole
        path.unlink()
        return None
    with path.open("ab") as file:
        if torn:
            file.write(format_event(written, Event("torn", detail={"bytes": torn})))
            file.flush()
        os.fsync(file.fileno())  # its recorder may have died before it did
    if torn:
        report.warnings.append(f"{path}: the last line was torn; {torn} bytes were cut off")
    closed = path.with_suffix(CLOSED)
    path.rename(closed)
    sync_folder(path.parent)
    return closed


def recover_all(root: Path, *, keep: bool = True) -> tuple[IngestReport, list[Path]]:
    """Ingest and certify what dead recorders of any exchange left in the dataset at ``root``.

    UsageError: there is no such local folder, or a recorder of one of them is alive: what it writes is its
    own.
    """
    root = local_root(root, "a recovery")
    if not root.is_dir():
        raise UsageError(f"{root}: there is no such folder; name the dataset's")
    report = IngestReport()
    done: list[Path] = []
    exchanges = {path.name for home in (CAPTURES, ACCOUNTS) for path in (root / home).glob("*")}
    for exchange in sorted(exchanges):
        uncertified = any((root / ACCOUNTS / exchange).glob("*/*.json"))
        if uncertified or pending(root, exchange):
            with exchange_lock(capture_folder(root, exchange), exchange):
                own, paths = recover(root, exchange, keep=keep)
                certified = certify_ingested(root, exchange)
            report.add(own)
            report.add_certified(certified)
            done += paths
    return report, done
