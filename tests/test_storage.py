from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import fsspec
import pytest

from segface_batch import storage


def test_an_object_is_put_once_and_never_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "object"
    assert storage.put(target, b"first")
    assert not storage.put(target, b"second")
    assert target.read_bytes() == b"first"
    assert os.listdir(target.parent) == ["object"]


def test_of_many_writers_one_wins_whole(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(16)]
    won: list[bytes] = []

    def write(content: bytes) -> None:
        if storage.put(tmp_path / "object", content):
            won.append(content)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [(tmp_path / "object").read_bytes()] == won


def test_a_failed_put_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        storage.put(tmp_path / "object", "text")  # pyright: ignore[reportArgumentType]
    assert os.listdir(tmp_path) == []


def test_names_leave_out_what_is_unfinished(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", ".c.parquet.tmp", ".d.parquet", "e.json"):
        (tmp_path / name).touch()
    assert storage.names(tmp_path, ".parquet") == ["a.parquet", "b.parquet"]
    assert storage.names(tmp_path / "absent", ".parquet") == []


def test_urls_are_read_like_paths(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %41.jpg"))
    odd.write_bytes(b"content")
    assert storage.read(str(odd)) == storage.read(odd.as_uri()) == b"content"
    fsspec.filesystem("memory").pipe_file("/bucket/a.jpg", b"object")
    assert storage.read("memory://bucket/a.jpg") == b"object"
    with pytest.raises(OSError, match=r"(?i)too large"):
        storage.read("memory://bucket/a.jpg", max_bytes=5)


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.jpg"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(OSError, match=r"x\.jpg") as caught:
        storage.read(str(path))
    assert caught.value.errno in (errno.ENODEV, errno.EISDIR)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"12345")
    assert storage.read(str(path), max_bytes=5) == b"12345"
    with pytest.raises(OSError, match=r"(?i)too large") as caught:
        storage.read(str(path), max_bytes=4)
    assert caught.value.errno == errno.EFBIG
