"""Where options come from, and that secrets do not leak."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from segface_batch import storage
from segface_batch.storage import options
from segface_batch.storage.remote import S3fs
from tests.s3_server import S3Server
from tests.storage.conftest import Folder

SECRET = "MARKED/" + "x" * 33


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ('{"key": "a", "secret": "b"}', "'key' on the command line"),
        ('{"s3": {"secret": "b"}}', "'secret' on the command line"),
        ('{"s3": {"client_kwargs": {"aws_session_token": "b"}}}', "'aws_session_token' on the command line"),
        ('{"anon": tru}', "the text is not JSON"),
        ("[1]", 'give an object like {"anon": true}, not the text'),
        ("absent.json", "no file 'absent.json'; give --storage-options a JSON file or a JSON object"),
    ],
)
def test_invalid_options_are_refused_in_one_line(given: str, words: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=r"\A.+\Z") as caught:
        options.check(given)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["key", "secret", "Secret_Access_Key", "token", "aws_session_token", "password", "passwd", "credential",
     "account_key", "connection_string", "sas_token", "client_secret"],
)  # fmt: skip
@pytest.mark.parametrize("given", ['{{"{}": "x"}}', '{{"gs": {{"anon": true, "{}": "x"}}}}', '[{{"{}": "x"}}]'])
def test_no_secret_is_accepted_on_the_command_line(name: str, given: str) -> None:
    with pytest.raises(ValueError, match=name if given.startswith("{") else "give an object"):
        options.check(given.format(name))


def test_a_file_that_is_not_json_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(f'{{"secret": "{SECRET}"')
    with pytest.raises(ValueError, match=r"\A.*options.json' is not JSON.*\Z") as caught:
        options.check(str(file))
    assert SECRET not in str(caught.value)


def test_options_without_secrets_may_be_json_and_files_may_have_secrets(tmp_path: Path) -> None:
    options.check('{"anon": true, "endpoint_url": "http://127.0.0.1:9000"}')
    (tmp_path / "options.json").write_text('{"key": "a", "secret": "b"}')
    options.check(str(tmp_path / "options.json"))
    options.check(None)


def test_an_unknown_client_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\Aunknown S3 client 'boto3'; choose one of: s3fs, obstore\Z"):
        storage.configure(None, "boto3")


def test_other_options_make_other_stores_and_the_same_ones_cost_nothing(folder: Folder) -> None:
    folder.keep("a", b"1")
    for _ in range(2):
        folder.configure()
        assert storage.read(f"{folder.url}/a") == b"1"
        folder.configure("ci-reader")  # the same file, with other keys in it
        with pytest.raises(PermissionError):
            storage.read(f"{folder.url}/a")
    begin = time.monotonic()
    for _ in range(100):
        storage.configure(str(folder.local / "options.json"), folder.client)
    assert time.monotonic() - begin < 1
    storage.configure(None)
    assert options.given("s3") == {}


def test_options_may_be_given_by_protocol(folder: Folder) -> None:
    folder.keep("a", b"1")
    given = json.loads((folder.local / "options.json").read_text())
    (folder.local / "both.json").write_text(json.dumps({"s3": given, "gs": {"token": "anon"}}))
    storage.configure(str(folder.local / "both.json"), folder.client)
    assert storage.read(f"{folder.url}/a") == b"1"
    assert options.given("gs") == {"token": "anon"}


def test_a_public_bucket_needs_no_keys(folder: Folder, s3_server: S3Server) -> None:
    s3_server.client().put_object(Bucket="public", Key="a", Body=b"1")  # makes the bucket
    storage.configure(f'{{"anon": true, "endpoint_url": "{s3_server.endpoint}"}}', folder.client)
    assert storage.read("s3://public/a") == b"1"
    with pytest.raises(PermissionError):
        storage.put("s3://public/b", b"")


def test_a_session_token_goes_with_every_request(folder: Folder) -> None:
    folder.configure(token="of-a-role")
    folder.faults({"fault": "unknown", "header": "x-amz-security-token"})
    for ask in (
        lambda: storage.read(f"{folder.url}/a"),
        lambda: storage.replace(f"{folder.url}/a", b""),
        lambda: list(storage.list_objects(folder.url)),
    ):
        with pytest.raises(OSError, match="NotImplemented") as caught:
            ask()
        assert caught.value.errno == errno.ENOSYS


@pytest.mark.parametrize(("given", "region"), [({}, "from-environment"), ({"region_name": "given"}, "given")])
def test_the_region_of_s3fs_is_the_options_or_else_aws_region(
    given: dict[str, Any], region: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "from-environment")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "another")
    store = S3fs({"key": "a", "secret": "b", "client_kwargs": given})
    assert store.filesystem.client_kwargs["region_name"] == region


SCRIPT = """
import sys
from segface_batch import storage
storage.configure(None, sys.argv[1])
try:
    print(storage.put(sys.argv[2], b"content"), storage.read(sys.argv[2]))
except storage.StorageUnavailable as error:
    print(error)
"""


@pytest.mark.parametrize("client", options.S3_CLIENTS)
@pytest.mark.parametrize("kind", ["keys", "profile", "none"])
def test_credentials_come_from_the_environment(client: str, kind: str, s3_server: S3Server, tmp_path: Path) -> None:
    environment = s3_server.environment()
    if kind != "keys":
        key, secret = environment.pop("AWS_ACCESS_KEY_ID"), environment.pop("AWS_SECRET_ACCESS_KEY")
        file = tmp_path / "credentials"
        file.write_text(f"[mine]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
        environment |= {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_EC2_METADATA_DISABLED": "true"}
    if kind == "profile":
        environment["AWS_PROFILE"] = "mine"
    place = f"s3://probe-ready/{client}-{kind}"
    command = [sys.executable, "-c", SCRIPT, client, place]
    said = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    assert said.stderr == ""
    if kind == "none":
        assert said.stdout == (
            "[Errno 13] Unable to locate credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            f"or storage options ({{\"anon\": true}} for a public bucket): '{place}'\n"
        )
    else:
        assert said.stdout == "True b'content'\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"profile": "absent"}, r"profile \(absent\) could not be found"),
        ({"fancy": 1}, "(unexpected keyword argument|no storage option) 'fancy'"),
        ({"endpoint_url": "nowhere"}, "(?i:invalid endpoint).*nowhere"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(folder: Folder, changes: dict[str, Any], words: str) -> None:
    folder.configure(**changes)
    with pytest.raises(storage.StorageUnavailable, match=rf"\A.*{words}.*\Z"):
        storage.read(f"{folder.url}/a")


def test_obstore_refuses_options_that_change_the_requests(folder: Folder) -> None:
    folder.configure(s3_additional_kwargs={"ServerSideEncryption": "aws:kms"})
    if folder.client == "obstore":
        with pytest.raises(
            storage.StorageUnavailable, match="no storage option 's3_additional_kwargs': use --s3-client s3fs"
        ):
            storage.put(f"{folder.url}/a", b"")
        assert folder.requests() == {}


def test_secrets_are_not_shown(folder: Folder) -> None:
    folder.configure(secret=SECRET)
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    root.addHandler(handler)
    usual = root.level
    root.setLevel(logging.DEBUG)
    try:
        with pytest.raises(storage.StorageUnavailable) as caught:
            storage.read(f"{folder.url}/a")
    finally:
        root.setLevel(usual)
        root.removeHandler(handler)
    shown = [log.getvalue(), str(pickle.dumps(caught.value))]
    error: BaseException | None = caught.value
    while error is not None:
        shown.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    assert SECRET not in "".join(shown)
