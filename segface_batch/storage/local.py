"""Local files: written under a temporary name in the same folder, made durable, then linked to the final name."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

from segface_batch.storage import failpoint
from segface_batch.storage.store import Entry

#: How file systems without hard links refuse `link`.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Local:
    """The files that this machine sees, mounted ones too.  Places are paths or file:// URLs."""

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: object = None) -> bytes:
        # Without O_NONBLOCK, opening a FIFO without a writer would block forever.
        with open(path_of(place), "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.ENODEV, "not a regular file", place)
            start, end = span or (0, before.st_size)
            if end - start > max_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
            file.seek(start)
            data = file.read(end - start)
            after = os.fstat(file.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise OSError(errno.ESTALE, "changed while it was read", place)
        return data

    def get_size(self, place: str) -> int | None:
        found = os.stat(path_of(place))
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENODEV, "not a regular file", place)
        return found.st_size

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool:
        path = path_of(place)
        folder, name = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{name}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            failpoint.reached("written", place)
            if overwrite:
                os.replace(temporary, path)
            else:
                _create(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:  # of a full disk: it names no file
            raise OSError(error.errno, error.strerror, place) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _make_durable(folder)
        return True

    def remove(self, places: Iterable[str]) -> None:
        for path in map(path_of, places):
            try:
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
            except FileNotFoundError:
                if os.path.lexists(path):  # another process removes the same folder
                    self.remove([path])

    def list_objects(self, folder: str) -> Iterator[Entry]:
        """Depth first, each folder sorted by name.  Places are paths, for a file:// URL too."""
        try:
            with os.scandir(path_of(folder)) as children:
                entries = sorted(children, key=lambda entry: entry.name)
        except FileNotFoundError:
            return
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from self.list_objects(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):  # just removed
                    yield Entry(entry.path, entry.stat(follow_symlinks=False).st_size)


def is_file_url(place: str) -> bool:
    return place[:7].lower() == "file://"


def path_of(place: str) -> str:
    """The path of a local place.  A file:// URL may encode names that are not UTF-8, and name this host."""
    if not is_file_url(place):
        return place
    path = place[7:]
    return os.fsdecode(unquote_to_bytes(path.removeprefix("localhost") if path.startswith("localhost/") else path))


def _create(temporary: str, place: str) -> None:
    """Give a temporary file its final name; FileExistsError where that is taken."""
    try:
        os.link(temporary, place)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A race here does no harm: both writers have the same content.
        if os.path.exists(place):
            raise FileExistsError(place) from None
        os.replace(temporary, place)


def _make_durable(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
