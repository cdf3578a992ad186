from __future__ import annotations

import datetime
import http.server
import math
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch import storage
from segface_batch.inputs.image import Cell, SourceImage
from segface_batch.inputs.sources import list_images
from tests.inputs.archives import IMAGE, tar_file


def listed(*inputs: Path | str, **settings: Any) -> tuple[list[SourceImage], dict[str, int]]:
    skipped: Counter[str] = Counter()
    _, found = list_images([str(place) for place in inputs], skipped, **settings)
    return list(found), dict(skipped)


def ids(*inputs: Path | str, **settings: Any) -> list[str]:
    return [image.image_id for image in listed(*inputs, **settings)[0]]


def refusal(*inputs: Path | str, **settings: Any) -> str:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        listed(*inputs, **settings)
    return str(caught.value)


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"123")
    return root


def faces(path: Path, rows: Sequence[dict[str, Any]], **more: pa.DataType) -> Path:
    """A Parquet file with a column `image` as Hugging Face stores it, and others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pa.schema([("image", IMAGE), *more.items()])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)
    return path


def test_a_folder_is_searched_in_the_order_of_names(tmp_path: Path) -> None:
    names = ["a/y é%20#.webp", "a/z.png", "b.JPG", "c.jpeg"]
    touch(tmp_path, *reversed(names))
    found, skipped = listed(tmp_path)
    assert found == [SourceImage(name, str(tmp_path / name), None, 3) for name in names]
    assert skipped == {}


def test_a_folder_gives_regular_files_only_and_counts_the_rest(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "._a.jpg", ".cache/b.jpg", "notes.txt", "README", "folder.jpg/inside.png", "x.tar.gz")
    touch(tmp_path, "a.b.a long sentence", "X.TAR.GZ")
    (tmp_path / "link.jpg").symlink_to("a.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to(".")
    os.mkfifo(tmp_path / "pipe.jpg")
    found, skipped = listed(tmp_path)
    assert [image.image_id for image in found] == ["a.jpg", "folder.jpg/inside.png"]
    assert skipped == {
        "symbolic links": 3,
        "pipes or devices": 1,
        "hidden": 2,
        ".txt files": 1,
        ".tar.gz files": 2,
        "files without suffix": 1,
        "files of other kinds": 1,
    }


def test_a_name_that_is_not_utf8_becomes_a_url_that_still_opens_it(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb"):
        pass
    found, _ = listed(tmp_path)
    assert found == [SourceImage("caf\\xe9.jpg", f"file://{tmp_path}/caf%E9.jpg")]
    assert storage.read(found[0].uri) == b""


@pytest.mark.parametrize("name", [b"caf\xe9", "who is it? (2020)", "a#b", "50%", "%41;x=1", "[a]*", "x://u@y?sig=z"])
def test_any_name_of_a_folder_will_do(tmp_path: Path, name: str | bytes) -> None:
    folder = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), os.fsencode(name))))
    plain = touch(tmp_path / "plain", "a.jpg", "50%?#;[0].jpg")
    (plain / "m.txt").write_text("a.jpg\n50%?#;[0].jpg\n")
    (plain / "m.csv").write_text("uri\na.jpg\n50%?#;[0].jpg\n")
    pq.write_table(pa.table({"uri": ["a.jpg", "50%?#;[0].jpg"]}), plain / "m.parquet")
    tar_file(plain / "s.tar", [("a#b?.jpg", b"123")])
    faces(plain / "f.parquet", [{"image": {"path": "a.jpg"}}, {"image": {"bytes": b"123"}}])
    folder.parent.mkdir(parents=True, exist_ok=True)
    plain.rename(folder)
    for source in ("m.txt", "m.csv", "m.parquet"):
        for place in (str(folder / source), (folder / source).as_uri()):
            first, second = listed(place)[0]
            assert (first.image_id, second.image_id) == ("a.jpg", "50%?#;[0].jpg")
            assert storage.read(first.place or first.uri) == storage.read(second.uri) == b"123"
            assert (first.n_bytes, second.n_bytes) == (3, 3)
            assert second.uri.encode()
    assert ids(folder / "s.tar") == ["s.tar/a#b?.jpg"]
    (member,), _ = listed(folder / "s.tar")
    assert member.uri == f"{member.place}#a#b?.jpg"
    assert [(image.image_id, bool(image.cell)) for image in listed(folder / "f.parquet")[0]] == [
        ("a.jpg", False),
        ("f.parquet/1", True),
    ]
    assert ids(folder) == ["50%?#;[0].jpg", "a.jpg", "s.tar/a#b?.jpg"]


def test_only_a_manifest_on_a_web_server_has_a_query() -> None:
    root = f"memory://{uuid.uuid4().hex}/who?"
    storage.put(f"{root}/m?.csv", b"uri\na.jpg\n")
    assert listed(f"{root}/m?.csv")[0] == [SourceImage("a.jpg", f"{root}/a.jpg")]


def test_a_prefix_of_a_store_is_a_folder() -> None:
    root = f"memory://{uuid.uuid4().hex}/in"
    for name in ("a/b.jpg", "c.JPG", ".hidden/d.jpg", "a/.hidden/d.jpg", "a/._b.jpg", "e.json"):
        storage.put(f"{root}/{name}", b"1234")
    found, skipped = listed(f"{root}/")
    assert found == [SourceImage(name, f"{root}/{name}", None, 4) for name in ("a/b.jpg", "c.JPG")]
    assert skipped == {"hidden": 3, ".json files": 1}


def test_a_text_manifest_lists_paths_beside_itself_and_urls(tmp_path: Path) -> None:
    (tmp_path / "here.jpg").write_bytes(b"1234")
    manifest = tmp_path / "list.txt"
    manifest.write_text("here.jpg\n\n/absent/b.jpg\r\ns3://bucket/c d.jpg\n")
    assert listed(manifest)[0] == [
        SourceImage("here.jpg", str(tmp_path / "here.jpg"), None, 4),
        SourceImage("/absent/b.jpg", "/absent/b.jpg"),
        SourceImage("s3://bucket/c d.jpg", "s3://bucket/c d.jpg"),
    ]


def test_a_manifest_on_a_store_lists_what_lies_beside_it() -> None:
    root = f"memory://{uuid.uuid4().hex}"
    storage.put(f"{root}/lists/m.csv", "\ufeffuri,image_id\n../a.jpg,first\nsub/b.jpg,\n".encode())
    assert listed(f"{root}/lists/m.csv")[0] == [
        SourceImage("first", f"{root}/lists/../a.jpg"),
        SourceImage("sub/b.jpg", f"{root}/lists/sub/b.jpg"),
    ]


def test_csv_and_parquet_manifests_carry_names_and_landmarks(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        '\ufeffuri,image_id,landmarks\n/a.jpg,first,"1 2.5 3 4"\n/b.jpg,,\n/c.jpg,third,1 x\n', encoding="utf-8"
    )
    rows = [
        {"uri": "/a.jpg", "image_id": "first", "landmarks": [[1.0, 2.5], [3.0, 4.0]], "more": 1},
        {"uri": "/b.jpg", "image_id": None, "landmarks": None, "more": 2},
        {"uri": "/c.jpg", "image_id": "third", "landmarks": [[1.0]], "more": 3},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    for name in ("m.csv", "m.parquet"):
        first, second, third = listed(tmp_path / name, placed_by=["landmarks"])[0]
        assert first == SourceImage("first", "/a.jpg", [1.0, 2.5, 3.0, 4.0])
        assert second == SourceImage("/b.jpg", "/b.jpg", None)
        assert (third.image_id, third.uri) == ("third", "/c.jpg")
        assert third.landmarks is not None
        assert all(map(math.isnan, third.landmarks))


def test_a_box_places_a_face_where_there_are_no_landmarks(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,box,landmarks\n/a.jpg,1 2 3 4,\n/b.jpg,1 2 3 4,5 6 7 8 9 9\n/c.jpg,1 2 3,\n")
    rows = [{"uri": "/a.jpg", "box": [1, 2, 3, 4]}, {"uri": "/c.jpg", "box": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "m.parquet")
    first, second, third = (found.landmarks for found in listed(tmp_path / "m.csv", placed_by=["landmarks", "box"])[0])
    assert (first, second) == ([1, 2, 3, 4], [5, 6, 7, 8, 9, 9])
    assert third is not None
    assert len(third) == 4
    assert all(map(math.isnan, third))
    found = listed(tmp_path / "m.parquet", placed_by=["landmarks", "box"])[0]
    assert [image.landmarks for image in found] == [[1, 2, 3, 4], None]


def test_secrets_in_a_manifest_serve_to_read_and_are_not_shown(tmp_path: Path) -> None:
    signed = "https://u:p@host/b.jpg?size=2&X-Amz-Signature=abc"
    (tmp_path / "m.txt").write_text(f"{signed}\n")
    shown = "https://host/b.jpg?size=2&X-Amz-Signature=REDACTED"
    assert listed(tmp_path / "m.txt")[0] == [SourceImage(shown, shown, place=signed)]


@pytest.mark.parametrize(
    ("text", "placed_by", "message"),
    [
        (b"path\na.jpg\n", (), "no column 'uri' (it has: path)"),
        (b"", (), "no column 'uri' (it has: none)"),
        (b"uri\na.jpg\n", ("landmarks",), "no column 'landmarks' (it has: uri)"),
        (b"uri\na.jpg\n", ("landmarks", "box"), "no column 'landmarks' or 'box' (it has: uri)"),
        (b"uri,uri\na.jpg,b.jpg\n", (), "has 2 columns 'uri'; rename all but one"),
        ("uri\na.jpg\n".encode("utf-16"), (), "is in UTF-16; save it as UTF-8"),
        (b'uri\na.jpg\n"b.jpg\nc.jpg\n', (), "is not CSV from line 3 on (unexpected end of data); check its quotes"),
        (b'uri,a,b\na.jpg,"x,y\nb.jpg,"x",y\n', (), "is not CSV from line 2 on (',' expected after '\"')"),
        (b"uri\n" + b"a" * 2**24, (), "has a line of more than 16,777,216 characters"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(
    tmp_path: Path, text: bytes, placed_by: tuple[str, ...], message: str
) -> None:
    (tmp_path / "m.csv").write_bytes(text)
    found = refusal(tmp_path / "m.csv", placed_by=placed_by)
    assert f"{tmp_path}/m.csv" in found
    assert message in found


def test_a_manifest_whose_uris_are_not_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": [1]}), tmp_path / "m.parquet")
    assert refusal(tmp_path / "m.parquet") == f"{tmp_path}/m.parquet: column 'uri' is int64; make it text"
    pq.write_table(pa.table({"uri": pa.array(["/a.jpg"]).dictionary_encode()}), tmp_path / "m.parquet")
    assert ids(tmp_path / "m.parquet") == ["/a.jpg"]


def test_a_manifest_with_bytes_for_text_reads_like_one_with_text(tmp_path: Path) -> None:
    rows = {"uri": pa.array([b"/a.jpg", b"/caf\xe9.jpg", None]), "image_id": pa.array([b"000", None, b"002"])}
    pq.write_table(pa.table(rows), tmp_path / "m.parquet")
    not_utf8 = pa.array([b"/a.jpg", b"/caf\xe9.jpg", None]).cast(pa.string(), safe=False)
    pq.write_table(pa.table(rows | {"uri": not_utf8}), tmp_path / "n.parquet")
    for name in ("m.parquet", "n.parquet"):
        assert listed(tmp_path / name)[0] == [
            SourceImage("000", "/a.jpg"),
            SourceImage("/caf\\xe9.jpg", "/caf\\xe9.jpg"),
            SourceImage("002", f"{tmp_path}/{name}#3", error="bad_uri"),
        ]
    keyed = {"key": pa.array([b"000", None]), "jpg": pa.array([b"1", b"2"])}
    pq.write_table(pa.table(keyed), tmp_path / "f.parquet")
    assert ids(tmp_path / "f.parquet") == ["000", "f.parquet/1"]


def test_bytes_that_are_not_utf8_concern_their_row_alone(tmp_path: Path) -> None:
    name = b"caf\xe9.jpg"
    for path in (b"a.jpg", name):
        with open(os.path.join(os.fsencode(tmp_path), path), "wb") as file:
            file.write(path)
    here = os.fsencode(tmp_path)
    places = [b"a.jpg", name, here + b"/" + name, b"file://" + here + b"/" + name, b"s3://bucket/" + name]
    (tmp_path / "m.txt").write_bytes(b"\n".join(places))
    (tmp_path / "m.csv").write_bytes(b"uri,n\xe9\n" + b"".join(place + b",\xe91\n" for place in places))
    for listing, columns, carried in (("m.txt", [], ()), ("m.csv", ["n\\xe9"], ("\\xe91",))):
        found, _ = listed(tmp_path / listing, columns=columns)
        assert [image.carried for image in found] == [carried] * 5
        assert [image.image_id for image in found] == [place.decode("utf-8", "backslashreplace") for place in places]
        assert [image.error for image in found] == [None] * 4 + ["bad_uri"]
        assert [storage.read(image.uri) for image in found[:4]] == [b"a.jpg", name, name, name]
        assert pa.array(found[4][:2]).to_pylist() == ["s3://bucket/caf\\xe9.jpg"] * 2
        assert found[4].place is None


def test_a_folder_of_manifest_parts_is_a_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "data/b.jpg", "m.parquet/_SUCCESS", "m.parquet/.part-0.parquet.crc")
    for folder in ("m.parquet", "lists"):
        (tmp_path / folder).mkdir(exist_ok=True)
        for number, name in enumerate(("a.jpg", "data/b.jpg")):
            part = pa.table({"uri": [name], "n": [number]})
            pq.write_table(part, tmp_path / folder / f"part-{number}.snappy.parquet")
    (tmp_path / "lists" / "a.txt").touch()
    found, skipped = listed(tmp_path / "m.parquet", columns=["n"])
    assert found == [
        SourceImage("a.jpg", f"{tmp_path}/a.jpg", None, 3, carried=(0,)),
        SourceImage("data/b.jpg", f"{tmp_path}/data/b.jpg", None, 3, carried=(1,)),
    ]
    assert skipped == {"files without suffix": 1, "hidden": 1}
    assert listed(tmp_path / "lists")[0][0] == SourceImage("a.jpg", f"{tmp_path}/lists/a.jpg")
    assert refusal(tmp_path / "lists", columns=["m"]) == "no input has a column 'm'; there is: n"
    pq.write_table(pa.table({"uri": ["x"], "n": ["2"]}), tmp_path / "m.parquet" / "part-2.parquet")
    assert "column 'n' is string in " in refusal(tmp_path / "m.parquet", columns=["n"])


def test_a_doubled_column_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    jpg, key = pa.array([b"1"]), pa.array(["a"])
    pq.write_table(pa.table([jpg, key, key], ["jpg", "key", "key"]), tmp_path / "f.parquet")
    assert refusal(tmp_path / "f.parquet") == f"{tmp_path}/f.parquet has 2 columns 'key'; rename all but one"
    pq.write_table(pa.table([jpg, key, key], ["jpg", "x", "x"]), tmp_path / "f.parquet")
    assert ids(tmp_path / "f.parquet") == ["f.parquet/0"]
    assert refusal(tmp_path / "f.parquet", columns=["x"]).endswith("has 2 columns 'x'; rename all but one")
    (tmp_path / "m.csv").write_text("uri,tag,tag\n/a.jpg,1,2\n")
    assert ids(tmp_path / "m.csv") == ["/a.jpg"]
    assert refusal(tmp_path / "m.csv", columns=["tag"]).endswith("has 2 columns 'tag'; rename all but one")


def test_a_parquet_file_of_paths_gives_the_files(tmp_path: Path) -> None:
    touch(tmp_path, "img/a.jpg", "b.jpg")
    rows: list[Any] = [{"path": f"{tmp_path}/b.jpg"}, {"path": "img/a.jpg"}, {"path": "absent.jpg"}]
    rows += [{"path": "s3://bucket/c.jpg"}, {"path": "htps://x/d.jpg"}]
    path = faces(tmp_path / "f.parquet", [{"image": row} for row in rows])
    found = listed(path)[0]
    assert (found[2].uri, found[2].place, found[2].error) == (f"{path}#2", str(path), None)  # a null cell: missing
    assert [*found[:2], *found[3:]] == [
        SourceImage(f"{tmp_path}/b.jpg", f"{tmp_path}/b.jpg", None, 3),
        SourceImage("img/a.jpg", f"{tmp_path}/img/a.jpg", None, 3),
        SourceImage("s3://bucket/c.jpg", "s3://bucket/c.jpg"),
        SourceImage("htps://x/d.jpg", "htps://x/d.jpg", error="bad_uri"),
    ]
    mixed: list[Any] = [{"bytes": b"1", "path": "x.jpg"}, {"path": "img/a.jpg"}, None, {"bytes": b"2"}, {}]
    for statistics in (True, False):
        table = pa.Table.from_pylist([{"image": row} for row in mixed], pa.schema([("image", IMAGE)]))
        pq.write_table(table, tmp_path / "g.parquet", write_statistics=statistics)
        found = listed(tmp_path / "g.parquet")[0]
        by_path = [image.uri for image in found if image.cell is None]
        assert by_path == ([f"{tmp_path}/img/a.jpg"] if statistics else [])
        assert [image.image_id for image in found] == ["x.jpg", "img/a.jpg", *(f"g.parquet/{row}" for row in (2, 3, 4))]


@pytest.mark.parametrize("count", [9, 150])
def test_a_parquet_file_of_paths_that_lead_nowhere_is_refused(tmp_path: Path, count: int) -> None:
    path = faces(tmp_path / "f.parquet", [{"image": {"path": f"{row}.jpg"}} for row in range(count)])
    assert refusal(path) == (
        f"{path} has paths in place of images (image.bytes is null), and there is no file "
        f"'{tmp_path}/{min(count, 100) - 1}.jpg'; put the files where the paths say, or embed them"
    )


def test_masks_of_ours_are_no_images(tmp_path: Path) -> None:
    table = pa.table({"mask": pa.array([{"bytes": b"1", "path": None}], IMAGE)})
    pq.write_table(table.replace_schema_metadata({"segface_batch": "{}"}), tmp_path / "part-00000.parquet")
    assert listed(tmp_path) == ([], {".parquet files": 1})


def test_rows_of_a_parquet_file_are_images(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": b"12", "path": "x/a.jpg"}}, {"image": {"bytes": b"1234"}}, {"image": None}]
    path = faces(tmp_path / "faces.parquet", rows)
    found, _ = listed(path)
    size = path.stat().st_size
    mean = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size // 3
    assert found == [
        SourceImage(name, f"{path}#{row}", None, mean, str(path), cell=Cell("image.bytes", 0, row, size))
        for row, name in enumerate(["x/a.jpg", "faces.parquet/1", "faces.parquet/2"])
    ]


def test_rows_keep_their_place_in_every_row_group(tmp_path: Path) -> None:
    table = pa.table({"jpg": pa.array([b"1"] * 5, pa.large_binary()), "__key__": pa.array([1, 2, None, 4, 5])})
    pq.write_table(table, tmp_path / "f.parquet", row_group_size=2)
    found, _ = listed(tmp_path / "f.parquet")
    assert [image.image_id for image in found] == ["1", "2", "f.parquet/2", "4", "5"]
    cells = [image.cell[:3] for image in found if image.cell is not None]
    assert cells == [("jpg", 0, 0), ("jpg", 0, 1), ("jpg", 1, 0), ("jpg", 1, 1), ("jpg", 2, 0)]


def test_a_folder_of_parquet_files_is_its_rows_unless_there_are_loose_images(tmp_path: Path) -> None:
    row = {"image": {"bytes": b"1"}}
    faces(tmp_path / "in" / "train" / "a.parquet", [row, row])
    faces(tmp_path / "in" / "b.parquet", [row])
    pq.write_table(pa.table({"uri": ["s3://x/y.jpg"]}), tmp_path / "in" / "list.parquet")
    found, skipped = listed(tmp_path / "in")
    assert [image.image_id for image in found] == ["b.parquet/0", "train/a.parquet/0", "train/a.parquet/1"]
    assert skipped == {".parquet files": 1}
    touch(tmp_path / "in", "c.jpg")
    found, skipped = listed(tmp_path / "in")
    assert [image.image_id for image in found] == ["c.jpg"]
    assert skipped == {".parquet files": 3}


def test_a_folder_of_tar_files_is_their_images(tmp_path: Path) -> None:
    touch(tmp_path, "in/z.jpg")
    tar_file(tmp_path / "in" / "sub" / "1.tar", [("../a.jpg", b"12"), ("a.json", b"{}"), ("._a.jpg", b"")])
    tar_file(tmp_path / "in" / "0.tar", [("b.PNG", b"1")])
    shard = f"{tmp_path}/in/sub/1.tar"
    found, skipped = listed(tmp_path / "in")
    assert [image.image_id for image in found] == ["z.jpg", "0.tar/b.PNG", "sub/1.tar/../a.jpg"]
    assert found[2] == SourceImage("sub/1.tar/../a.jpg", f"{shard}#../a.jpg", None, 2, shard, 512)
    assert skipped == {".json files": 1, "hidden": 1}
    assert ids(shard) == ["1.tar/../a.jpg"]


def test_the_images_of_a_broken_shard_become_errors(tmp_path: Path) -> None:
    whole = tar_file(tmp_path / "whole.tar", [("a.jpg", b"1" * 600), ("b.jpg", b"2" * 600)]).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[: 512 + 1024 + 512 + 599])
    (tmp_path / "cut behind.tar").write_bytes(whole[: 512 + 1024 + 512 + 600])
    (tmp_path / "damaged.tar").write_bytes(whole[:1536] + b"\1" * 512)
    (tmp_path / "html.tar").write_bytes(b"<html>" * 200)
    (tmp_path / "short.tar").write_bytes(b"<html>")
    (tmp_path / "gzip.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    (tmp_path / "html.parquet").write_bytes(b"<html>" * 200)
    (tmp_path / "whole.tar").unlink()
    found, skipped = listed(tmp_path)
    assert [(image.image_id, image.error) for image in found] == [
        ("cut behind.tar/a.jpg", None),
        ("cut behind.tar/b.jpg", None),
        ("cut.tar/a.jpg", None),
        ("cut.tar/b.jpg", "truncated"),
        ("damaged.tar/a.jpg", None),
        ("damaged.tar", "unreadable"),
        ("gzip.tar", "unreadable"),
        ("html.tar", "unreadable"),
        ("short.tar", "unreadable"),
        ("html.parquet", "unreadable"),
    ]
    assert skipped == {
        "tar files without an end": 2,
        "damaged tar files": 3,
        "compressed tar files": 1,
        "damaged Parquet files": 1,
    }


def test_ids_of_several_inputs_start_with_their_last_components(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    tar_file(tmp_path / "a" / "s.tar", [("t.jpg", b"1")])
    tar_file(tmp_path / "u.tar", [("t.jpg", b"1")])
    faces(tmp_path / "p.parquet", [{"image": {"bytes": b"1", "path": "q.jpg"}}, {"image": {"bytes": b"1"}}])
    (tmp_path / "m.csv").write_text("uri,image_id\n/x.jpg,x\n")
    inputs = [tmp_path / name for name in ("a", "b", "u.tar", "p.parquet", "m.csv")]
    assert ids(*inputs) == [
        "a/1.jpg",
        "a/s.tar/t.jpg",
        "b/1.jpg",
        "u.tar/t.jpg",
        "p.parquet/q.jpg",
        "p.parquet/1",
        "m.csv/x",
    ]


class Files(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, whatever the query."""

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A web server of the test's folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_the_signature_of_an_input_serves_to_read_and_is_in_no_uri(tmp_path: Path, web: str) -> None:
    tar_file(tmp_path / "s.tar", [("a.jpg", b"1")])
    (tmp_path / "html.tar").write_bytes(b"<html>" * 200)
    faces(tmp_path / "f.parquet", [{"image": {"bytes": b"1"}}])
    (tmp_path / "m.csv").write_text("uri,image_id\n,x\nb.jpg,y\n")
    names, signed = ("s.tar", "html.tar", "f.parquet", "m.csv"), "?X-Amz-Signature="
    found = [image for name in names for image in listed(f"{web}/{name}{signed}secret")[0]]
    assert [(image.image_id, image.uri, image.place, image.error) for image in found] == [
        ("s.tar/a.jpg", f"{web}/s.tar{signed}REDACTED#a.jpg", f"{web}/s.tar{signed}secret", None),
        ("html.tar", f"{web}/html.tar{signed}REDACTED", None, "unreadable"),
        ("f.parquet/0", f"{web}/f.parquet{signed}REDACTED#0", f"{web}/f.parquet{signed}secret", None),
        ("x", f"{web}/m.csv{signed}REDACTED#1", None, "bad_uri"),
        ("y", f"{web}/b.jpg", None, None),
    ]


