"""What a place is called, whether it can be one at all, and whether it lies in another, however they are spelled.

Nothing is read or listed.  Standard library only, but for URLs of unusual schemes.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from functools import cache
from urllib.parse import unquote, urlsplit

from segface_batch.storage.local import is_file_url, path_of

#: A scheme, or several (`simplecache::s3`), then "://".  A path may have "://" further on.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]*://")

#: Schemes that are one and the same store.
_SAME = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "az", "abfs": "az", "wasb": "az", "wasbs": "az", "adl": "az"}

#: Schemes that need no look into fsspec's table.
_COMMON = ("gs", "hf", "http", "https", "memory", "s3", "s3a")

#: Bucket and key as botocore allows them; it refuses others before it sends anything, as if they concerned all.
_S3_OBJECT = re.compile(r"s3a?://(arn:[^/]+/)?[A-Za-z0-9._-]{1,255}/.+", re.IGNORECASE | re.DOTALL)

#: What no URL holds: NUL, and bytes that are not UTF-8 (as Python has them in text).
_UNSENDABLE = re.compile("[\0\ud800-\udfff]")


def is_url(place: str) -> bool:
    return _SCHEME.match(place) is not None


def local_path(place: str) -> str | None:
    """The path of a local place; None for a remote one."""
    return path_of(place) if is_file_url(place) or not is_url(place) else None


def absolute(place: str) -> str:
    """A URL without its trailing slash; a path, or that of a file:// URL, made absolute."""
    path = local_path(place)
    if path is not None:
        return os.path.abspath(path)
    if not place.partition("://")[2].strip("/"):
        raise ValueError(f"'{place}' names no bucket; give s3://BUCKET/FOLDER")
    return place.rstrip("/") if _without_query(place) == place else place


def join(place: str, *names: str) -> str:
    return "/".join([place.rstrip("/"), *names])


def name_of(place: str) -> str:
    """The last component of a place."""
    return _without_query(place).rstrip("/").rpartition("/")[2]


def folder_of(place: str) -> str:
    """The place without its last component."""
    return _without_query(place).rstrip("/").rpartition("/")[0]


def is_valid(place: str) -> bool:
    """False for what no file and no object can be called: empty, a NUL in it, an unknown scheme, a malformed host."""
    path = local_path(place)
    if path is not None:
        return path.strip("/") != "" and "\0" not in path
    scheme = place.partition("://")[0].lower()
    if _UNSENDABLE.search(place) or not _is_known(scheme):
        return False
    if scheme in ("s3", "s3a"):
        return _S3_OBJECT.fullmatch(place) is not None
    if scheme not in ("http", "https"):
        return True
    try:
        parts = urlsplit(place)
        return bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except ValueError:  # UnicodeError too: a label that is empty or longer than 63
        return False


def is_inside(place: str, folder: str) -> bool:
    """True for the folder itself and what lies below it."""
    path, root = local_path(place), local_path(folder)
    if path is not None and root is not None:
        return _is_below(path, root)
    if path is not None or root is not None:
        return False
    both = zip(_components(place), _components(folder), strict=True)
    return any(below[: len(above)] == above for below, above in both)


def _without_query(place: str) -> str:
    """Only HTTP's URLs have a query; elsewhere ? and # are characters of names."""
    is_http = place[:8].lower().startswith(("http://", "https://"))
    return re.split("[?#]", place, maxsplit=1)[0] if is_http else place


@cache
def _is_known(scheme: str) -> bool:
    if scheme in _COMMON:
        return True
    from fsspec import available_protocols
    from fsspec.registry import registry

    return scheme in available_protocols() or scheme in registry


def _is_below(path: str, root: str) -> bool:
    """By the identity of the folders, which links, `..`, mounts and file systems that ignore case do not change."""
    real = os.path.realpath(path)
    while True:
        with contextlib.suppress(OSError):
            if os.path.samefile(real, root):
                return True
        if real == (real := os.path.dirname(real)):
            return False


def _components(url: str) -> tuple[list[str], list[str]]:
    """The store, the host and the names of a URL, as they are and with `.`, `..` and doubled slashes resolved: stores
    take keys as they are, but not every client does."""
    scheme, _, rest = url.rpartition("::")[2].partition("://")
    if scheme.lower() in ("http", "https"):
        rest = unquote(_without_query(url).partition("://")[2])
    host, _, key = rest.strip("/").partition("/")
    start = [_SAME.get(scheme.lower(), scheme.lower()), host.lower()]
    names = posixpath.normpath(f"/{key}").strip("/")
    return [*start, *key.split("/")] if key else start, [*start, *names.split("/")] if names else start
