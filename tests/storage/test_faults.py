"""Faults of a store, a network or a user, and how requests end then."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from segface_batch import storage
from segface_batch.storage import retry
from tests.s3_server import running_server
from tests.storage.conftest import Folder

#: Short timeouts.
TIMEOUTS = {"connect_timeout": 1, "read_timeout": 0.5}

#: Temporary faults, and how often each happens.
TEMPORARY = [("slowdown", 3), ("error500", 1), ("reset", 2), ("stall", 1)]


@pytest.fixture
def data(folder: Folder) -> bytes:
    """The content of the object `a`, stored with its checksum."""
    content = bytes(range(256)) * 1000
    folder.keep("a", content)
    return content


@pytest.mark.parametrize(("fault", "times"), [*TEMPORARY, ("partial", 2)])
def test_a_read_survives_a_temporary_fault(folder: Folder, data: bytes, fault: str, times: int) -> None:
    folder.configure(config_kwargs=TIMEOUTS)
    folder.faults({"fault": fault, "times": times})
    assert storage.read(f"{folder.url}/a") == data
    assert folder.requests() == {"GET": times + 1}


@pytest.mark.parametrize(("fault", "times"), [*TEMPORARY, ("conflict", 2)])
def test_a_put_survives_a_temporary_fault(folder: Folder, fault: str, times: int) -> None:
    folder.configure(config_kwargs=TIMEOUTS)
    folder.faults({"fault": fault, "times": times})
    assert storage.put(f"{folder.url}/a", b"content")
    assert folder.requests() == {"PUT": times + 1}
    assert storage.read(f"{folder.url}/a") == b"content"


def test_a_listing_and_a_removal_survive_a_temporary_fault(folder: Folder, data: bytes) -> None:
    folder.faults({"fault": "slowdown", "times": 2})
    assert list(storage.list_objects(folder.url)) == [(f"{folder.url}/a", len(data))]
    folder.faults({"fault": "reset", "times": 2})
    storage.remove([f"{folder.url}/a"])
    assert folder.requests() == {"POST": 3}
    assert list(storage.list_objects(folder.url)) == []


def test_a_put_whose_answer_is_lost_has_been_done(folder: Folder) -> None:
    folder.faults({"fault": "lost_ack", "times": 1})
    assert not storage.put(f"{folder.url}/a", b"content")  # it cannot tell whose object exists
    assert folder.requests() == {"PUT": 2}
    assert storage.read(f"{folder.url}/a") == b"content"
    folder.faults({"fault": "lost_ack", "times": 1})
    storage.replace(f"{folder.url}/a", b"other")
    assert storage.read(f"{folder.url}/a") == b"other"


@pytest.mark.parametrize("fault", ["short", "flip"])
def test_s3fs_finds_a_damaged_body_by_its_checksum_and_obstore_does_not(
    folder: Folder, data: bytes, fault: str
) -> None:
    folder.faults({"fault": fault, "times": 1})
    read = storage.read(f"{folder.url}/a")
    if folder.client == "s3fs":
        assert read == data
        assert folder.requests() == {"GET": 2}
    else:
        assert read != data
        assert folder.requests() == {"GET": 1}


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda place: storage.read(place), id="read"),
        pytest.param(lambda place: storage.put(place, b""), id="put"),
        pytest.param(lambda place: storage.replace(place, b""), id="replace"),
        pytest.param(lambda place: storage.remove([place]), id="remove"),
        pytest.param(lambda place: list(storage.list_objects(place)), id="listing"),
    ],
)
def test_a_permanent_fault_ends_with_the_deadline(folder: Folder, ask: Callable[[str], object]) -> None:
    retry.SECONDS = 1.0
    folder.faults({"fault": "slowdown"})
    begin = time.monotonic()
    with pytest.raises(OSError, match=rf"\A.*SlowDown.* within 1 s: '{folder.url}/a'\Z") as caught:
        ask(f"{folder.url}/a")
    assert time.monotonic() - begin < 2.5
    assert caught.value.errno == errno.EIO
    assert 3 <= sum(folder.requests().values()) <= 6


def test_reads_that_share_a_deadline_fail_in_the_time_of_one(folder: Folder, data: bytes) -> None:
    folder.faults({"fault": "slowdown"})
    retry.SECONDS = 2.0
    deadline = storage.Deadline()

    def read(number: int) -> bool:
        try:
            return storage.read(f"{folder.url}/a", deadline=deadline) == data
        except OSError:
            return False

    begin = time.monotonic()
    with ThreadPoolExecutor(16) as pool:  # each thread reads four in turn
        assert list(pool.map(read, range(64))) == [False] * 64
    assert time.monotonic() - begin < 3 * 2.0
    folder.faults()  # a success resets the deadline
    assert read(0)
    folder.faults({"fault": "slowdown", "times": 2})
    assert read(0)
    assert folder.requests() == {"GET": 3}


def test_a_request_ends_though_others_with_its_deadline_succeed(folder: Folder, data: bytes) -> None:
    retry.SECONDS = 1.0
    folder.keep("refused", b"")
    folder.faults({"fault": "slowdown", "match": "/refused"})
    deadline = storage.Deadline()
    ended = threading.Event()

    def others() -> None:
        while not ended.is_set():
            assert storage.read(f"{folder.url}/a", deadline=deadline) == data

    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(others)
        with pytest.raises(OSError, match=r"within 1 s"):
            storage.read(f"{folder.url}/refused", deadline=deadline)
        ended.set()
        going_on.result()


@pytest.mark.slow  # a second server
def test_a_store_that_dies_and_comes_back_is_waited_for(folder: Folder) -> None:
    retry.SECONDS = 30.0
    with running_server() as server:
        server.client().put_object(Bucket="probe-ready", Key="a", Body=b"content")
        folder.configure(endpoint_url=server.endpoint)
        killed, until = threading.Event(), time.monotonic() + 3

        def read(_: int) -> int:
            count = 0
            while time.monotonic() < until or not killed.is_set():
                assert storage.read("s3://probe-ready/a") == b"content"
                count += 1
            assert storage.read("s3://probe-ready/a") == b"content"
            return count

        with ThreadPoolExecutor(4) as pool:
            reads = pool.map(read, range(4))
            time.sleep(0.5)
            server.kill()
            killed.set()
            server.start()
            assert all(count > 0 for count in reads)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"secret": "wrong"}, "SignatureDoesNotMatch: check the credentials", id="wrong secret"),
        pytest.param({"key": "nobody"}, "InvalidAccessKeyId: check the credentials", id="unknown key"),
        pytest.param(
            {"anon": True, "key": None, "secret": None}, "AccessDenied", id="anonymous"
        ),  # S3 does not say whether it concerns more than one object
    ],
)
def test_wrong_credentials_are_tried_once(folder: Folder, data: bytes, changes: dict[str, Any], words: str) -> None:
    folder.configure(**changes)
    folder.faults()
    for ask in (
        lambda: storage.read(f"{folder.url}/a"),
        lambda: storage.put(f"{folder.url}/b", b""),
        lambda: list(storage.list_objects(folder.url)),
    ):
        with pytest.raises(PermissionError, match=rf"\A.*{words}.*'{folder.url}.*'\Z") as caught:
            ask()
        assert isinstance(caught.value, storage.StorageUnavailable) == (words != "AccessDenied")
        assert "wrong" not in str(caught.value)
    assert folder.requests() == {"GET": 2, "PUT": 1}


def test_a_wrong_clock_is_named(folder: Folder) -> None:
    folder.faults({"fault": "skewed"})
    with pytest.raises(
        storage.StorageUnavailable, match=r"\A.*RequestTimeTooSkewed: this machine's clock is wrong: set it"
    ):
        storage.read(f"{folder.url}/a")
    assert folder.requests() == {"GET": 1}


@pytest.mark.parametrize("name", ["absent-bucket", "No_Bucket", "no bucket", "x"])
def test_an_absent_bucket_is_named(folder: Folder, name: str) -> None:
    for ask in (lambda: storage.read(f"s3://{name}/a"), lambda: list(storage.list_objects(f"s3://{name}"))):
        with pytest.raises(storage.StorageUnavailable, match=rf"\A.*(?i:bucket).*'s3://{name}.*'\Z"):
            ask()


def test_a_store_that_cannot_remove_many_objects_at_once_removes_one_by_one(folder: Folder) -> None:
    for fault in ("no_md5", "unknown"):
        folder.configure(use_listings_cache=fault == "unknown")  # another store
        for name in "abc":
            folder.keep(name, b"")
        folder.faults({"fault": fault, "method": "POST", "match": "delete"})
        storage.remove(f"{folder.url}/{name}" for name in ("a", "absent"))
        storage.remove([f"{folder.url}/b"])
        assert folder.requests() == {"POST": 1, "DELETE": 3}
        assert folder.kept() == {"c": b""}


@pytest.mark.parametrize("fault", ["unknown", "invalid"])
def test_a_store_without_conditional_put_is_asked_first(folder: Folder, fault: str) -> None:
    folder.configure(use_listings_cache=fault == "unknown")  # another store
    folder.faults({"fault": fault, "method": "PUT", "header": "If-None-Match"})
    assert storage.creates_only(folder.url)
    assert storage.put(f"{folder.url}/a", b"first")
    assert not storage.creates_only(folder.url)
    assert not storage.put(f"{folder.url}/a", b"second")
    assert storage.put(f"{folder.url}/b", b"third")
    assert folder.requests()["PUT"] == 3
    storage.replace(f"{folder.url}/b", b"fourth")
    assert folder.kept() == {"a": b"first", "b": b"fourth"}


def test_a_put_that_no_store_takes_is_not_tried_for_ever(folder: Folder) -> None:
    folder.faults({"fault": "invalid", "method": "PUT"})
    with pytest.raises(OSError, match=rf"InvalidArgument: '{folder.url}/a'"):
        storage.put(f"{folder.url}/a", b"first")
    assert folder.requests()["PUT"] == 2
    assert storage.creates_only(folder.url)