#: Files that are refused, and other settings that they are refused with.
REFUSED: dict[str, tuple[str, bytes | pa.Table, dict[str, Any]]] = {
    "no uri": ("m.csv", b"path\na.jpg\n", {}),
    "no landmarks": ("m.csv", b"uri\na.jpg\n", {"placed_by": ["landmarks"]}),
    "two columns": ("m.csv", b"uri,uri\na.jpg,b.jpg\n", {}),
    "UTF-16": ("m.txt", "a.jpg\n".encode("utf-16"), {}),
    "quotes": ("m.csv", b'uri\n"b.jpg\nc.jpg\n', {}),
    "no text": ("m.txt", b"a" * 2**24, {}),
    "compressed": ("s.tar.gz", b"", {}),
    "gzip": ("s.tar", b"\x1f\x8b" + bytes(2000), {}),
    "a tar file without landmarks": ("s.tar", bytes(10_240), {"placed_by": ["landmarks"]}),
    "no Parquet file": ("f.parquet", b"<html>" * 99, {}),
    "numbers": ("f.parquet", pa.table({"uri": [1]}), {}),
    "nothing": ("f.parquet", pa.table({"x": [1]}), {}),
    "two images": ("f.parquet", pa.table({"a": [b"1"], "b": [b"1"]}), {}),
    "two keys": ("f.parquet", pa.table([[b"1"], ["x"], ["x"]], ["a", "key", "key"]), {}),
    "a Parquet file without landmarks": ("f.parquet", pa.table({"a": [b"1"]}), {"placed_by": ["landmarks"]}),
    "paths": ("f.parquet", pa.table({"image": pa.array([{"path": "/absent.jpg"}], IMAGE)}), {}),
    "no listing": ("faces", b"", {}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_refusal_shows_the_signature_of_its_input(tmp_path: Path, web: str, name: str) -> None:
    file, content, settings = REFUSED[name]
    if isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        pq.write_table(content, tmp_path / file)
    said = refusal(f"{web}/{file}?sig=secret", **settings)
    assert f"{web}/{file}?sig=REDACTED" in said
    assert "secret" not in said


def test_no_refusal_of_two_inputs_shows_their_signatures(tmp_path: Path, web: str) -> None:
    for file, day in (("a.parquet", 1), ("b.parquet", "1")):
        pq.write_table(pa.table({"uri": ["/x.jpg"], "day": [day]}), tmp_path / file)
    one, other, same = (f"{web}/{place}?sig=secret" for place in ("a.parquet", "b.parquet", "c/a.parquet"))
    for second, settings in ((other, {"columns": ["day"]}), (same, {})):
        said = refusal(one, second, **settings)
        assert f"{second.removesuffix('secret')}REDACTED" in said
        assert "secret" not in said


def test_two_inputs_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "x/a/1.jpg", "y/a/1.jpg")
    both = f"{tmp_path}/x/a and {tmp_path}/y/a"
    assert refusal(tmp_path / "x/a", f"{tmp_path}/y/a/") == (
        f"{both} have the same last component, which tells their images apart; rename one"
    )


def test_columns_are_carried_with_their_types_and_null_where_an_input_has_none(tmp_path: Path) -> None:
    day = datetime.date(2026, 1, 2)
    table = {"uri": ["/a.jpg"], "day": [day], "who": pa.array(["x"]).dictionary_encode(), "rest": [1]}
    pq.write_table(pa.table(table), tmp_path / "m.parquet")
    (tmp_path / "m.csv").write_text("uri,who,rest\n/b.jpg,y,\n/c.jpg,,\n")
    faces(tmp_path / "f" / "p.parquet", [{"image": {"bytes": b"1"}, "day": day, "n": [1, 2]}], day=pa.date32(),
          n=pa.list_(pa.int8()))  # fmt: skip
    touch(tmp_path, "g/d.jpg")
    inputs = [str(tmp_path / name) for name in ("m.parquet", "m.csv", "f", "g")]
    schema, found = list_images(inputs, Counter(), columns=["who", "n", "day"])
    assert schema == pa.schema([("who", pa.string()), ("n", pa.list_(pa.int8())), ("day", pa.date32())])
    assert [(image.image_id, image.carried) for image in found] == [
        ("m.parquet//a.jpg", ("x", None, day)),
        ("m.csv//b.jpg", ("y", None, None)),
        ("m.csv//c.jpg", (None, None, None)),
        ("f/p.parquet/0", (None, [1, 2], day)),
        ("g/d.jpg", (None, None, None)),
    ]


def test_a_value_that_python_cannot_hold_is_refused_with_its_column(tmp_path: Path) -> None:
    far = pa.array([2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"uri": ["/a.jpg"], "day": far}), tmp_path / "m.parquet")
    assert ids(tmp_path / "m.parquet") == ["/a.jpg"]
    assert refusal(tmp_path / "m.parquet", columns=["day"]).startswith("a value of type timestamp[us] cannot be read (")


