"""Remote objects: s3:// through s3fs, any other URL through fsspec."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import fsspec
from fsspec.asyn import sync

from segface_batch.storage import account, retry
from segface_batch.storage.errors import StorageUnavailable
from segface_batch.storage.store import Entry

#: Simultaneous requests of one process: the threads of `inputs.fetch`, and some to spare.
CONNECTIONS = 32

#: How stores refuse what they do not know: 501, and 400, 405 or 411.
_UNKNOWN = (errno.ENOSYS, errno.EPROTO)

#: The most keys in one DeleteObjects request (docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html).
_DELETED_AT_ONCE = 1000


class Fsspec:
    """The file system that fsspec has for a scheme.  Two writers who create an object at the same moment may both win.

    StorageUnavailable where fsspec has none, or lacks its package.
    """

    creates_only = False

    def __init__(self, scheme: str) -> None:
        try:
            self.filesystem: fsspec.AbstractFileSystem = fsspec.filesystem(scheme)
        except Exception as error:  # each file system has its own for what it needs besides
            raise StorageUnavailable(errno.EINVAL, f"{scheme}:// URLs: {_first_line(error)}", f"{scheme}://") from error

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: retry.Deadline | None) -> bytes:
        start, end = span or (None, None)
        data: Any = retry.patiently(lambda: self.filesystem.cat_file(place, start=start, end=end), place, deadline)
        return data

    def get_size(self, place: str) -> int | None:
        info: Any = retry.patiently(lambda: self.filesystem.info(place), place)
        if info["type"] == "directory":
            return None
        return len(self.read(place, sys.maxsize, None, None)) if info.get("size") is None else int(info["size"])

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool:
        def request() -> bool:
            try:
                self.filesystem.pipe_file(place, data, mode="overwrite" if overwrite else "create")
            except FileExistsError:
                return False
            return True

        return retry.patiently(request, place)

    def remove(self, places: Iterable[str]) -> None:
        for place in places:
            try:
                retry.patiently(lambda place=place: self.filesystem.rm(place), place)
            except FileNotFoundError:
                continue

    def list_objects(self, folder: str) -> Iterator[Entry]:
        """Depth first, each folder sorted by name.  Holds the entries of a folder and of those above it in memory."""
        root = str(self.filesystem._strip_protocol(folder)).rstrip("/")
        yield from self._list_below(folder.rstrip("/"), root, root)

    def _list_below(self, place: str, root: str, folder: str) -> Iterator[Entry]:
        try:
            infos = retry.patiently(lambda: self.filesystem.ls(folder, detail=True), place)
        except FileNotFoundError:
            return
        for info in sorted(infos, key=lambda info: info["name"]):
            name = info["name"].rstrip("/")
            if name == folder:  # some file systems list the folder in itself
                continue
            if info["type"] == "directory":
                yield from self._list_below(place, root, name)
            else:
                yield Entry(place + info["name"].removeprefix(root), int(info["size"] or 0))


class S3fs:
    """s3:// through s3fs: one GET reads an object, one conditional PUT creates it, and listings stream by page.

    `given` are the storage options for s3.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        #: False once the store has refused what some do not know: PUT with If-None-Match, DeleteObjects without a MD5.
        self.creates_only = self._deletes_many = True
        self._given = given
        self._lock = threading.Lock()
        self._connected: Any = None

    @property
    def filesystem(self) -> Any:
        """The file system of s3fs, which the first thread that needs it connects."""
        with self._lock:
            if self._connected is None:
                try:
                    self._connected = self._connect()
                except (TypeError, ValueError) as error:  # wrong options
                    raise StorageUnavailable(errno.EACCES, f"--storage-options: {error}", "s3://") from error
            return self._connected

    def _connect(self) -> Any:
        config = {
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": account.CONNECT_TIMEOUT,
            "read_timeout": account.READ_TIMEOUT,
            **(self._given.get("config_kwargs") or {}),
            "retries": {"total_max_attempts": 1},  # retry.py does that
        }
        client = dict(self._given.get("client_kwargs") or {})
        if region := os.environ.get("AWS_REGION"):  # which botocore does not read
            client.setdefault("region_name", region)
        settings = {**self._given, "config_kwargs": config, "client_kwargs": client}
        filesystem: Any = fsspec.filesystem(
            "s3", **settings | {"use_listings_cache": False, "skip_instance_cache": True}
        )
        filesystem.retries = 1
        filesystem.connect()
        return filesystem

    def get_size(self, place: str) -> int | None:
        info: Any = retry.patiently(lambda: self.filesystem.info(place), place)
        return None if info["type"] == "directory" else int(info["size"])

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: retry.Deadline | None) -> bytes:
        bucket, key = split(place)
        part = {"Range": f"bytes={span[0]}-{span[1] - 1}"} if span is not None else {}

        async def get() -> bytes:
            # `cat_file` of s3fs sends a HEAD first (fsspec/s3fs#1007) and reads an object of any size.
            answer = await self.filesystem._call_s3("get_object", Bucket=bucket, Key=key, **part)
            try:
                if (answer.get("ContentLength") or 0) > max_bytes:
                    raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
                return await answer["Body"].read()
            finally:
                answer["Body"].close()

        data: Any = retry.patiently(lambda: sync(self.filesystem.loop, get), place, deadline)
        return data

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool:
        if overwrite or self.creates_only:
            try:
                return self._put(place, data, overwrite)
            except OSError as error:
                if overwrite or error.errno not in _UNKNOWN:
                    raise
        with contextlib.suppress(FileNotFoundError):
            self.get_size(place)
            return False
        # A race here does no harm: both writers have the same content.
        self._put(place, data, True)
        self.creates_only = False
        return True

    def _put(self, place: str, data: bytes, overwrite: bool) -> bool:
        bucket, key = split(place)
        request = {"Bucket": bucket, "Key": key, "Body": data} | ({} if overwrite else {"IfNoneMatch": "*"})
        return retry.patiently(lambda: create(lambda: self.filesystem.call_s3("put_object", **request)), place)

    def remove(self, places: Iterable[str]) -> None:
        left = iter(places)
        while chunk := list(itertools.islice(left, _DELETED_AT_ONCE)):
            if self._deletes_many:
                try:
                    self._delete(chunk)
                    continue
                except OSError as error:
                    if error.errno not in _UNKNOWN:
                        raise
                    self._deletes_many = False
            for place in chunk:
                self._delete_one(place)

    def _delete(self, places: list[str]) -> None:
        bucket, keys = split(places[0])[0], [split(place)[1] for place in places]
        root = places[0].removesuffix(keys[0])
        request = {"Bucket": bucket, "Delete": {"Objects": [{"Key": key} for key in keys], "Quiet": True}}

        def delete() -> None:
            for failed in self.filesystem.call_s3("delete_objects", **request).get("Errors", ()):
                number = errno.EACCES if failed["Code"] == "AccessDenied" else errno.EIO
                raise OSError(number, failed["Code"], root + failed["Key"])

        retry.patiently(delete, places[0])

    def _delete_one(self, place: str) -> None:
        bucket, key = split(place)
        with contextlib.suppress(FileNotFoundError):
            retry.patiently(lambda: self.filesystem.call_s3("delete_object", Bucket=bucket, Key=key), place)

    def list_objects(self, folder: str) -> Iterator[Entry]:
        """Sorted by the bytes of the keys, one request per 1000."""
        bucket, prefix = split(folder.rstrip("/"))
        root = f"{folder.partition('://')[0]}://{bucket}"
        request = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            page = retry.patiently(lambda: self.filesystem.call_s3("list_objects_v2", **request), folder)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):  # a folder marker of some tools
                    yield Entry(f"{root}/{found['Key']}", found["Size"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def split(place: str) -> tuple[str, str]:
    """The bucket and the key of a place."""
    bucket, _, key = place.partition("://")[2].partition("/")
    return bucket, key


def create(put: Callable[[], object]) -> bool:
    """Send a PUT; False where it was to create an object and one exists."""
    try:
        put()
    except Exception as error:
        if retry.status_and_code(error)[0] == 412:
            return False
        raise
    return True
