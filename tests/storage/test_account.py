"""Whose keys, which endpoint and which region obstore and Arrow use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import NoCredentialsError

from segface_batch.storage import StorageUnavailable
from segface_batch.storage.account import Account, Keys

CONFIG = """
[default]
region = from-default
endpoint_url = http://default
aws_access_key_id = default
aws_secret_access_key = default-secret

[profile mine]
region = from-mine
endpoint_url = http://mine
aws_access_key_id = mine
aws_secret_access_key = mine-secret
aws_session_token = mine-token
"""


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION",
                 "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def said(given: dict[str, Any]) -> tuple[Any, ...]:
    account = Account(given)
    return account.endpoint, account.region, account.keys()


CLIENT = {
    "endpoint_url": "http://client",
    "region_name": "from-client",
    "aws_access_key_id": "client",
    "aws_secret_access_key": "client-secret",
    "aws_session_token": "client-token",
}
OPTIONS = {"endpoint_url": "http://options", "key": "options", "secret": "options-secret", "token": "options-token"}


def test_options_count_more_than_the_environment_and_that_more_than_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said({}) == ("http://default", "from-default", Keys("default", "default-secret", None))
    mine = ("http://mine", "from-mine", Keys("mine", "mine-secret", "mine-token"))
    assert said({"profile": "mine"}) == mine
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert said({}) == mine
    for name, value in (("ACCESS_KEY_ID", "own"), ("SECRET_ACCESS_KEY", "own-secret"), ("SESSION_TOKEN", "own-token"),
                        ("ENDPOINT_URL", "http://own"), ("DEFAULT_REGION", "from-own")):  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    own = Keys("own", "own-secret", "own-token")
    assert said({}) == ("http://own", "from-own", own)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://own-s3")
    monkeypatch.setenv("AWS_REGION", "from-own-too")
    assert said({}) == ("http://own-s3", "from-own-too", own)
    client = Keys("client", "client-secret", "client-token")
    assert said({"client_kwargs": CLIENT}) == ("http://client", "from-client", client)
    options = Keys("options", "options-secret", "options-token")
    assert said({"client_kwargs": CLIENT, **OPTIONS}) == ("http://options", "from-client", options)


def test_a_public_bucket_is_asked_without_keys_and_no_keys_are_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (Account({"anon": True}).anonymous, Account({"anon": True}).keys()) == (True, None)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    with pytest.raises(NoCredentialsError):
        Account({}).keys()


@pytest.mark.parametrize(
    ("style", "endpoint", "virtual"),
    [(None, None, True), (None, "http://h", False), ("auto", None, True), ("auto", "http://h", False),
     ("path", None, False), ("virtual", "http://h", True)],
)  # fmt: skip
def test_the_bucket_is_in_the_host_name_on_aws_alone_unless_the_options_say_so(
    style: str | None, endpoint: str | None, virtual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    config = {"s3": {"addressing_style": style}} if style else {}
    assert Account({"endpoint_url": endpoint, "config_kwargs": config}).virtual_host == virtual


def test_timeouts_are_the_options_or_ours() -> None:
    given = Account({"config_kwargs": {"connect_timeout": 1, "read_timeout": 2}})
    assert (given.connect_timeout, given.read_timeout) == (1.0, 2.0)
    assert (Account({}).connect_timeout, Account({}).read_timeout) == (5.0, 30.0)


@pytest.mark.parametrize(
    ("given", "name"),
    [({"fancy": 1, **OPTIONS}, "fancy"), ({"client_kwargs": {"verify": False, **CLIENT}}, "verify")],
)
def test_an_option_that_changes_requests_and_is_not_translated_is_refused(given: dict[str, Any], name: str) -> None:
    with pytest.raises(StorageUnavailable, match=f"us has no storage option '{name}': leave it out"):
        Account(given).refuse_others("us", "leave it out")
    tuning = {"use_listings_cache": False, "max_concurrency": 3, "skip_instance_cache": True}
    Account({**OPTIONS, "client_kwargs": CLIENT, **tuning}).refuse_others("us", "leave it out")