def test_columns_that_cannot_be_carried_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("uri,age,who\n/b.jpg,3,y\n")
    pq.write_table(pa.table({"uri": ["/a.jpg"], "age": [3]}), tmp_path / "m.parquet")
    csv, parquet = tmp_path / "m.csv", tmp_path / "m.parquet"
    assert refusal(csv, columns=["wo"]) == "no input has a column 'wo'; there is: age, who"
    assert refusal(csv, parquet, columns=["age"]) == (
        f"column 'age' has several types (string in {csv}, int64 in {parquet}); make them the same"
    )
    faces(tmp_path / "f" / "a.parquet", [{"image": {"bytes": b"1"}, "age": 3}], age=pa.int64())
    faces(tmp_path / "f" / "b.parquet", [{"image": {"bytes": b"1"}, "age": "3"}], age=pa.string())
    assert refusal(tmp_path / "f", columns=["age"]) == (
        f"column 'age' is string in {tmp_path}/f/b.parquet, int64 elsewhere"
    )
    assert refusal(tmp_path / "f", columns=["image"]) == "no input has a column 'image'; there is: age"


def test_an_invalid_input_is_refused_with_a_hint(tmp_path: Path) -> None:
    touch(tmp_path, "a.zip", "b.tar.gz", "c.parquet", "d.jpg")
    pq.write_table(pa.table({"x": [1], "y": ["2"]}), tmp_path / "e.parquet")
    two = {"left": pa.array([b"1"]), "right": pa.array([b"2"])}
    pq.write_table(pa.table(two), tmp_path / "two.parquet")
    assert refusal(tmp_path / "a.zip") == (
        f"'{tmp_path}/a.zip' is neither a folder nor a .txt, .csv, .parquet or .tar file; give the folder it is in"
    )
    compressed = "is compressed, so its members cannot be read one by one; decompress it to .tar first"
    assert refusal(tmp_path / "b.tar.gz") == f"{tmp_path}/b.tar.gz {compressed}"
    assert refusal("s3://bucket/b.tar.gz") == f"s3://bucket/b.tar.gz {compressed}"
    assert refusal(tmp_path / "c.parquet").startswith(f"{tmp_path}/c.parquet is not a Parquet file: ")
    assert refusal(tmp_path / "e.parquet") == (
        f"{tmp_path}/e.parquet has neither a column 'uri' nor one with images (it has: x, y); a manifest needs "
        "'uri', and images are binary or a struct with 'bytes'"
    )
    assert "nor one with images named 'up' (it has: left, right)" in refusal(
        tmp_path / "two.parquet", image_column="up"
    )
    several = f"{tmp_path}/two.parquet has several columns that may be images: left, right; give --image-column"
    assert refusal(tmp_path / "two.parquet") == several
    (right,), _ = listed(tmp_path / "two.parquet", image_column="right")
    assert right.cell is not None
    assert right.cell.column == "right"
    assert refusal("https://u:p@host/faces/") == (
        "https://host/faces cannot be listed over HTTP; give a manifest of its images"
    )
    (tmp_path / "gzip.tar").write_bytes(b"\x1f\x8b" + bytes(2000))
    assert refusal(tmp_path / "gzip.tar") == f"{tmp_path}/gzip.tar {compressed}"
    with pytest.raises(FileNotFoundError, match=r"no folder or file '.*/absent'; check the path"):
        listed(tmp_path / "absent")


