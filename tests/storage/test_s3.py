"""What both clients for s3:// do the same."""

from __future__ import annotations

import errno
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from segface_batch import storage
from tests.s3_server import S3Server
from tests.storage.conftest import Bucket

ODD = ["a b", "a+b", "a#b", "a?b", "a%41", "[x]", "*", "ü", "日本", "a&b=c", "a..b", "~", "'\"<>"]


def test_an_object_is_one_get(bucket: Bucket) -> None:
    bucket.boto.put_object(Bucket=bucket.name, Key="a", Body=b"0123456789")
    bucket.faults()
    assert storage.read(f"{bucket.url}/a") == b"0123456789"
    assert storage.read(f"{bucket.url}/a", span=(3, 6)) == b"345"
    assert storage.read(f"{bucket.url}/a", span=(9, 10), max_bytes=1) == b"9"
    assert bucket.requests() == {"GET": 3}
    assert storage.read(f"{bucket.url}/a", span=(5, 5)) == b""
    assert bucket.requests() == {"GET": 3}


def test_what_is_not_there_is_asked_for_once(bucket: Bucket) -> None:
    with pytest.raises(FileNotFoundError, match=rf"\A.*'{bucket.url}/absent'\Z") as caught:
        storage.read(f"{bucket.url}/absent")
    assert caught.value.errno == errno.ENOENT
    assert bucket.requests() == {"GET": 1}


def test_what_is_too_large_is_not_read(bucket: Bucket) -> None:
    bucket.boto.put_object(Bucket=bucket.name, Key="a", Body=bytes(30_000_000))
    tracemalloc.start()
    with pytest.raises(OSError, match=rf"(?i)too large.*'{bucket.url}/a'\Z") as caught:
        storage.read(f"{bucket.url}/a", max_bytes=29_999_999)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.errno == errno.EFBIG
    assert peak < 20_000_000
    with pytest.raises(OSError, match=r"(?i)too large"):
        storage.read(f"{bucket.url}/a", span=(0, 11), max_bytes=10)
    assert bucket.requests() == {"GET": 1}


@pytest.mark.parametrize("span", [(8, 12), (12, 14)])
def test_an_object_that_ends_within_the_span_has_changed(bucket: Bucket, span: tuple[int, int]) -> None:
    bucket.boto.put_object(Bucket=bucket.name, Key="a", Body=b"0123456789")
    with pytest.raises(OSError, match=rf"'{bucket.url}/a'\Z") as caught:
        storage.read(f"{bucket.url}/a", span=span)
    assert caught.value.errno == errno.ESTALE
    assert bucket.requests() == {"GET": 1}


def test_one_forbidden_object_is_no_reason_to_stop(bucket: Bucket) -> None:
    bucket.boto.put_object(Bucket=bucket.name, Key="a", Body=b"1")
    bucket.configure("ci-reader")
    bucket.faults()
    with pytest.raises(PermissionError, match=rf"\A.*AccessDenied: '{bucket.url}/a'\Z") as caught:
        storage.read(f"{bucket.url}/a")
    assert type(caught.value) is PermissionError
    with pytest.raises(PermissionError):
        storage.put(f"{bucket.url}/b", b"1")
    with pytest.raises(PermissionError):
        list(storage.listing(bucket.url))
    assert bucket.requests() == {"GET": 2, "PUT": 1}
    with pytest.raises(PermissionError):
        storage.remove([f"{bucket.url}/a"])
    assert bucket.boto.get_object(Bucket=bucket.name, Key="a")["Body"].read() == b"1"


def test_an_object_is_put_once_and_never_overwritten(bucket: Bucket) -> None:
    assert storage.put(f"{bucket.url}/deep/a", b"first")
    assert bucket.requests() == {"PUT": 1}
    assert not storage.put(f"{bucket.url}/deep/a", b"second")
    assert bucket.requests() == {"PUT": 2}
    assert storage.read(f"{bucket.url}/deep/a") == b"first"


def test_an_object_is_replaced(bucket: Bucket) -> None:
    storage.replace(f"{bucket.url}/a", b"first")
    storage.replace(f"{bucket.url}/a", b"second")
    assert bucket.requests() == {"PUT": 2}
    assert storage.read(f"{bucket.url}/a") == b"second"


