"""Objects of a folder or an object store that become visible whole or not at all.

Places are absolute paths or URLs (`s3://bucket/prefix`, and whatever fsspec knows: `gs://`, `hf://`, `memory://`); a
folder is a place too, and `join` names what is in it.  Nothing is ever streamed into place, because a stream publishes
what it has when it fails.

Everywhere, in one line that names the place: FileNotFoundError; PermissionError for one object; `Unusable` where no
object of the place can be had; IsADirectoryError; OSError with ENODEV for what is not a regular file, EFBIG for what
is larger than allowed, ESTALE for what changes, EIO after `retry.SECONDS` of trying.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache

from segface_batch.storage import failpoint, options as _options
from segface_batch.storage.local import Local, path_of
from segface_batch.storage.retry import Deadline
from segface_batch.storage.store import Entry, Store, Unusable

__all__ = [
    "Deadline", "Entry", "Unusable", "absolute", "configure", "is_url", "join", "listing", "local_path", "name_of",
    "names", "put", "read", "remove", "replace", "size",
]  # fmt: skip


def is_url(place: str) -> bool:
    return "://" in place


def configure(options: str | None, s3_client: str = "s3fs") -> None:
    """Make storage options (a JSON file or JSON) and the client for s3:// those of this process; cheap if they are.

    ValueError or FileNotFoundError, in one line.
    """
    if _options.configure(options, s3_client):
        _remote.cache_clear()


def local_path(place: str) -> str | None:
    """The path of a local place, None for any other."""
    return path_of(place) if place.startswith("file://") or not is_url(place) else None


def absolute(place: str) -> str:
    """A URL as it is, without a slash at the end; a path, of a file:// URL too, from the root on."""
    if not is_url(place) or place.startswith("file://"):
        return os.path.abspath(path_of(place))
    if not place.partition("://")[2].strip("/"):
        raise ValueError(f"'{place}' names no bucket; give s3://BUCKET/FOLDER")
    return place.rstrip("/")


def join(place: str, *names: str) -> str:
    return "/".join([place.rstrip("/"), *names])


def name_of(place: str) -> str:
    """The last word of a place."""
    return place.rstrip("/").rpartition("/")[2]


def read(
    place: str, max_bytes: int = sys.maxsize, span: tuple[int, int] | None = None, deadline: Deadline | None = None
) -> bytes:
    """The whole of an object, or its bytes from the first number of `span` up to the second (exclusive); one GET.

    Reads that share a deadline fail together: against a dead store they take the time of one.  OSError with ESTALE for
    a file that changes while it is read, and for an object that ends within the span.
    """
    length = None if span is None else span[1] - span[0]
    if length == 0:
        return b""
    if length is not None and length > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
    data = _store(place).read(place, max_bytes, span, deadline)
    if length is not None and len(data) != length:
        raise OSError(errno.ESTALE, f"has {len(data)} of the {length} bytes: changed since they were found", place)
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
    return data


def size(place: str) -> int | None:
    """Bytes of an object, None for a folder."""
    return _store(place).size(place)


def put(place: str, data: bytes) -> bool:
    """Write an object whole.  False, and the object stays as it is, if one of that name exists.

    An answer lost on the way may make one's own object "exist": who needs to know compares what is there.
    """
    failpoint.reached("before", place)
    written = _store(place).put(place, data, overwrite=False)
    failpoint.reached("after", place)
    return written


def replace(place: str, data: bytes) -> None:
    """Write an object whole in place of the one of that name, which readers see until then."""
    failpoint.reached("before", place)
    _store(place).put(place, data, overwrite=True)
    failpoint.reached("after", place)


def remove(places: Iterable[str]) -> None:
    """Remove objects of one bucket, or local folders with all that is in them; absent ones are no error."""
    for place in (places := list(places)):
        failpoint.reached("removing", place)
    if places:
        _store(places[0]).remove(places)


def names(folder: str, suffix: str) -> list[str]:
    """Names below a folder (with slashes where they lie deeper) that end so, sorted; none where there is no folder.

    Unfinished and hidden files, whose names start with a dot, are not among them.
    """
    start = len(folder.rstrip("/")) + 1
    found = (entry.place[start:] for entry in listing(folder))
    return sorted(name for name in found if name.endswith(suffix) and not name.rpartition("/")[2].startswith("."))


def listing(folder: str) -> Iterator[Entry]:
    """Every object below a folder, as it is listed and in a stable order; nothing where there is no folder."""
    return _store(folder).listing(folder)


_LOCAL = Local()


def _store(place: str) -> Store:
    scheme = place.partition("://")[0] if is_url(place) else ""
    return _LOCAL if scheme in ("", "file") else _remote(scheme)


@cache  # what is costly in a store is made at its first use, by one thread
def _remote(scheme: str) -> Store:
    from segface_batch.storage import remote

    return remote.store(scheme)