def test_images_without_the_landmarks_that_are_needed_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "loose/a.jpg")
    tar_file(tmp_path / "t.tar", [("a.jpg", b"1")])
    faces(tmp_path / "f.parquet", [{"image": {"bytes": b"1"}}])
    for name, first in (("loose", "loose/a.jpg"), ("t.tar", "t.tar"), ("f.parquet", "f.parquet")):
        assert refusal(tmp_path / name, placed_by=["landmarks"]) == (
            f"{tmp_path}/{first} comes without landmarks to crop each face by; give a manifest or Parquet file with a "
            "column 'landmarks', or --faces detect to find them"
        )
    points = {"landmarks": [1.0, 2.0]}
    faces(tmp_path / "g.parquet", [{"image": {"bytes": b"1"}} | points], landmarks=pa.list_(pa.float32()))
    (found,), _ = listed(tmp_path / "g.parquet", placed_by=["landmarks"])
    assert found.landmarks == [1.0, 2.0]


@pytest.mark.parametrize("root", ["", "memory://"])
def test_an_output_in_a_folder_is_not_listed(tmp_path: Path, root: str) -> None:
    place = f"memory://{uuid.uuid4().hex}" if root else str(tmp_path / "in")
    for name in ("a.jpg", "old/_segface/plan/part.parquet", "old/_segface/run.json", "old/masks/m.jpg", "old2/b.jpg",
                 "x/out/_segface/run.json", "x/out/c.jpg", "x/d.jpg"):  # fmt: skip
        storage.put(f"{place}/{name}", b"123")
    found, skipped = listed(place)
    assert [image.image_id for image in found] == ["a.jpg", "old2/b.jpg", "x/d.jpg"]
    assert skipped == {"outputs of segface-batch": 2}
    assert listed(f"{place}/old") == ([], {"outputs of segface-batch": 1})


