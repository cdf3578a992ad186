"""Rows of manifests that scraped and generated lists have."""

from __future__ import annotations

from pathlib import Path

import pytest

from segface_batch.inputs.image import SourceImage
from tests.inputs.test_sources import listed, refusal, touch


def rows(path: Path, content: str) -> list[tuple[str, str | None]]:
    """image_id and error of each image that a manifest lists; the manifest's folder is written as ~."""
    path.write_bytes(content.encode())
    return [(image.image_id, image.error) for image in listed(path)[0]]


@pytest.mark.parametrize(
    "uri",
    [
        "htps://example.org/x.jpg",
        "http://[::1/x.jpg",
        "http://127.0.0.1:99999/x.jpg",
        "http://127.0.0.1:port/x.jpg",
        "http://:80/x.jpg",
        "https:///x.jpg",
        f"https://{'a' * 70}.org/x.jpg",
        "https://a..org/x.jpg",
        "s3://bucket",
        "s3:///x.jpg",
        "s3://not a bucket/x.jpg",
        "a" * 300,
        "a/" * 3000,
        "a\0b.jpg",
        "file:///a%00b.jpg",
    ],
)
def test_what_nothing_can_be_called_is_an_error_of_its_row(tmp_path: Path, uri: str) -> None:
    shown = uri.replace("\0", "\\x00")
    expected = [("0.jpg", None), (shown, "bad_uri"), ("2.jpg", None)]
    assert rows(tmp_path / "m.csv", f"uri\n0.jpg\n{uri}\n2.jpg\n") == expected
    assert rows(tmp_path / "m.txt", f"0.jpg\n{uri}\n2.jpg\n") == expected


@pytest.mark.parametrize(
    "uri",
    [
        "HTTP://127.0.0.1:18766/a.jpg",
        "S3://bucket/a b?#%.jpg",
        "http://[::1]/x.jpg",
        "http://user:p@münchen.example:81/?x=1",
        "memory://a",
        "gs://bucket/a.jpg",
        "FILE:///a.jpg",
        "file://localhost/a.jpg",
        "C:\\images\\a.jpg",
        "a\nb.jpg",
        "a b://c",
    ],
)
def test_what_something_can_be_called_is_tried(tmp_path: Path, uri: str) -> None:
    (tmp_path / "m.csv").write_text(f'uri\n"{uri}"\n')
    (image,), _ = listed(tmp_path / "m.csv")
    assert image.error is None


def test_a_row_that_names_no_image_has_its_number(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(
        "uri,image_id,n\n/a.jpg,,1\n,second,2\n\n,,3\n,,\n/c.jpg,d,4,5\n/d.jpg,,6,,\n/e.jpg\n"
    )
    assert listed(tmp_path / "m.csv", columns=["n"])[0] == [
        SourceImage("/a.jpg", "/a.jpg", carried=("1",)),
        SourceImage("second", f"{tmp_path}/m.csv#2", error="bad_uri", carried=("2",)),
        SourceImage("m.csv/3", f"{tmp_path}/m.csv#3", error="bad_uri", carried=("3",)),
        SourceImage("m.csv/4", f"{tmp_path}/m.csv#4", error="bad_uri", carried=(None,)),
        SourceImage("/d.jpg", "/d.jpg", carried=("6",)),
        SourceImage("/e.jpg", "/e.jpg", carried=(None,)),
    ]


def test_odd_csv_is_read_as_it_is_meant(tmp_path: Path) -> None:
    caption = "x" * 140_000
    assert rows(tmp_path / "m.csv", f'uri,caption\n0.jpg,short\n1.jpg,{caption}\n2.jpg,5" tall\n') == [
        ("0.jpg", None),
        ("1.jpg", None),
        ("2.jpg", None),
    ]
    assert rows(tmp_path / "m.csv", '\ufeff\r\n\r\n"uri",x\r\n"a,b.jpg","two\r\nlines"\r\n\r\nc.jpg,\r\n') == [
        ("a,b.jpg", None),
        ("c.jpg", None),
    ]
    assert rows(tmp_path / "m.csv", "uri\ra.jpg\rb.jpg") == [("a.jpg", None), ("b.jpg", None)]
    assert rows(tmp_path / "m.csv", 'uri,x\na.jpg,"b"c\nd.jpg,e\n"f.jpg') == [
        ("m.csv/1", "bad_uri"),
        ("d.jpg", None),
        ("m.csv/3", "bad_uri"),
    ]


def test_a_comma_without_quotes_never_gives_another_image(tmp_path: Path) -> None:
    touch(tmp_path, "a", "a, b.jpg")
    assert rows(tmp_path / "m.csv", "uri\na, b.jpg\n") == [("m.csv/1", "bad_uri")]


def test_blanks_before_a_url_do_not_make_it_a_path(tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text(" https://u:p@host/a.jpg?sig=1\n x.jpg\n")
    first, second = listed(tmp_path / "m.txt")[0]
    assert (first.uri, first.place) == ("https://host/a.jpg?sig=REDACTED", "https://u:p@host/a.jpg?sig=1")
    assert second == SourceImage(" x.jpg", f"{tmp_path}/ x.jpg")


def test_the_longest_line_is_a_row(tmp_path: Path) -> None:
    name = "a" * (2**24 - 2)
    assert rows(tmp_path / "m.txt", f"{name}\nb.jpg\n") == [(name, "bad_uri"), ("b.jpg", None)]
    (tmp_path / "m.txt").write_text(f"{name}aa\nb.jpg\n")
    assert "has a line of more than 16,777,216 characters" in refusal(tmp_path / "m.txt")


def test_a_manifest_of_zeros_does_not_fill_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "m.txt").open("wb") as file:
        file.truncate(2**36)
    assert "has a line of more than 16,777,216 characters; is it a manifest?" in refusal(tmp_path / "m.txt")
