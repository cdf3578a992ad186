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

#: How file systems without hard links refuse `link`; EXDEV where a folder is spread over several disks.
_NO_LINKS = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

#: How file systems refuse to sync a folder, or to open one for that: some of CIFS, NFS, VirtualBox, FUSE.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EISDIR)


class Local:
    """The files that this machine sees, mounted ones too.  Places are paths or file:// URLs."""

    creates_only = True

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: object = None) -> bytes:
        with _naming(place), open(path_of(place), "rb", opener=_open) as file:
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
        with _naming(place):
            found = os.stat(path_of(place))
        if stat.S_ISDIR(found.st_mode):
            return None
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENODEV, "not a regular file", place)
        return found.st_size

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool:
        path = path_of(place)
        folder, name = os.path.split(path)
        with _naming(place):
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
            except OSError as error:  # it names the temporary file
                raise OSError(error.errno, error.strerror, place) from error
            finally:
                with contextlib.suppress(OSError):  # the first error counts
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
    path = path.removeprefix("localhost") if path.startswith("localhost/") else path
    return os.fsdecode(unquote_to_bytes(os.fsencode(path)))


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    """Name the place in an OSError that names no file, and in one for a place that no file can have."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise OSError(error.errno, error.strerror or str(error), place) from error
        raise
    except ValueError as error:  # it has a NUL, or a character that file names cannot have
        raise OSError(errno.EINVAL, str(error), place) from error


def _open(path: str, flags: int) -> int:
    """Open a file.  Without O_NONBLOCK a FIFO without a writer would block forever."""
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK)
    except OSError as error:
        # The answer of some file systems to the flag itself, and of Samba while it has the file lent out.
        if error.errno not in (errno.EAGAIN, errno.EINVAL) or not stat.S_ISREG(os.stat(path).st_mode):
            raise
        return os.open(path, flags)
    os.set_blocking(descriptor, True)
    return descriptor


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
    """Sync the names in a folder.  Where the file system has no way to do so, it keeps them durable without that."""
    with _naming(folder):
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
