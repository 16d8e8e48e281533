"""Where a dataset lies: a folder here, or a prefix of an S3 bucket; listing it, and opening its files.

Local roots are `pathlib` paths and cost what they cost without this module. A root ``s3://bucket/prefix`` is
an `ObjectPath`: credentials, region and endpoint come from the usual AWS environment variables
(``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL`` ...). Only reading
works there: what writes needs locks, renames and swaps of folders, which an object store does not have.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from mmdata.datasets.errors import DatasetError, DiskError, ReplacedError, UsageError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

Root: TypeAlias = "str | os.PathLike[str]"
"""What a caller may name a dataset by: a path, or ``s3://bucket/prefix`` as text."""
_SCHEME = "s3:"
_BLOCK = 1 << 20


class Told(NamedTuple):
    """What is known of an object, as `os.stat` tells it of a file."""

    st_size: int


class ObjectPath(PurePosixPath):
    """A name in a bucket: a path whose text is ``s3://bucket/key``, and that can be read from.

    >>> root = ObjectPath("s3://bucket/data")
    >>> str(root / "depth"), (root / "depth").key
    ('s3://bucket/data/depth', 'bucket/data/depth')
    """

    size: int | None = None
    """Bytes, where a listing told them."""

    def __str__(self) -> str:
        return f"{_SCHEME}//{self.key}"

    def __fspath__(self) -> str:
        return str(self)

    @property
    def key(self) -> str:
        """The name as the object store has it: bucket, then key."""
        return "/".join(self.parts[1:])

    def exists(self) -> bool:
        """Tell whether there is an object of that name, or one below it. DiskError: nobody answers."""
        import pyarrow.fs as fs

        return bool(self._told().type != fs.FileType.NotFound)

    def stat(self) -> Told:
        """Return the object's size. FileNotFoundError: it is not there. DiskError: nobody answers."""
        if self.size is None:
            found = self._told()
            if found.size is None:
                raise FileNotFoundError(None, "is not there", str(self))
            self.size = int(found.size)
        return Told(self.size)

    def _told(self) -> Any:
        try:
            return _filesystem().get_file_info(self.key)
        except OSError as error:
            raise DiskError(
                f"{self}: the object store cannot be asked ({error}); nothing was read"
            ) from error

    def read_bytes(self) -> bytes:
        """Return all of a small object. FileNotFoundError: it is not there."""
        with _filesystem().open_input_stream(self.key) as stream:
            return bytes(stream.read())


Place = Path | ObjectPath


def root_of(root: Root) -> Place:
    """Return where a dataset lies. UsageError: a bucket is not named.

    A `Path` that was made of ``s3://bucket`` lost a slash, and is understood all the same.
    """
    if isinstance(root, ObjectPath):
        return root
    path = Path(root)
    if path.parts[:1] != (_SCHEME,):
        return path
    if len(path.parts) < 2:
        raise UsageError(f"{os.fspath(root)}: names no bucket, expected s3://bucket/prefix")
    return ObjectPath(*path.parts)


def local_root(root: Root, what: str) -> Path:
    """Return the folder of a dataset that is written, or must hold still. UsageError: it is in a bucket.

    ``what`` says in the sentence who needs that: "a recording".
    """
    place = root_of(root)
    if isinstance(place, ObjectPath):
        raise UsageError(
            f"{place}: {what} needs a local folder, since an object store has no locks and cannot rename; "
            f"nothing was done: work locally and copy the finished dataset there"
        )
    return place


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a table: one exchange, symbol and date."""

    path: Place
    _found: tuple[ObjectPath, ...] = ()
    """What a listing of the bucket found in it."""

    def parquet_files(self) -> list[Place]:
        """Return its Parquet files. FileNotFoundError: a local one was replaced meanwhile."""
        if isinstance(self.path, ObjectPath):
            return [path for path in self._found if path.suffix == ".parquet"]
        before = self.path.stat()
        paths: list[Place] = [path for path in self.path.iterdir() if path.suffix == ".parquet"]
        if not os.path.samestat(before, self.path.stat()):  # else one that is being emptied would be read
            raise FileNotFoundError(None, "was replaced while it was listed", str(self.path))
        return paths


def date_folders(
    table: Place, exchange: str | None, symbol: str | None, date: str | None
) -> Iterator[Folder]:
    """Yield the folders ``exchange=/symbol=/date=`` below ``table``; names as in folders, None for any.

    Without a pattern, so that no name is taken for one. DiskError: the object store cannot be listed.
    """
    if isinstance(table, ObjectPath):
        yield from _listed_folders(table, (exchange, symbol, date))
        return
    for of_exchange in _local_children(table, "exchange=", exchange):
        for of_symbol in _local_children(of_exchange, "symbol=", symbol):
            for of_date in _local_children(of_symbol, "date=", date):
                yield Folder(of_date)


def children(folder: Place) -> list[Place]:
    """Return the folders in ``folder``; none where it does not exist."""
    if isinstance(folder, ObjectPath):
        return [path for path, is_folder in _listing(folder, recursive=False) if is_folder]
    try:
        return [child for child in folder.iterdir() if child.is_dir()]
    except FileNotFoundError:
        return []


def files_below(folder: Place) -> list[Place]:
    """Return the files in ``folder`` and the folders in it, by name; none where it does not exist."""
    if isinstance(folder, ObjectPath):
        return sorted(path for path, is_folder in _listing(folder, recursive=True) if not is_folder)
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def size_of(path: Place) -> int:
    """Return the bytes of a file; 0 where it is no longer there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes. ReplacedError: it is gone. DatasetError: it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except FileNotFoundError as error:
        raise ReplacedError(f"{path}: is no longer there; read again") from error
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error})") from error
    return digest.hexdigest()


