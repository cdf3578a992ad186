"""Objects behind URLs, through fsspec and s3fs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
from fsspec.config import conf

from segface_batch.storage import retry
from segface_batch.storage.store import Entry, Store, Unusable

#: Requests of one process at the same time: the threads of `inputs.fetch`, and some to spare.
CONNECTIONS = 32

#: s3fs splits an object from 100 MB on, unless its parts are larger; one PUT may have 5 GB.
_ONE_PUT = 5 * 2**30


def store(scheme: str) -> Store:
    """The store of a URL scheme as this process is configured; Unusable without the package for it."""
    if scheme in ("s3", "s3a"):
        if conf.get("segface_batch", {}).get("s3_client") == "obstore":
            from segface_batch.storage.fast import Obstore

            return Obstore()
        return S3()
    try:
        return Fsspec(fsspec.filesystem(scheme))
    except (ImportError, ValueError) as error:
        raise Unusable(errno.ENOSYS, f"{scheme}:// URLs: {error}") from None


class Fsspec:
    """Any file system of fsspec.  Only `memory` and S3 create objects without overwriting at the same moment."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem) -> None:
        self.filesystem = filesystem

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None) -> bytes:
        if span is not None and span[1] - span[0] > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
        start, end = span or (None, None)
        data = retry.patiently(lambda: self.filesystem.cat_file(place, start=start, end=end), place)
        if len(data) > max_bytes:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
        return data

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool:
        if not overwrite and retry.patiently(lambda: self.filesystem.exists(place), place):
            return False
        retry.patiently(lambda: self.filesystem.pipe_file(place, data), place)
        return True

    def remove(self, places: Iterable[str]) -> None:
        for place in places:
            try:
                retry.patiently(lambda place=place: self.filesystem.rm(place), place)
            except FileNotFoundError:
                continue

    def listing(self, folder: str) -> Iterator[Entry]:
        """Holds one folder at a time."""
        scheme = folder.partition("://")[0]
        try:
            for _, _, files in self.filesystem.walk(folder, detail=True, on_error="raise"):
                for info in sorted(files.values(), key=lambda info: info["name"]):
                    name = self.filesystem.unstrip_protocol(info["name"]) if "://" not in info["name"] else info["name"]
                    yield Entry(f"{scheme}://{name.partition('://')[2]}", int(info.get("size") or 0))
        except FileNotFoundError:
            return


class S3(Fsspec):
    """s3:// through s3fs: one GET for an object, a PUT that creates or fails, pages of a listing as they come."""

    def __init__(self) -> None:
        given = conf.get("s3", {})
        client: dict[str, Any] = {
            "max_pool_connections": CONNECTIONS,
            "connect_timeout": 5,
            "read_timeout": 30,
            "retries": {"total_max_attempts": 1},  # `retry` repeats
        }
        filesystem = fsspec.filesystem(
            "s3",
            max_concurrency=1,  # s3fs asks HEAD before each GET unless it may not split the GET (fsspec/s3fs#1007)
            use_listings_cache=False,
            config_kwargs=client | given.get("config_kwargs", {}),
        )
        filesystem.retries = 1
        super().__init__(filesystem)

    def put(self, place: str, data: bytes, *, overwrite: bool) -> bool:
        mode = "overwrite" if overwrite else "create"

        def request() -> bool:
            try:
                self.filesystem.pipe_file(place, data, mode=mode, chunksize=_ONE_PUT)
            except OSError as error:
                if isinstance(error, FileExistsError) or retry.code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

        return retry.patiently(request, place)

    def remove(self, places: Iterable[str]) -> None:
        keys = [place.partition("://")[2].partition("/") for place in places]
        for at in range(0, len(keys), 1000):  # as many as one request takes
            objects = {"Objects": [{"Key": key} for _, _, key in keys[at : at + 1000]], "Quiet": True}
            request = {"Bucket": keys[at][0], "Delete": objects}
            retry.patiently(lambda request=request: self.filesystem.call_s3("delete_objects", **request), keys[at][2])

    def listing(self, folder: str) -> Iterator[Entry]:
        """In the order of the keys' bytes, a page of 1000 at a time."""
        scheme, _, path = folder.partition("://")
        bucket, _, prefix = path.rstrip("/").partition("/")
        request: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            page = retry.patiently(lambda: self.filesystem.call_s3("list_objects_v2", **request), folder)
            for found in page.get("Contents", ()):
                if not found["Key"].endswith("/"):  # a folder as some tools mark it
                    yield Entry(f"{scheme}://{bucket}/{found['Key']}", found["Size"])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]
