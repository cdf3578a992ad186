"""Objects in a folder or an object store.  An object becomes visible whole or not at all.

A place is an absolute path or a URL: `s3://bucket/prefix`, or any that fsspec knows (`gs://`, `hf://`, `memory://`).  A
folder is a place too; `join` gives the places in it.  Nothing is ever streamed into place, because a stream that fails
publishes what it has so far.

All functions raise the same errors, in one line that names the place: FileNotFoundError; PermissionError for one
object; `StorageUnavailable` for the whole storage; IsADirectoryError; OSError with ENODEV for what is not a regular
file, EFBIG for what is larger than allowed, ESTALE for what has changed, EINVAL for a place that nothing can have, EIO
after `retry.SECONDS` of trying, and EPROTO for any other answer.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache

from segface_batch.storage import failpoint, options as _options
from segface_batch.storage.errors import StorageUnavailable
from segface_batch.storage.local import Local
from segface_batch.storage.place import absolute, folder_of, is_inside, is_url, is_valid, join, local_path, name_of
from segface_batch.storage.retry import Deadline
from segface_batch.storage.store import Entry, Store

__all__ = [
    "Deadline", "Entry", "StorageUnavailable", "absolute", "configure", "creates_only", "folder_of", "get_size",
    "is_inside", "is_url", "is_valid", "join", "list_names", "list_objects", "local_path", "name_of", "put", "read",
    "remove", "replace",
]  # fmt: skip


def configure(options: str | None, s3_client: str = "s3fs") -> None:
    """Set the storage options (JSON or a JSON file) and the client for s3:// of this process.

    Cheap where nothing changes.  ValueError or FileNotFoundError, in one line.
    """
    if _options.configure(options, s3_client):
        _remote.cache_clear()


def read(
    place: str, max_bytes: int = sys.maxsize, span: tuple[int, int] | None = None, deadline: Deadline | None = None
) -> bytes:
    """The bytes of an object: all, or those of `span` (start, end), the end excluded.  One GET.

    Reads that share a deadline fail together, so that many of them wait for a dead store no longer than one.
    OSError with ESTALE for a file that changes while it is read, and for an object that ends before the span does.
    """
    length = None if span is None else span[1] - span[0]
    if length == 0:
        return b""
    if length is not None and length > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
    data = _store(place).read(place, max_bytes, span, deadline)
    if length is not None and len(data) != length:
        raise OSError(errno.ESTALE, f"has {len(data)} of the {length} bytes: changed since it was listed", place)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
    return data


def get_size(place: str) -> int | None:
    """The size of an object in bytes; None for a folder."""
    return _store(place).get_size(place)


def put(place: str, data: bytes) -> bool:
    """Create an object.  False, and nothing changes, where the name is taken.

    Where the storage has no way to do both at once, that holds unless two do so at the same moment (`creates_only`).
    A retry after a lost answer finds its own object and says False too; compare the content to tell which it was.
    """
    failpoint.reached("before", place)
    written = _store(place).put(place, data, overwrite=False)
    failpoint.reached("after", place)
    return written


def creates_only(place: str) -> bool:
    """True if, as far as is known, two that `put` an object at the same moment cannot both win.

    Some stores do not say so (`doctor` finds out): they overwrite.
    """
    return _store(place).creates_only


def replace(place: str, data: bytes) -> None:
    """Write an object over the one of that name, which readers see until the new one is complete."""
    failpoint.reached("before", place)
    _store(place).put(place, data, overwrite=True)
    failpoint.reached("after", place)


def remove(places: Iterable[str]) -> None:
    """Remove objects of one bucket, or local files and whole folders.  Absent ones are no error."""
    for place in (places := list(places)):
        failpoint.reached("removing", place)
    if places:
        _store(places[0]).remove(places)


def list_names(folder: str, suffix: str) -> list[str]:
    """The sorted names of all objects below a folder that end in `suffix`, relative to it; empty for an absent folder.

    Leaves out unfinished and hidden files, whose names start with a dot.
    """
    start = len(folder.rstrip("/")) + 1
    found = (entry.place[start:] for entry in list_objects(folder))
    return sorted(name for name in found if name.endswith(suffix) and not name.rpartition("/")[2].startswith("."))


def list_objects(folder: str) -> Iterator[Entry]:
    """Every object below a folder, streamed in a stable order; nothing for an absent folder."""
    return _store(folder).list_objects(folder)


_LOCAL = Local()


def _store(place: str) -> Store:
    return _LOCAL if local_path(place) is not None else _remote(place.partition("://")[0].lower())


@cache  # cheap: a store connects at its first request
def _remote(scheme: str) -> Store:
    """The store of a URL scheme under this process's options; StorageUnavailable where its package is missing."""
    from segface_batch.storage import remote

    if scheme in ("http", "https"):
        from segface_batch.storage.http import Http

        return Http(scheme)
    if scheme not in ("s3", "s3a"):
        return remote.Fsspec(scheme)
    given = _options.given("s3")
    if _options.s3_client() == "s3fs":
        return remote.S3fs(given)
    try:
        from segface_batch.storage.obstore_client import Obstore
    except ImportError as error:
        hint = "pip install 'segface-batch[fast-s3]', or use --s3-client s3fs"
        raise StorageUnavailable(errno.EACCES, f"{error}: {hint}", f"{scheme}://") from error
    return Obstore(given)
