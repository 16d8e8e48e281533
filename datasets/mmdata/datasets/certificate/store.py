"""Where certificates lie, and how one takes another's place.

``<root>/certificates/exchange=<id>/symbol=<symbol>/date=<UTC date>/certificate.json``. While a compaction
swaps a folder, ``certificate.next.json`` lies beside it: two folders, or a folder and a file, cannot be
replaced in one step, so for that moment both the old files and the new ones have a certificate. The next one
counts once all its files are there (the name of a compacted file never comes twice), and then takes the
other's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from mmdata.datasets.certificate.accounts import put
from mmdata.datasets.certificate.canonical import Facts, canonical, read
from mmdata.datasets.certificate.derive import Day
from mmdata.datasets.disk import sync_folder
from mmdata.datasets.errors import DatasetError
from mmdata.datasets.layout import encode_symbol
from mmdata.datasets.locks import symbol_lock
from mmdata.datasets.stores import Place

CERTIFICATES = "certificates"
CERTIFICATE = "certificate.json"
NEXT = "certificate.next.json"


def certificate_path(root: Path, day: Day) -> Path:
    """Return where the certificate of a day lies, or will."""
    return root / _name(day)


def _name(day: Day) -> PurePosixPath:
    folder = f"exchange={day.exchange}/symbol={encode_symbol(day.symbol)}/date={day.date}"
    return PurePosixPath(CERTIFICATES, folder, CERTIFICATE)


def next_path(root: Path, day: Day) -> Path:
    """Return where the certificate lies that a compaction is about to put in the other's place."""
    return certificate_path(root, day).with_name(NEXT)


def list_certified(root: Path, name: str = CERTIFICATE) -> Iterator[Day]:
    """Yield the days that have a certificate (or with NEXT, one to come), in order of their names."""
    for path in sorted((root / CERTIFICATES).glob(f"exchange=*/symbol=*/date=*/{name}")):
        date, symbol, exchange = (folder.name.partition("=")[2] for folder in path.parents[:3])
        yield Day(exchange, unquote(symbol), date)


def read_certificate(root: Place, day: Day) -> Facts | None:
    """Return the certificate of a day; None: it has none. DatasetError: it is damaged, or of another day."""
    return _read(root / _name(day), day)


def read_next(root: Path, day: Day) -> Facts | None:
    """Return the certificate that a compaction is about to put in place; None: there is none."""
    return _read(next_path(root, day), day)


def _read(path: Place, day: Day) -> Facts | None:
    try:
        facts = read(path)
    except FileNotFoundError:
        return None
    named = tuple(facts.get(key) for key in Day._fields)
    if named != day:
        raise DatasetError(f"{path}: is the certificate of {' '.join(map(str, named))}, not of {day}")
    return facts


def files_of(facts: Facts) -> dict[str, Facts]:
    """Return the files that a certificate names, by their place below the root."""
    return {file["path"]: file for table in facts["tables"].values() for file in table["files"]}


def write_certificate(root: Path, day: Day, facts: Facts) -> None:
    """Let a sealed certificate appear, in place of another; call it with the symbol's lock held."""
    put(root, certificate_path(root, day), canonical(facts))


def write_next(root: Path, day: Day, facts: Facts) -> None:
    """Let a sealed certificate lie beside the other until its files are there; with the lock held."""
    put(root, next_path(root, day), canonical(facts))


def settle(root: Path, day: Day) -> None:
    """Let the next certificate take the other's place if its files are there, or take it away.

    Call it with the symbol's lock held: a compaction that is under way holds it from the one to the other.
    """
    path = next_path(root, day)
    coming = read_next(root, day)
    if coming is None:
        return
    if all((root / name).exists() for name in files_of(coming)):
        path.rename(certificate_path(root, day))
    else:
        path.unlink()
    sync_folder(path.parent)


def settle_all(root: Path, exchange: str | None = None) -> list[str]:
    """Settle what killed compactions left; return a sentence on each that cannot be read."""
    said = []
    for day in [*list_certified(root, NEXT)]:
        if exchange in (None, day.exchange):
            with symbol_lock(root, day.exchange, day.symbol):
                try:
                    settle(root, day)
                except DatasetError as error:
                    said.append(str(error))
    return said
