"""An object as a seekable file that is read in pieces: tar headers, Parquet columns, lines of text."""

from __future__ import annotations

import io
import os
from typing import Any

from segface_batch import storage


class Ranged(io.RawIOBase):
    """One request per read, none beyond the end.  OSError as by storage.read."""

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


class _Blocks(io.BufferedReader):
    """Reads whole blocks for lines of text too: `read1`, by which TextIOWrapper asks for 8 KiB, else reads no more."""

    def read1(self, size: int = -1, /) -> bytes:
        self.peek()
        return super().read1(size)


def open_ranged(place: str, n_bytes: int, block: int) -> io.BufferedReader:
    """An object of `n_bytes` as a file that is read `block` bytes at a time."""
    path = storage.local_path(place)
    return _Blocks(Ranged(place, n_bytes) if path is None else io.FileIO(path), block)
