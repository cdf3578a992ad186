"""What both clients for s3:// do alike."""

from __future__ import annotations

import errno
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
from obstore.store import S3Store

from segface_batch import storage
from tests.s3_server import S3Server, secret_of
from tests.storage.conftest import Folder

ODD = ["a b", "a+b", "a#b", "a?b", "a%41", "[x]", "*", "ü", "日本", "a&b=c", "a..b", "~", "'\"<>"]


def test_an_object_is_one_get(folder: Folder) -> None:
    folder.keep("a", b"0123456789")
    folder.faults()
    assert storage.read(f"{folder.url}/a") == b"0123456789"
    assert storage.read(f"{folder.url}/a", span=(3, 6)) == b"345"
    assert storage.read(f"{folder.url}/a", span=(9, 10), max_bytes=1) == b"9"
    assert folder.requests() == {"GET": 3}
    assert storage.read(f"{folder.url}/a", span=(5, 5)) == b""
    assert folder.requests() == {"GET": 3}


def test_an_object_of_just_the_limit_is_read_and_a_byte_more_is_too_large(folder: Folder) -> None:
    folder.keep("a", b"0123456789")
    assert storage.read(f"{folder.url}/a", max_bytes=10) == b"0123456789"
    assert storage.read(f"{folder.url}/a", max_bytes=2, span=(3, 5)) == b"34"
    for max_bytes, span in ((9, None), (1, (3, 5))):
        with pytest.raises(OSError, match=r"(?i)too large") as caught:
            storage.read(f"{folder.url}/a", max_bytes, span)
        assert caught.value.errno == errno.EFBIG


def test_an_absent_object_costs_one_request(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError, match=rf"\A.*'{folder.url}/absent'\Z") as caught:
        storage.read(f"{folder.url}/absent")
    assert caught.value.errno == errno.ENOENT
    assert folder.requests() == {"GET": 1}


def test_an_object_over_the_limit_is_not_read(folder: Folder) -> None:
    folder.keep("a", bytes(12_000_000))
    assert storage.read(f"{folder.url}/a", span=(0, 1)) == b"\0"  # connects
    folder.faults()
    tracemalloc.start()
    with pytest.raises(OSError, match=rf"(?i)too large.*'{folder.url}/a'\Z") as caught:
        storage.read(f"{folder.url}/a", max_bytes=11_999_999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.errno == errno.EFBIG
    assert peak < 6_000_000
    with pytest.raises(OSError, match=r"(?i)too large"):
        storage.read(f"{folder.url}/a", span=(0, 11), max_bytes=10)
    assert folder.requests() == {"GET": 1}


@pytest.mark.parametrize("span", [(8, 12), (12, 14)])
def test_an_object_that_ends_within_the_span_has_changed(folder: Folder, span: tuple[int, int]) -> None:
    folder.keep("a", b"0123456789")
    with pytest.raises(OSError, match=rf"'{folder.url}/a'\Z") as caught:
        storage.read(f"{folder.url}/a", span=span)
    assert caught.value.errno == errno.ESTALE
    assert folder.requests() == {"GET": 1}


def test_one_forbidden_object_is_no_reason_to_stop(folder: Folder) -> None:
    folder.keep("a", b"1")
    folder.configure("ci-reader")
    folder.faults()
    with pytest.raises(PermissionError, match=rf"\A.*AccessDenied: '{folder.url}/a'\Z") as caught:
        storage.read(f"{folder.url}/a")
    assert type(caught.value) is PermissionError
    with pytest.raises(PermissionError):
        storage.put(f"{folder.url}/b", b"1")
    with pytest.raises(PermissionError):
        list(storage.list_objects(folder.url))
    assert folder.requests() == {"GET": 2, "PUT": 1}
    with pytest.raises(PermissionError):
        storage.remove([f"{folder.url}/a"])
    assert folder.kept() == {"a": b"1"}


def test_an_object_is_put_once_and_never_overwritten(folder: Folder) -> None:
    assert storage.put(f"{folder.url}/deep/a", b"first")
    assert folder.requests() == {"PUT": 1}
    assert not storage.put(f"{folder.url}/deep/a", b"second")
    assert folder.requests() == {"PUT": 2}
    assert storage.read(f"{folder.url}/deep/a") == b"first"


def test_an_object_is_replaced(folder: Folder) -> None:
    storage.replace(f"{folder.url}/a", b"first")
    storage.replace(f"{folder.url}/a", b"second")
    assert folder.requests() == {"PUT": 2}
    assert storage.read(f"{folder.url}/a") == b"second"


def test_of_many_writers_one_wins_whole(folder: Folder) -> None:
    contents = [bytes([number]) * 100_000 for number in range(8)]
    ready = threading.Barrier(8)

    def write(content: bytes) -> bool:
        ready.wait()
        return storage.put(f"{folder.url}/a", content)

    with ThreadPoolExecutor(8) as pool:
        won = [content for content, wins in zip(contents, pool.map(write, contents), strict=True) if wins]
    assert [storage.read(f"{folder.url}/a")] == won


def test_a_large_object_is_one_put(folder: Folder) -> None:
    data = bytes(range(256)) * 234_375  # 60 MB
    assert storage.put(f"{folder.url}/a", data)
    assert folder.requests() == {"PUT": 1}
    assert folder.boto.list_multipart_uploads(Bucket=folder.bucket).get("Uploads", []) == []
    assert storage.read(f"{folder.url}/a") == data


@pytest.fixture(scope="module")
def many(s3_server: S3Server) -> tuple[str, list[str]]:
    """A bucket with 2500 keys in the folder `in`, and one beside it."""
    name = s3_server.new_bucket()
    keys = [f"in/{number * 7919 % 2500:04d}{'!./0é'[number % 5]}x" for number in range(2500)]
    keep = S3Store(  # four times as fast as boto3
        name,
        endpoint=s3_server.endpoint,
        access_key_id="ci-admin",
        secret_access_key=secret_of("ci-admin"),
        client_options={"allow_http": True},
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: keep.put(key, b"12"), [*keys, "inside"]))
    return name, keys