def test_what_goes_while_a_folder_is_listed_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg.part", "c/d.jpg", "e/f.jpg")
    tar_file(tmp_path / "s.tar", [("g.jpg", b"1")])
    skipped: Counter[str] = Counter()
    _, found = list_images([str(tmp_path)], skipped)
    assert next(found).image_id == "a.jpg"
    (tmp_path / "b.jpg.part").rename(tmp_path / "b.jpg")
    (tmp_path / "c" / "d.jpg").unlink()
    (tmp_path / "c").rmdir()
    (tmp_path / "s.tar").rename(tmp_path / "t.tar")
    assert [image.image_id for image in found] == ["e/f.jpg"]
    assert skipped == {"gone while listed": 3}


def test_a_deep_folder_is_listed(tmp_path: Path) -> None:
    folder = str(tmp_path)
    for _ in range(1100):  # Python's own functions for this recurse
        folder += "/d"
        os.mkdir(folder)
    (Path(folder) / "a.jpg").touch()
    try:
        assert ids(tmp_path) == ["d/" * 1100 + "a.jpg"]
    finally:
        (Path(folder) / "a.jpg").unlink()
        os.removedirs(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "lost+found/b.jpg", "c/d.jpg")
    (tmp_path / "lost+found").chmod(0)
    assert listed(tmp_path)[1] == {"lost+found folders": 1}
    (tmp_path / "c").chmod(0)
    with pytest.raises(PermissionError, match=r"cannot be listed; allow reading it.*/c'"):
        listed(tmp_path)


def test_a_listing_streams(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b/c.jpg")
    _, found = list_images([str(tmp_path)], Counter())
    assert next(found).image_id == "a.jpg"
    touch(tmp_path, "b/d.jpg")
    assert [image.image_id for image in found] == ["b/c.jpg", "b/d.jpg"]
