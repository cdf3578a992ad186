"""Arrow asks a store as the other clients do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from segface_batch import storage
from segface_batch.storage.arrow import filesystem


@pytest.fixture(autouse=True)
def _no_options() -> Iterator[None]:
    yield
    storage.configure(None)


def asked(folder: Path, **given: Any) -> dict[str, Any]:
    """What Arrow's file system would tell another process of itself."""
    (folder / "options.json").write_text(json.dumps(given | {"client_kwargs": {"region_name": "somewhere"}}))
    storage.configure(str(folder / "options.json"))
    files, path = filesystem("S3://bucket/a b/out")
    assert path == "bucket/a b/out"
    _, (settings,) = files.__reduce__()  # pyright: ignore[reportAssignmentType]
    names = ("access_key", "secret_key", "session_token", "anonymous", "region", "scheme", "endpoint_override",
             "force_virtual_addressing", "connect_timeout", "request_timeout")  # fmt: skip
    return {name: settings[name] for name in names}


def test_arrow_has_the_users_keys_and_the_options_of_the_store(tmp_path: Path) -> None:
    keys = {"key": "mine", "secret": "mine-secret", "token": "mine-token"}
    expected = {
        "access_key": "mine",
        "secret_key": "mine-secret",
        "session_token": "mine-token",
        "anonymous": False,
        "region": "somewhere",
        "scheme": "http",
        "endpoint_override": "host:81/below",
        "force_virtual_addressing": False,
        "connect_timeout": 1,
        "request_timeout": 2,
    }
    timeouts = {"connect_timeout": 1, "read_timeout": 2}
    assert asked(tmp_path, **keys, endpoint_url="http://host:81/below/", config_kwargs=timeouts) == expected


def test_arrow_asks_for_a_public_bucket_without_keys(tmp_path: Path) -> None:
    assert asked(tmp_path, anon=True, endpoint_url="https://host") == {
        "access_key": None,
        "secret_key": None,
        "session_token": None,
        "anonymous": True,
        "region": "somewhere",
        "scheme": "https",
        "endpoint_override": "host",
        "force_virtual_addressing": False,
        "connect_timeout": 5,
        "request_timeout": 30,
    }


def test_arrow_refuses_an_option_that_changes_requests(tmp_path: Path) -> None:
    message = "Arrow has no storage option 's3_additional_kwargs': leave it out, or copy the files here"
    with pytest.raises(storage.StorageUnavailable, match=message):
        asked(tmp_path, key="a", secret="b", s3_additional_kwargs={"RequestPayer": "requester"})


def test_a_path_is_of_this_machine_and_an_unknown_scheme_says_so() -> None:
    assert filesystem("/a/b") == (pafs.LocalFileSystem(), "/a/b")
    with pytest.raises(storage.StorageUnavailable, match=r"nonsense:// URLs: Protocol not known: nonsense"):
        filesystem("nonsense://a")