def source(path: Place) -> dict[str, Any]:
    """Return the arguments by which pyarrow's Parquet readers open a file.

    FileNotFoundError, OSError and pa.ArrowInvalid come from the readers, of either kind of root.
    """
    if isinstance(path, ObjectPath):
        return {"source": path.key, "filesystem": _filesystem()}
    return {"source": path, "filesystem": None}


def open_parquet(path: Place) -> pq.ParquetFile:
    """Open a Parquet file; a context manager. FileNotFoundError, OSError, pa.ArrowInvalid: it cannot be."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(**source(path))


def read_footer(path: Place) -> pq.FileMetaData:
    """Return a Parquet file's footer. FileNotFoundError, OSError, pa.ArrowInvalid: it cannot be read."""
    import pyarrow.parquet as pq

    opened = source(path)
    return pq.read_metadata(opened["source"], filesystem=opened["filesystem"])


def polars_options(place: Place) -> dict[str, str] | None:
    """Return the ``storage_options`` of Polars for a root; None: a local one needs none."""
    if not isinstance(place, ObjectPath):
        return None
    endpoint, region = _endpoint(), _region()
    options = {"aws_region": region} if region else {}
    if endpoint:
        options |= {"aws_endpoint_url": endpoint, "aws_allow_http": str(endpoint.startswith("http:")).lower()}
    return options


def _local_children(folder: Path, key: str, value: str | None) -> list[Path]:
    if value is not None:
        child = folder / f"{key}{value}"
        return [child] if child.is_dir() else []
    try:
        return [child for child in folder.iterdir() if child.name.startswith(key)]
    except FileNotFoundError:
        return []


def _listed_folders(table: ObjectPath, names: tuple[str | None, ...]) -> Iterator[Folder]:
    """Group one listing by folders: a request a thousand objects, where a walk takes one a folder."""
    known = table
    for key, name in zip(_KEYS, names, strict=True):
        if name is None:
            break
        known /= key + name
    found: dict[ObjectPath, list[ObjectPath]] = {}
    for path, is_folder in _listing(known, recursive=True):
        if not is_folder:
            found.setdefault(path.parent, []).append(path)
    for folder, files in found.items():
        own = folder.relative_to(table).parts
        if len(own) == len(_KEYS) and all(map(_fits, own, _KEYS, names)):
            yield Folder(folder, tuple(files))


_KEYS = ("exchange=", "symbol=", "date=")


def _fits(part: str, key: str, name: str | None) -> bool:
    return part.startswith(key) if name is None else part == key + name


def _listing(folder: ObjectPath, *, recursive: bool) -> Iterator[tuple[ObjectPath, bool]]:
    """Yield what lies below ``folder``, and whether it is a folder."""
    import pyarrow.fs as fs

    selector = fs.FileSelector(folder.key, recursive=recursive, allow_not_found=True)
    try:
        found = _filesystem().get_file_info(selector)
    except OSError as error:
        raise DiskError(
            f"{folder}: the object store could not be listed ({error}); nothing was read"
        ) from error
    for told in found:
        path = ObjectPath(f"{_SCHEME}//{told.path}")
        path.size = told.size
        yield path, told.type == fs.FileType.Directory


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _region() -> str:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""


def _filesystem() -> Any:
    """Return the object store that the environment speaks of; made once for each."""
    told = (os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_PROFILE"))
    return _connected(_endpoint(), _region(), *told)


@functools.lru_cache(maxsize=4)
def _connected(endpoint: str, region: str, *_who: str) -> Any:
    import pyarrow.fs as fs

    options: dict[str, Any] = {"region": region} if region else {}
    if endpoint:  # pyarrow does not read it from the environment
        address = urlsplit(endpoint)
        options |= {"endpoint_override": address.netloc + address.path.rstrip("/"), "scheme": address.scheme}
    return fs.S3FileSystem(connect_timeout=10, **options)
