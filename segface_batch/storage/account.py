"""Endpoint, region and credentials for s3:// URLs, for the clients that do not use botocore: obstore and Arrow.

They come from the storage options, then from AWS's environment, profiles and roles by way of botocore, so that s3fs,
obstore and Arrow always act as the same user.
"""

from __future__ import annotations

import errno
import os
from functools import cached_property
from typing import Any, NamedTuple

from botocore.credentials import Credentials
from botocore.exceptions import NoCredentialsError
from botocore.session import Session

from segface_batch.storage.errors import StorageUnavailable

#: Seconds, unless `config_kwargs` of the options say otherwise.  A read times out when no byte comes for so long.
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 30.0

#: Options of s3fs that `Account` translates, and those that only tune s3fs.  All others change the requests.
_TRANSLATED = {"anon", "client_kwargs", "config_kwargs", "endpoint_url", "key", "profile", "secret", "token"}
_TUNING = {
    "cache_regions", "default_block_size", "default_cache_type", "default_fill_cache", "fixed_upload_size",
    "listings_expiry_time", "max_concurrency", "max_paths", "skip_instance_cache", "use_listings_cache",
}  # fmt: skip
_CLIENT = {"aws_access_key_id", "aws_secret_access_key", "aws_session_token", "endpoint_url", "region_name"}


class Keys(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


class Account:
    """What the `given` options for s3fs say.  botocore's ProfileNotFound, and NoCredentialsError from `keys`."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self._client = given.get("client_kwargs") or {}
        self._config = given.get("config_kwargs") or {}
        self._session = Session(profile=given.get("profile"))
        profile = self._session.get_scoped_config()
        self.anonymous = bool(given.get("anon"))
        self.endpoint: str | None = (
            given.get("endpoint_url")
            or self._client.get("endpoint_url")
            or os.environ.get("AWS_ENDPOINT_URL_S3")
            or os.environ.get("AWS_ENDPOINT_URL")
            or profile.get("endpoint_url")
        )
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            message = f"invalid endpoint '{self.endpoint}': give http://... or https://..."
            raise StorageUnavailable(errno.EACCES, message, "s3://")
        self.region: str | None = (
            self._client.get("region_name")
            or os.environ.get("AWS_REGION")  # which botocore does not read
            or self._session.get_config_variable("region")
        )
        # Like botocore: only on AWS is the bucket part of the host name.
        style = (self._config.get("s3") or {}).get("addressing_style", "auto")
        self.virtual_host = style == "virtual" or (style == "auto" and self.endpoint is None)
        self.connect_timeout = float(self._config.get("connect_timeout", CONNECT_TIMEOUT))
        self.read_timeout = float(self._config.get("read_timeout", READ_TIMEOUT))

    def refuse_others(self, client: str, hint: str) -> None:
        """StorageUnavailable for options that only s3fs has; `client` names the other client."""
        if other := sorted({*self._given} - _TRANSLATED - _TUNING) or sorted({*self._client} - _CLIENT):
            raise StorageUnavailable(errno.EACCES, f"{client} has no storage option '{other[0]}': {hint}", "s3://")

    def keys(self) -> Keys | None:
        """The keys that are valid now (those of a role expire); None for anonymous requests."""
        if self.anonymous:
            return None
        if self._credentials is None:
            raise NoCredentialsError
        frozen = self._credentials.get_frozen_credentials()
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    @cached_property
    def _credentials(self) -> Any:
        key = self._given.get("key") or self._client.get("aws_access_key_id")
        secret = self._given.get("secret") or self._client.get("aws_secret_access_key")
        token = self._given.get("token") or self._client.get("aws_session_token")
        return Credentials(key, secret, token) if key and secret else self._session.get_credentials()
