"""Lines of a capture file, ours or hftbacktest's collector's, plain, gzip or zstd.

Ours: ``<recv ns> <conn> <frame>`` and ``<recv ns> r<n> {REST answer}`` under a header line; the
collector's: ``<local ns> <json>``. The sandbox reads them by its own code, so that a slip in the
recorder's reader does not hide one in its writer.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from mmdata.datasets.errors import DatasetError, DiskError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".open", ".cap", ".cap.zst", ".gz")


class Frame(NamedTuple):
    """A text frame as it came; ``ts_recv`` in ns."""

    ts_recv: int
    text: str


class RestBody(NamedTuple):
    """The body of a REST answer of status 200; ``url`` is None where the capture does not say it."""

    ts_recv: int
    url: str | None
    body: str


Line: TypeAlias = Frame | RestBody


class _Rest(msgspec.Struct):
    url: str
    status: int
    body: str


_decode_rest = msgspec.json.Decoder(_Rest).decode


def capture_files(path: Path) -> list[Path]:
    """Return a file itself, or a folder's segments by name; DatasetError when there is none."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.endswith(_SUFFIXES))
    if not found:
        raise DatasetError(f"{path} holds no capture (*{', *'.join(_SUFFIXES)})")
    return found


def read_capture(path: Path) -> Iterator[Line]:
    """Yield the frames and REST bodies of a capture, in its order.

    What the recorder sent and noted is left out, and so is a last line without its end. DatasetError
    names the line that is of neither format; DiskError when the file cannot be read.
    """
    try:
        with path.open("rb") as raw:
            for number, line in enumerate(_unpacked(raw), 1):
                if not line.endswith(b"\n"):
                    return
                if line.startswith(b"#"):
                    continue
                try:
                    parsed = _parse(line[:-1])
                except (ValueError, msgspec.DecodeError) as error:
                    raise DatasetError(
                        f"{path}, line {number}: {line[:60]!r} is not a line of a capture: {error}"
                    ) from error
                if parsed is not None:
                    yield parsed
    except (OSError, EOFError) as error:
        raise DiskError(f"the capture {path} cannot be read: {error}") from error


def _unpacked(raw: io.BufferedIOBase) -> io.BufferedIOBase:
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP):
        return gzip.GzipFile(fileobj=raw)
    if magic == _ZSTD:
        import pyarrow as pa  # heavy, and few captures are packed so

        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"))
    return raw


def _parse(line: bytes) -> Line | None:
    stamp, _, rest = line.partition(b" ")
    ts_recv = int(stamp)
    if rest.startswith(b"{"):
        return _foreign(ts_recv, rest)
    tag, _, content = rest.partition(b" ")
    if tag.isdigit():
        return Frame(ts_recv, content.decode())
    if tag.startswith(b"r"):
        answer = _decode_rest(content)
        return RestBody(ts_recv, answer.url, answer.body) if answer.status == 200 else None
    if tag.endswith(b"b") and tag[:-1].isdigit():
        try:
            return Frame(ts_recv, base64.b64decode(content, validate=True).decode())
        except (binascii.Error, UnicodeDecodeError):
            return None  # a binary frame; neither venue publishes any on these sockets
    if tag == b"e" or tag.startswith(b"s"):
        return None
    raise ValueError(f"unknown mark {tag.decode(errors='replace')!r}")


def _foreign(ts_recv: int, content: bytes) -> Line:
    text = content.decode()
    # The collector writes a REST snapshot among the frames, bare.
    if text.startswith('{"lastUpdateId"'):
        return RestBody(ts_recv, None, text)
    return Frame(ts_recv, text)
