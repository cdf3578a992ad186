from __future__ import annotations

import os
from pathlib import Path

import pytest

from segface_batch import storage


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("s3://b/in/out", "s3://b/in"),
        ("s3a://b/in/out", "s3://b/in/"),
        ("S3://B/in//out/", "s3n://b/in"),
        ("s3://b/in/./x/../../in/out", "s3://b/in"),
        ("s3://b/in/../out", "s3://b/in"),  # the key itself begins with in/
        ("s3://b/a/../in/out", "s3://b/in"),
        ("s3://b/out", "s3://b"),
        ("s3://b/in", "s3://b/in"),
        ("gcs://b/in/out", "gs://b/in"),
        ("https://HOST/a%20b/out", "https://host/a b"),
        ("memory:///in/out", "memory://in"),
    ],
)
def test_a_url_lies_inside_another_however_they_are_spelled(place: str, folder: str) -> None:
    assert storage.is_inside(place, folder)


@pytest.mark.parametrize(
    ("place", "folder"),
    [
        ("s3://b/in2", "s3://b/in"),
        ("s3://b/IN/out", "s3://b/in"),
        ("gs://b/in/out", "s3://b/in"),
        ("s3://b", "s3://b/in"),
        ("s3://b/in%2Fout", "s3://b/in"),
        ("/b/in", "s3://b"),
    ],
)
def test_other_places_lie_outside(place: str, folder: str) -> None:
    assert not storage.is_inside(place, folder)


def test_paths_are_compared_by_what_they_lead_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in 100%" / "sub").mkdir(parents=True)
    (tmp_path / "in2").mkdir()
    (tmp_path / "link").symlink_to("in 100%")
    (tmp_path / "deep").symlink_to("in 100%/sub")
    folder = tmp_path / "in 100%"
    url = folder.as_uri()
    inside = (
        "in 100%", "in 100%/", "in 100%/out", f"{folder}/a/b/c", f"{url}/out", url.replace("file://", "FILE://localhost"),
        "in2/../in 100%/out", "link/out", "deep/out", "deep/../out", f"{tmp_path}//link/out",
    )  # fmt: skip
    for place in inside:
        for spelled in ("in 100%", str(folder), f"{url}/", "link", "./in2/../link/"):
            assert storage.is_inside(place, spelled), (place, spelled)
    for place in (
        "in2",
        "in 100%2/out",
        ".",
        "/",
        "in 100%/../out",
        (tmp_path / "in2" / "x").as_uri(),
        "s3://in 100%/a",
    ):
        assert not storage.is_inside(place, "in 100%"), place
    assert storage.is_inside("deep", "in 100%")
    assert not storage.is_inside("in 100%", "deep")


def test_names_and_folders_of_places() -> None:
    for place, folder, name in (
        ("/a/who?/b#c%;[0].jpg", "/a/who?", "b#c%;[0].jpg"),
        ("s3://b/who?/c#1/d?x.tar", "s3://b/who?/c#1", "d?x.tar"),
        ("https://h/a/b.csv?x=/y#/z", "https://h/a", "b.csv"),
        ("HTTP://h/a/b.csv#x/", "HTTP://h/a", "b.csv"),
    ):
        assert (storage.folder_of(place), storage.name_of(place)) == (folder, name)
    assert storage.absolute("https://h/a.csv?sig=x/") == "https://h/a.csv?sig=x/"
    assert storage.absolute("s3://b/a/") == "s3://b/a"
    assert not storage.is_url("/a/x://y")
    assert storage.local_path("/a/x://y") == "/a/x://y"
    assert storage.local_path("File://localhost/a%3F%20b") == "/a? b"
    assert os.fsencode(storage.local_path("file:///caf%E9") or "") == b"/caf\xe9"
