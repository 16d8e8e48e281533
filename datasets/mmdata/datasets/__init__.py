"""The tables, and what is known of them: schema, chain rules, book kernel, validator, readers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmdata.datasets.aggregation import bars
    from mmdata.datasets.certificate import certify, verify
    from mmdata.datasets.compaction import compact
    from mmdata.datasets.comparing import compare
    from mmdata.datasets.contents import catalog
    from mmdata.datasets.exporting import export
    from mmdata.datasets.formats.importing import import_tables
    from mmdata.datasets.frames import books, books_at, iter_books
    from mmdata.datasets.merging import merge
    from mmdata.datasets.proofs import segments
    from mmdata.datasets.reading import scan, trades
    from mmdata.datasets.validation import validate

__all__ = [
    "bars",
    "books",
    "books_at",
    "catalog",
    "certify",
    "compact",
    "compare",
    "export",
    "import_tables",
    "iter_books",
    "merge",
    "scan",
    "segments",
    "trades",
    "validate",
    "verify",
]

_HOMES = {
    "bars": "mmdata.datasets.aggregation",
    "books": "mmdata.datasets.frames",
    "books_at": "mmdata.datasets.frames",
    "catalog": "mmdata.datasets.contents",
    "certify": "mmdata.datasets.certificate",
    "compact": "mmdata.datasets.compaction",
    "compare": "mmdata.datasets.comparing",
    "export": "mmdata.datasets.exporting",
    "import_tables": "mmdata.datasets.formats.importing",
    "iter_books": "mmdata.datasets.frames",
    "merge": "mmdata.datasets.merging",
    "scan": "mmdata.datasets.reading",
    "segments": "mmdata.datasets.proofs",
    "trades": "mmdata.datasets.reading",
    "validate": "mmdata.datasets.validation",
    "verify": "mmdata.datasets.certificate",
}


def __getattr__(name: str) -> Any:
    """Load a public function when it is first asked for: Polars and numba take their time."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
