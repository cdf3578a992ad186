"""Arrow's own file system for a place, so that no Python runs while Arrow or DuckDB scans.

A scan through Python file systems can hang forever when it fails.
"""

from __future__ import annotations

import errno
from urllib.parse import urlsplit

import fsspec
import pyarrow.fs as pafs

from segface_batch.storage import is_url, options, retry
from segface_batch.storage.errors import StorageUnavailable

#: Attempts of Arrow's own retries: some seconds altogether.
_ATTEMPTS = 5


def filesystem(place: str) -> tuple[pafs.FileSystem, str]:
    """The file system, and the path of the place in it."""
    scheme, _, path = place.partition("://")
    if not is_url(place):
        return pafs.LocalFileSystem(), place
    if (scheme := scheme.lower()) in ("s3", "s3a"):
        return _s3(place), path
    try:
        files = fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise StorageUnavailable(errno.EINVAL, f"{scheme}:// URLs: {error}", place) from None
    return pafs.PyFileSystem(pafs.FSSpecHandler(files)), str(files._strip_protocol(place))


def _s3(place: str) -> pafs.S3FileSystem:
    from segface_batch.storage.account import Account  # botocore, which local outputs need not wait for

    account = retry.patiently(lambda: Account(options.given("s3")), place)
    account.refuse_others("Arrow", "leave it out, or copy the files here")
    keys = retry.patiently(account.keys, place)
    endpoint = urlsplit(account.endpoint or "")
    return pafs.S3FileSystem(
        access_key=keys and keys.access_key,
        secret_key=keys and keys.secret_key,
        session_token=keys and keys.token,
        anonymous=account.anonymous,
        region=account.region,
        scheme=endpoint.scheme or "https",
        endpoint_override=endpoint.netloc + endpoint.path.rstrip("/") or None,
        force_virtual_addressing=account.virtual_host,
        connect_timeout=account.connect_timeout,
        request_timeout=account.read_timeout,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )
