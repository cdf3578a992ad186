"""The bytes of images: their limit, files that are others now, and servers that are down."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from segface_batch.inputs import fetch, parquet
from segface_batch.inputs.fetch import fetch_images
from segface_batch.inputs.image import SourceImage
from segface_batch.storage import retry
from tests.inputs.archives import tar_file
from tests.inputs.test_sources import listed


def outcomes(images: list[SourceImage], *, any_length: bool = False) -> list[tuple[bytes | None, str | None]]:
    return [(answer.data, answer.error) for answer in fetch_images(images, any_length=any_length)]


@pytest.mark.parametrize("kind", ["file", "tar", "parquet"])
def test_an_image_of_the_most_bytes_is_read_and_one_of_a_byte_more_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 4)  # a real limit would take seconds and gigabytes
    contents = [b"1234", b"12345", b"1"]
    place = tmp_path / f"in.{kind}"
    if kind == "file":
        place.mkdir()
        for number, content in enumerate(contents):
            (place / f"{number}.jpg").write_bytes(content)
    elif kind == "tar":
        tar_file(place, [(f"{number}.jpg", content) for number, content in enumerate(contents)])
    else:
        pq.write_table(pa.table({"image": contents}), place)
    images, _ = listed(place)
    assert outcomes(images) == [(b"1234", None), (None, "too_large"), (b"1", None)]
    assert outcomes(images[1:2]) == [(None, "too_large")]


def test_a_file_that_was_replaced_has_changed_unless_any_length_will_do(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(b"planned")
    images, _ = listed(tmp_path)
    (tmp_path / "b.jpg").write_bytes(b"replaced since")
    assert outcomes(images) == [(b"planned", None), (None, "changed")]
    assert outcomes(images, any_length=True) == [(b"planned", None), (b"replaced since", None)]


def test_a_flipped_bit_in_a_page_with_a_checksum_is_damage_and_no_other_pixels(tmp_path: Path) -> None:
    place = tmp_path / "f.parquet"
    pq.write_table(pa.table({"image": [b"pixels"]}), place, compression="none", write_page_checksum=True)
    images, _ = listed(place)
    assert outcomes(images) == [(b"pixels", None)]
    place.write_bytes(place.read_bytes().replace(b"pixels", b"pixelr", 1))
    parquet.open_once.cache_clear()
    assert outcomes(images) == [(None, "unreadable")]


class Down(http.server.BaseHTTPRequestHandler):
    asked: Counter[str] = Counter()  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        self.send_error(503)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def test_a_server_that_is_down_is_waited_for_once_and_not_for_every_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the images that the threads ask for first are asked for again."""
    monkeypatch.setattr(retry, "SECONDS", 0.15)  # one more attempt
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Down) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        url = f"http://127.0.0.1:{server.server_port}"
        found = outcomes([SourceImage(f"{number}", f"{url}/{number}") for number in range(48)])
        server.shutdown()
    assert found == [(None, "unfetchable")] * 48
    assert len(Down.asked) == 48
    assert sum(count > 1 for count in Down.asked.values()) <= fetch.THREADS
