"""Objects as files."""

from __future__ import annotations

import io
import os
import uuid
from pathlib import Path

import pytest

from segface_batch import storage
from segface_batch.storage.ranged import Ranged, open_ranged


@pytest.fixture(params=["", "memory://"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An object of ten bytes."""
    found = f"memory://{uuid.uuid4().hex}/a" if request.param else f"{tmp_path}/a"
    storage.put(found, b"0123456789")
    return found


def test_every_read_is_the_next_piece_and_none_is_beyond_the_end(place: str) -> None:
    file = Ranged(place, 10)
    assert [file.read(4), file.read(4), file.read(4), file.read(4)] == [b"0123", b"4567", b"89", b""]
    assert (file.seek(-3, os.SEEK_END), file.read(), file.tell()) == (7, b"789", 10)
    assert (file.seek(2), file.seek(3, os.SEEK_CUR), file.read(1)) == (2, 5, b"5")
    assert (file.seek(20), file.read(1)) == (20, b"")
    buffer = bytearray(b"......")
    assert (file.seek(6), file.readinto(buffer), bytes(buffer)) == (6, 4, b"6789..")


def test_a_file_of_any_kind_reads_like_a_local_one(place: str) -> None:
    with open_ranged(place, 10, 3) as file:
        assert isinstance(file, io.BufferedReader)
        assert (file.read(2), file.seek(8), file.read(5), file.seek(0), file.read()) == (
            b"01",
            8,
            b"89",
            0,
            b"0123456789",
        )


def test_an_object_that_is_shorter_than_it_was_has_changed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"012")
    with pytest.raises(OSError, match=r"has 3 of the 10 bytes: changed since it was listed"):
        Ranged(f"{tmp_path}/a", 10).read()
