"""s3:// through obstore (extra `fast-s3`), which takes less CPU time per GET and PUT than s3fs (docs/inputs.md).

It does not verify the checksums that a store keeps.  s3fs still lists and removes, and handles the keys that obstore
cannot express.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import obstore
from obstore.store import S3Store

from segface_batch.storage import retry
from segface_batch.storage.account import Account
from segface_batch.storage.errors import StorageUnavailable
from segface_batch.storage.remote import S3fs, create, split

#: How long obstore keeps credentials before it asks again.  botocore renews them earlier than that.
_KEYS_LIVE = timedelta(minutes=5)

#: The most that a whole request may take, even if bytes keep coming.
_WHOLE_REQUEST = timedelta(minutes=10)

#: Keys that obstore cannot express: with empty, `.` or `..` components, or with control characters.
_ONLY_S3FS = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00-\x1f\x7f]")


class Obstore(S3fs):
    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__(given)
        self._buckets: dict[str, S3Store] = {}
        self._buckets_lock = threading.Lock()

    def read(self, place: str, max_bytes: int, span: tuple[int, int] | None, deadline: retry.Deadline | None) -> bytes:
        bucket, key = split(place)
        if _ONLY_S3FS.search(key):
            return super().read(place, max_bytes, span, deadline)

        def request() -> bytes:
            client = self._bucket(bucket)
            if span is not None:
                return bytes(obstore.get_range(client, key, start=span[0], end=span[1]))
            answer = obstore.get(client, key)
            if answer.meta["size"] > max_bytes:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), place)
            return bytes(answer.bytes())

        return retry.patiently(request, place, deadline)

    def _put(self, place: str, data: bytes, overwrite: bool) -> bool:
        bucket, key = split(place)
        if _ONLY_S3FS.search(key):
            return super()._put(place, data, overwrite)
        mode = "overwrite" if overwrite else "create"
        return retry.patiently(
            lambda: create(lambda: obstore.put(self._bucket(bucket), key, data, mode=mode, use_multipart=False)), place
        )

    @cached_property
    def _account(self) -> Account:
        account = Account(self._given)
        account.refuse_others("obstore", "use --s3-client s3fs")
        return account

    def _bucket(self, name: str) -> S3Store:
        """The client for a bucket, shared by all threads."""
        with self._buckets_lock:
            if name not in self._buckets:
                self._buckets[name] = self._make_client(name)
            return self._buckets[name]

    def _make_client(self, name: str) -> S3Store:
        account = self._account
        if not re.fullmatch(r"[\w.-]{1,255}", name, re.ASCII):  # obstore panics
            raise StorageUnavailable(errno.EINVAL, f"'{name}' is no bucket name: check the URL", f"s3://{name}")
        account.keys()  # raises where there are none; obstore would wait for an instance's role
        config = {
            "region": account.region,
            "endpoint": account.endpoint,
            "virtual_hosted_style_request": account.virtual_host,
            "skip_signature": account.anonymous or None,
        }
        return S3Store(
            name,
            config={key: value for key, value in config.items() if value is not None},  # pyright: ignore[reportArgumentType]
            client_options={
                "allow_http": (account.endpoint or "").startswith("http://"),
                "connect_timeout": timedelta(seconds=account.connect_timeout),
                "read_timeout": timedelta(seconds=account.read_timeout),
                "timeout": _WHOLE_REQUEST,
            },
            retry_config={"max_retries": 0},  # `retry` repeats
            credential_provider=None if account.anonymous else self._keys,
        )

    def _keys(self) -> Any:
        """Credentials as obstore wants them."""
        keys = self._account.keys()
        assert keys is not None
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.token,
            "expires_at": datetime.now(UTC) + _KEYS_LIVE,
        }
