"""The encoded bytes of planned images, or for each the reason why there are none.

Loose images are read side by side; members of a tar file by one request, from the first header to the last byte; rows
of a Parquet file by reading their row group up to them.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa

from segface_batch import storage
from segface_batch.inputs import parquet, tar
from segface_batch.inputs.image import Cell, SourceImage
from segface_batch.storage.redact import one_line

#: Waiting for a disk or a network costs no CPU.
THREADS = 16

#: An image within `max_pixels` is smaller in every format that is read.
MAX_BYTES = 512 * 2**20


#: The words for the numbers of storage's errors.
_WORDS = {
    errno.ENOENT: "missing", errno.ENOTDIR: "missing",
    errno.EACCES: "forbidden", errno.EPERM: "forbidden",
    errno.EISDIR: "not_a_file", errno.ENODEV: "not_a_file",
    errno.EINVAL: "bad_uri", errno.ENAMETOOLONG: "bad_uri",
    errno.EFBIG: "too_large", errno.ESTALE: "changed",
}  # fmt: skip


class Answer(NamedTuple):
    """An image's bytes, or the word of the error, the message of whoever refused them, and the error where it says that
    the whole storage is unavailable."""

    data: bytes | None
    error: str | None = None
    message: str = ""
    fault: storage.StorageUnavailable | None = None


def fetch_images(images: Sequence[SourceImage], *, any_length: bool = False) -> list[Answer]:
    """An answer for every image, in order.  They are of one unit: loose, or of one tar file, or of one row group.

    With `any_length` a file may have become another one since it was planned.  What goes wrong while one image is read
    is its answer.
    """
    deadline = storage.Deadline()
    readable = [image for image in images if image.error is None]
    if not readable:
        found = []
    elif readable[0].cell is not None:
        found = _from_parquet(readable)
    elif readable[0].offset is not None:
        found = _from_tar(readable, deadline)
    else:
        with ThreadPoolExecutor(THREADS) as threads:
            found = list(threads.map(lambda image: _of_file(image, deadline, any_length), readable))
    left = iter(found)
    return [next(left) if image.error is None else Answer(None, image.error) for image in images]


def _of_file(image: SourceImage, deadline: storage.Deadline, any_length: bool) -> Answer:
    try:
        data = storage.read(_place(image), MAX_BYTES, deadline=deadline)
    except OSError as error:
        return _refused(error)
    is_other = not any_length and image.n_bytes not in (0, len(data))
    return Answer(None, "changed") if is_other else Answer(data)


def _from_tar(images: Sequence[SourceImage], deadline: storage.Deadline) -> list[Answer]:
    small = [image for image in images if image.n_bytes <= MAX_BYTES]
    if not small:
        return [Answer(None, "too_large") for _ in images]
    start, end = _offset(small[0]) - tar.BLOCK, _offset(small[-1]) + small[-1].n_bytes
    try:
        data = storage.read(_place(small[0]), span=(start, end), deadline=deadline)
    except OSError as error:
        refused = _refused(error)
        return [refused for _ in images]
    return [_of_member(image, memoryview(data), start) for image in images]


def _of_member(image: SourceImage, data: memoryview, start: int) -> Answer:
    """The image, if its header still stands before it."""
    at, n_bytes = _offset(image) - start, image.n_bytes
    if n_bytes > MAX_BYTES:
        return Answer(None, "too_large")
    if not tar.is_header(bytes(data[at - tar.BLOCK : at]), n_bytes):
        return Answer(None, "changed")
    return Answer(bytes(data[at : at + n_bytes]))


def _offset(image: SourceImage) -> int:
    assert image.offset is not None
    return image.offset


def _from_parquet(images: Sequence[SourceImage]) -> list[Answer]:
    cells: list[Cell] = [image.cell for image in images if image.cell is not None]
    try:
        found = parquet.read(_place(images[0]), cells)
    except OSError as error:
        # Arrow's own errors, which it has for damaged pages, are OSErrors without a number.
        refused = _refused(error) if error.errno else Answer(None, "unreadable", one_line(error))
        return [refused for _ in images]
    except (pa.ArrowException, LookupError, TypeError, ValueError) as error:  # of another or a damaged file
        return [Answer(None, "unreadable", one_line(error)) for _ in images]
    return [_of_cell(data) for data in found]


def _of_cell(data: bytes | None) -> Answer:
    if data is None:
        return Answer(None, "missing")
    return Answer(data) if len(data) <= MAX_BYTES else Answer(None, "too_large")


def _place(image: SourceImage) -> str:
    return image.place or image.uri


def _refused(error: OSError) -> Answer:
    """The answer with the word of `errors.ERRORS` for an image that could not be read."""
    fault = error if isinstance(error, storage.StorageUnavailable) else None
    return Answer(None, _WORDS.get(error.errno or 0, "unfetchable"), one_line(error), fault)