def test_of_many_writers_one_wins_whole(bucket: Bucket) -> None:
    contents = [bytes([number]) * 100_000 for number in range(16)]
    ready = threading.Barrier(16)

    def write(content: bytes) -> bool:
        ready.wait()
        return storage.put(f"{bucket.url}/a", content)

    with ThreadPoolExecutor(16) as pool:
        won = [content for content, wins in zip(contents, pool.map(write, contents), strict=True) if wins]
    assert [storage.read(f"{bucket.url}/a")] == won


def test_a_large_object_is_one_put(bucket: Bucket) -> None:
    data = bytes(range(256)) * 234_375  # 60 MB
    assert storage.put(f"{bucket.url}/a", data)
    assert bucket.requests() == {"PUT": 1}
    assert bucket.boto.list_multipart_uploads(Bucket=bucket.name).get("Uploads", []) == []
    assert storage.read(f"{bucket.url}/a") == data


@pytest.fixture(scope="module")
def many(s3_server: S3Server) -> tuple[str, list[str]]:
    """A bucket with 2500 keys in the folder `in`, and one beside it."""
    name = s3_server.new_bucket()
    keys = [f"in/{number * 7919 % 2500:04d}{'!./0é'[number % 5]}x" for number in range(2500)]
    client = s3_server.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=name, Key=key, Body=b"12"), [*keys, "inside"]))
    return name, keys


def test_a_listing_comes_in_pages_in_the_order_of_bytes(bucket: Bucket, many: tuple[str, list[str]]) -> None:
    name, keys = many
    entries = storage.listing(f"s3://{name}/in/")
    assert bucket.requests() == {}
    first = next(entries)
    assert bucket.requests() == {"GET": 1}
    found = [first, *entries]
    assert bucket.requests() == {"GET": 3}
    assert found == [(f"s3://{name}/{key}", 2) for key in sorted(keys, key=lambda key: key.encode())]


def test_a_thousand_objects_are_removed_by_one_request(bucket: Bucket) -> None:
    for key in ("a/7", "a/1499", "b"):
        storage.put(f"{bucket.url}/{key}", b"")
    bucket.faults()
    storage.remove(f"{bucket.url}/a/{number}" for number in range(1500))
    assert bucket.requests() == {"POST": 2}
    assert [entry.place for entry in storage.listing(bucket.url)] == [f"{bucket.url}/b"]


def test_folder_markers_are_not_listed(bucket: Bucket) -> None:
    for key in ("in/", "in/a/", "in/a/b", "in/c"):
        bucket.boto.put_object(Bucket=bucket.name, Key=key, Body=b"")
    assert [entry.place for entry in storage.listing(f"{bucket.url}/in")] == [
        f"{bucket.url}/in/a/b",
        f"{bucket.url}/in/c",
    ]
    assert list(storage.listing(f"{bucket.url}/absent")) == []


def test_names_leave_out_what_is_hidden(bucket: Bucket) -> None:
    for key in ("b.json", "a/c.json", "a/.d.json", ".e/f.json", "g.txt"):
        storage.put(f"{bucket.url}/in/{key}", b"")
    assert storage.names(f"{bucket.url}/in", ".json") == [".e/f.json", "a/c.json", "b.json"]
    assert storage.names(f"{bucket.url}/absent", ".json") == []


def test_keys_are_taken_literally(bucket: Bucket) -> None:
    for key in ODD:
        assert storage.put(f"{bucket.url}/o d+d%20/{key}", key.encode())
    listed = [entry.place for entry in storage.listing(f"{bucket.url}/o d+d%20")]
    assert listed == [f"{bucket.url}/o d+d%20/{key}" for key in sorted(ODD, key=lambda key: key.encode())]
    assert sorted(storage.read(place).decode() for place in listed) == sorted(ODD)
    keys = [found["Key"] for found in bucket.boto.list_objects_v2(Bucket=bucket.name)["Contents"]]
    assert sorted(keys) == sorted(f"o d+d%20/{key}" for key in ODD)
    storage.remove(listed)
    assert list(storage.listing(bucket.url)) == []


def test_keys_that_obstore_has_no_words_for_are_taken_literally_too(bucket: Bucket) -> None:
    for key in ("a\nb", "in//c"):
        bucket.boto.put_object(Bucket=bucket.name, Key=key, Body=key.encode())
    listed = [entry.place for entry in storage.listing(bucket.url)]
    stored = [found["Key"] for found in bucket.boto.list_objects_v2(Bucket=bucket.name)["Contents"]]
    assert listed == [f"{bucket.url}/{key}" for key in stored]
    assert storage.read(f"{bucket.url}/in//c") == b"in//c"
    assert storage.read(f"{bucket.url}/a\nb") == b"a\nb"
