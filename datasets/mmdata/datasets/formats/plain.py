"""Plain text of exact numbers, and files of it that appear whole or not at all."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa

from mmdata.datasets.disk import make_folder, refusal, sync_folder
from mmdata.datasets.errors import DiskError


def text_of(column: pa.ChunkedArray) -> pl.Series:
    """Return decimals as people write them: no exponent, no trailing zeros, null as null.

    >>> from decimal import Decimal
    >>> text_of(pa.chunked_array([pa.array([Decimal("0.00000010"), Decimal("100.00000000"), None])])).to_list()
    ['0.0000001', '100', None]
    """
    series = pl.Series(column.cast(pa.decimal128(38, column.type.scale)))
    text = series.cast(pl.String)
    return text.str.strip_chars_end("0").str.strip_chars_end(".") if column.type.scale else text


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write, compressed where its name ends in ``.gz``; it gets its name at the end.

    The same content makes the same bytes. DiskError: it cannot be written; what bore its name stays.
    """
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        make_folder(path.parent)
        with made.open("wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", compresslevel=4, fileobj=raw, mtime=0) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        made.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DiskError(f"{path}: could not be written ({refusal(error)}); what was there stays") from error
    finally:
        made.unlink(missing_ok=True)
