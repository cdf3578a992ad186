"""A place as a seekable file that is read in pieces: headers of a tar file, columns of a Parquet file, lines."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import Any
from urllib.parse import unquote_to_bytes

from segface_batch import storage
from segface_batch.storage import retry


class Ranged(io.RawIOBase):
    """One request for each read, and none beyond the end; OSError as of storage.read."""

    def __init__(self, place: str, n_bytes: int) -> None:
        self.place = place
        self.n_bytes = n_bytes
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.n_bytes}[whence]
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        end = self.n_bytes if size is None or size < 0 else min(self.position + size, self.n_bytes)
        if end <= self.position:
            return b""
        data = storage.read(self.place, span=(self.position, end))
        self.position = end
        return data

    def readinto(self, buffer: Any) -> int:  # a writable buffer, which Python 3.11 has no type for
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def opened(place: str, n_bytes: int, block: int) -> io.BufferedReader:
    """The place as a file that is read `block` bytes at a time."""
    path = local_path(place)
    return io.BufferedReader(Ranged(place, n_bytes) if path is None else io.FileIO(path), block)


def size(place: str) -> int | None:
    """Bytes of a file or object, None for a folder; FileNotFoundError where there is nothing."""
    path = local_path(place)
    if path is not None:
        found = os.stat(path)
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENODEV, "not a regular file", place)
        return found.st_size
    info = _info(place)
    if info["type"] == "directory":
        return None
    # Some HTTP servers do not tell the size of what they make on demand.
    return len(storage.read(place)) if info.get("size") is None else int(info["size"])


def local_path(place: str) -> str | None:
    """The path of a local place, None for any other; a file:// URL keeps every byte of names that are no UTF-8."""
    if place.startswith("file://"):
        return os.fsdecode(unquote_to_bytes(place.removeprefix("file://")))
    return None if storage.is_url(place) else place


def _info(place: str) -> dict[str, Any]:
    import fsspec

    try:
        filesystem, path = fsspec.url_to_fs(place)
    except (ImportError, ValueError) as error:
        raise storage.Unusable(errno.ENOSYS, f"{place.partition('://')[0]}:// URLs: {error}") from None
    return retry.patiently(lambda: filesystem.info(path), place)
