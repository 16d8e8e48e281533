"""`mmdata import` of table formats: files of other people's tables as one session of a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import ModuleType
from typing import Any

from mmdata.datasets.certificate import certify_ingested
from mmdata.datasets.certificate.accounts import write_account
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats import binance_public, okx_public, tardis
from mmdata.datasets.formats.session import Grid, TableReport, TableSession
from mmdata.datasets.formats.sources import fingerprint
from mmdata.datasets.locks import session_lock
from mmdata.datasets.stores import local_root
from mmdata.datasets.version import version

READERS: dict[str, ModuleType] = {
    "tardis": tardis,
    "binance-public": binance_public,
    "okx-public": okx_public,
}
"""Table formats that can be imported."""
_STAMPS = {"tardis": "foreign", "binance-public": "event", "okx-public": "event"}
"""What ``ts_recv`` is: another recorder's clock; the venue's own time, where nobody received anything."""


def import_tables(
    sources: Sequence[Path],
    out: Path,
    *,
    source_format: str,
    exchange: str | None = None,
    symbol: str | None = None,
    grid: Grid | None = None,
    progress: Callable[[int], None] | None = None,
) -> TableReport:
    """Import files of a table format, as one session, into the dataset at ``out``.

    Files of one kind of data are one stream in the order given; kinds are merged by time. ``exchange`` is
    needed where the files do not tell it, ``symbol`` leaves out all others, ``grid`` gives tick and lot by
    symbol, else they are derived. Importing the same bytes again changes nothing. ``progress`` is called
    with the number of messages so far, now and then.

    UsageError: an unknown format or exchange, ``out`` in an object store, a source that cannot be read, that
    is none of the format or not what its checksum says, the same sources being imported by another process.
    DiskError: ``out`` cannot be written.
    """
    if source_format not in READERS:
        raise UsageError(f"format {source_format!r} is not known, expected one of {', '.join(READERS)}")
    check_grid(grid or {})
    out = local_root(out, "an import")
    session = f"import-{fingerprint(sources)}"
    exchange, channels, files = READERS[source_format].channels(sources, exchange, symbol)
    start: dict[str, Any] = {"source": "import", "format": source_format, "stamp": _STAMPS[source_format]}
    with session_lock(out, session, wait=False):
        tables = TableSession(
            out,
            exchange,
            session,
            {"version": version(), "source": source_format},
            start=start,
            only_symbol=symbol,
            grid=grid,
            progress=progress,
        )
        taken = tables.take(
            channels, lambda: [(file.path, file.torn) for file in files if file.torn is not None]
        )
        if taken.messages:
            write_account(out, tables.account())
        certified = certify_ingested(out, exchange, sessions={session})
        taken.certified = len(certified.done)
        taken.warnings += [*certified.warnings, *certified.skipped, *certified.failures]
    if symbol is not None and taken.messages and taken.other_symbols == taken.read:
        taken.warnings.append(f"no row of {symbol} is in {', '.join(map(str, sources))}")
    return taken


def check_grid(grid: Grid) -> None:
    """Raise UsageError for a tick or lot that is no positive number."""
    for symbol, steps in grid.items():
        for what, step in zip(("tick", "lot"), steps, strict=True):
            try:
                value = Decimal(step)
            except InvalidOperation:
                value = Decimal("NaN")
            if not value.is_finite() or value <= 0:
                raise UsageError(
                    f"{what} of {symbol}: found {step!r}, expected a positive number such as 0.01; nothing "
                    f"was imported"
                )


def read_grid(path: Path) -> Grid:
    """Read tick and lot by symbol from YAML. UsageError: it cannot be read, or is of another form."""
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read ({error}); nothing was imported") from error
    if not isinstance(told, dict) or not all(
        isinstance(steps, list) and len(steps) == 2 for steps in told.values()
    ):
        raise UsageError(
            f"{path}: expected tick and lot by symbol, as in BTCUSDT: ['0.01', '0.00001']; nothing "
            f"was imported"
        )
    grid = {str(symbol): (str(tick), str(lot)) for symbol, (tick, lot) in told.items()}
    check_grid(grid)
    return grid
