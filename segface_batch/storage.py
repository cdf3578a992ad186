"""Objects that become visible whole or not at all.

An output file is built in memory, written under a temporary name in its folder, made durable and linked to its
final name.  Nothing is ever streamed into place, because a stream publishes what it has when it fails.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import uuid
from pathlib import Path
from urllib.parse import unquote_to_bytes

import fsspec


def read(uri: str, max_bytes: int = sys.maxsize) -> bytes:
    """The whole of a local file or of the object behind a URL (one GET).

    FileNotFoundError, PermissionError, IsADirectoryError, OSError with ENODEV for what is not a regular file and
    with EFBIG for what is larger than `max_bytes`.
    """
    if uri.startswith("file://"):
        uri = os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))
    elif "://" in uri:
        filesystem, path = fsspec.url_to_fs(uri, **_one_get(uri))
        data = filesystem.cat_file(path)
        if len(data) > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), uri)
        return data
    # Without O_NONBLOCK opening a FIFO that nobody writes to would wait for ever.
    with open(uri, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.ENODEV, "not a regular file", uri)
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), uri)
        return file.read()


def _one_get(uri: str) -> dict[str, int]:
    """s3fs asks HEAD before each GET unless it may not split the GET (fsspec/s3fs#1007)."""
    return {"max_concurrency": 1} if uri.startswith(("s3://", "s3a://")) else {}


def put(path: Path, data: bytes) -> bool:
    """Write a file whole.  False, and the file stays as it is, if one of that name exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)  # fails where a rename would overwrite
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def names(folder: Path, suffix: str) -> list[str]:
    """Names in a folder that end so, sorted; none where there is no folder.  Unfinished files are not among them."""
    try:
        entries = os.listdir(folder)
    except FileNotFoundError:
        return []
    return sorted(name for name in entries if name.endswith(suffix) and not name.startswith("."))