def test_a_listing_comes_in_pages_in_the_order_of_bytes(folder: Folder, many: tuple[str, list[str]]) -> None:
    name, keys = many
    entries = storage.list_objects(f"s3://{name}/in/")
    assert folder.requests() == {}
    first = next(entries)
    assert folder.requests() == {"GET": 1}
    found = [first, *entries]
    assert folder.requests() == {"GET": 3}
    assert found == [(f"s3://{name}/{key}", 2) for key in sorted(keys, key=lambda key: key.encode())]


def test_a_thousand_objects_are_removed_by_one_request(folder: Folder) -> None:
    for key in ("a/7", "a/1499", "b"):
        storage.put(f"{folder.url}/{key}", b"")
    folder.faults()
    storage.remove(f"{folder.url}/a/{number}" for number in range(1500))
    assert folder.requests() == {"POST": 2}
    assert [entry.place for entry in storage.list_objects(folder.url)] == [f"{folder.url}/b"]


def test_folder_markers_are_not_listed(folder: Folder) -> None:
    for key in ("in/", "in/a/", "in/a/b", "in/c"):
        folder.keep(key, b"")
    assert [entry.place for entry in storage.list_objects(f"{folder.url}/in")] == [
        f"{folder.url}/in/a/b",
        f"{folder.url}/in/c",
    ]
    assert list(storage.list_objects(f"{folder.url}/absent")) == []


def test_names_leave_out_what_is_hidden(folder: Folder) -> None:
    for key in ("b.json", "a/c.json", "a/.d.json", ".e/f.json", "g.txt"):
        storage.put(f"{folder.url}/in/{key}", b"")
    assert storage.list_names(f"{folder.url}/in", ".json") == [".e/f.json", "a/c.json", "b.json"]
    assert storage.list_names(f"{folder.url}/absent", ".json") == []


def test_keys_are_taken_literally(folder: Folder) -> None:
    for key in ODD:
        assert storage.put(f"{folder.url}/o d+d%20/{key}", key.encode())
    listed = [entry.place for entry in storage.list_objects(f"{folder.url}/o d+d%20")]
    assert listed == [f"{folder.url}/o d+d%20/{key}" for key in sorted(ODD, key=lambda key: key.encode())]
    assert sorted(storage.read(place).decode() for place in listed) == sorted(ODD)
    assert folder.kept() == {f"o d+d%20/{key}": key.encode() for key in ODD}
    storage.remove(listed)
    assert list(storage.list_objects(folder.url)) == []


def test_keys_that_obstore_cannot_express_are_taken_literally_too(folder: Folder) -> None:
    for key in ("a\nb", "in//c"):
        folder.keep(key, key.encode())
    listed = [entry.place for entry in storage.list_objects(folder.url)]
    assert listed == [f"{folder.url}/{key}" for key in folder.kept()]
    assert storage.read(f"{folder.url}/in//c") == b"in//c"
    assert storage.read(f"{folder.url}/a\nb") == b"a\nb"
