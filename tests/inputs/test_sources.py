from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.inputs.sources import Picture, pictures


def listed(source: Path, *, need_landmarks: bool = False) -> tuple[list[Picture], dict[str, int]]:
    skipped: Counter[str] = Counter()
    found = list(pictures(str(source), skipped, need_landmarks=need_landmarks))
    return found, dict(skipped)


def test_a_folder_is_searched_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/y é%20#.webp", "c.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    found, skipped = listed(tmp_path)
    names = ["a/y é%20#.webp", "a/z.png", "b.JPG", "c.jpeg"]
    assert found == [Picture(name, str(tmp_path / name), None, 3) for name in names]
    assert skipped == {}


def test_a_folder_gives_regular_files_only_and_counts_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "._a.jpg").touch()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "README").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "folder.jpg" / "inside.png").touch()
    found, skipped = listed(tmp_path)
    assert [picture.image_id for picture in found] == ["a.jpg", "folder.jpg/inside.png"]
    assert skipped == {
        "symbolic links": 3,
        "pipes or devices": 1,
        "hidden": 2,
        ".txt files": 1,
        "files without suffix": 1,
    }


def test_a_name_that_is_no_utf8_becomes_a_url_that_still_opens_it(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb"):
        pass
    found, _ = listed(tmp_path)
    assert found == [Picture("caf\\xe9.jpg", f"file://{tmp_path}/caf%E9.jpg")]


def test_a_text_manifest_lists_paths_beside_itself_and_urls(tmp_path: Path) -> None:
    (tmp_path / "here.jpg").write_bytes(b"1234")
    manifest = tmp_path / "list.txt"
    manifest.write_text("here.jpg\n\n/absent/b.jpg\r\ns3://bucket/c d.jpg\n")
    assert listed(manifest)[0] == [
        Picture("here.jpg", str(tmp_path / "here.jpg"), None, 4),
        Picture("/absent/b.jpg", "/absent/b.jpg"),
        Picture("s3://bucket/c d.jpg", "s3://bucket/c d.jpg"),
    ]


def test_csv_and_parquet_manifests_carry_names_and_landmarks(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('uri,image_id,landmarks\n/a.jpg,first,"1 2.5 3 4"\n/b.jpg,,\n/c.jpg,third,1 x\n')
    rows = [
        {"uri": "/a.jpg", "image_id": "first", "landmarks": [[1.0, 2.5], [3.0, 4.0]], "more": 1},
        {"uri": "/b.jpg", "image_id": None, "landmarks": None, "more": 2},
        {"uri": "/c.jpg", "image_id": "third", "landmarks": [[1.0]], "more": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        first, second, third = listed(tmp_path / name, need_landmarks=True)[0]
        assert first == Picture("first", "/a.jpg", [1.0, 2.5, 3.0, 4.0])
        assert second == Picture("/b.jpg", "/b.jpg", None)
        assert (third.image_id, third.uri) == ("third", "/c.jpg")
        assert third.landmarks is not None
        assert all(map(math.isnan, third.landmarks))


@pytest.mark.parametrize(
    ("text", "need_landmarks", "message"),
    [
        ("path\na.jpg\n", False, "no column 'uri' (it has: path)"),
        ("uri\na.jpg\n", True, "no column 'landmarks' (it has: uri)"),
        ("uri,image_id\na.jpg,a\n,b\n", False, "row 2 has no uri"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(
    tmp_path: Path, text: str, need_landmarks: bool, message: str
) -> None:
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=r"m\.csv") as caught:
        listed(tmp_path / "m.csv", need_landmarks=need_landmarks)
    assert message in str(caught.value)
