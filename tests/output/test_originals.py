"""Images of an output are read again from whatever inputs they came."""

from __future__ import annotations

import contextlib
import http.server
import io
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segface_batch import storage
from segface_batch.curate.sheet import sheet
from segface_batch.curate.show import show
from segface_batch.inputs.sources import list_images
from segface_batch.output import originals, plan as plans, run as runs
from segface_batch.output.originals import fetch_images
from segface_batch.output.reader import Output, open_output
from tests.curate import small_output
from tests.inputs.archives import IMAGE, tar_file
from tests.output import protocol
from tests.s3_server import S3Server


def png(number: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (24, 16), (number, 50, 90)).save(sink, "PNG")
    return sink.getvalue()


IMAGES = [png(number) for number in range(3)]

#: Names that a shell, a URL or a file system could take for something else, and one as long as can be.
NAMES = [
    b"a b.png",
    b"a#1.png",
    b"a?x=1&sig=2.png",
    b"50%25.png",
    b"a;[1].png",
    b"\xff.png",
    "ü".encode() * 125 + b".png",
]


def folder(root: Path) -> tuple[str, ...]:
    (root / "in").mkdir()
    for number, name in enumerate(NAMES):
        with open(os.fsencode(root / "in") + b"/" + name, "wb") as file:
            file.write(png(number))
    return (str(root / "in"),)


def manifest(root: Path) -> tuple[str, ...]:
    for number, data in enumerate(IMAGES):
        (root / f"{number}.png").write_bytes(data)
    (root / "m.csv").write_text(f"uri,image_id\n0.png,first\n{root}/1.png,\n{(root / '2.png').as_uri()},third\n")
    return (str(root / "m.csv"),)


def tar(root: Path) -> tuple[str, ...]:
    members = [(f"{number}.{kind}", data) for number, data in enumerate(IMAGES) for kind in ("png", "json")]
    return (str(tar_file(root / "s.tar", members)),)


def struct(root: Path) -> tuple[str, ...]:
    cells = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(IMAGES)]
    pq.write_table(pa.table({"image": pa.array(cells, IMAGE)}), root / "f.parquet", row_group_size=2)
    return (str(root / "f.parquet"),)


def binary(root: Path) -> tuple[str, ...]:
    pq.write_table(pa.table({"key": ["x", "y", "z"], "jpg": IMAGES}), root / "b.parquet")
    return (str(root / "b.parquet"),)


def several(root: Path) -> tuple[str, ...]:
    """Of all kinds, and a folder of archives."""
    (root / "more").mkdir()
    return (*folder(root), *manifest(root), *tar(root / "more"), *binary(root / "more"), str(root / "more"))


@contextlib.contextmanager
def signing_server(status: list[int]) -> Iterator[str]:
    """Serves IMAGES by number with this status, to those who know the signature."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number, _, query = self.path[1:].partition(".png?")
            self.send_response(status[0] if query == "size=1&sig=abc" else 403)
            self.end_headers()
            self.wfile.write(IMAGES[int(number)])

        def log_message(self, format: str, *arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def annotated(out: Path | str, *inputs: str) -> Output:
    protocol.main(inputs, str(out))
    return open_output(str(out))


def red(image: Image.Image | OSError | ValueError) -> int:
    """The colour that tells an image from the others."""
    assert isinstance(image, Image.Image), image
    return np.asarray(image)[0, 0, 0].item()


def reds(output: Output) -> list[int]:
    """Of all images, read one by one and together."""
    alone = [red(face.image()) for face in output.faces()]
    assert alone == [red(image) for _, image in output.images(output.faces())]
    return alone


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (folder, [*range(7)]),
        *((made, [*range(3)]) for made in (manifest, tar, struct, binary)),
        (several, sorted([*range(7), *[0, 1, 2] * 5])),
    ],
)
def test_every_image_is_read_again(
    made: Callable[[Path], tuple[str, ...]], expected: list[int], tmp_path: Path
) -> None:
    inputs = made(tmp_path)
    output = annotated(tmp_path / "out", *inputs)
    _, found = list_images(inputs, Counter())
    rows = output.stats.to_table(columns=["image_id", "uri", "status"]).to_pylist()
    assert [row["image_id"] for row in rows] == [image.image_id for image in found]
    assert {row["status"] for row in rows} == {"ok"}
    assert sorted(reds(output)) == expected
    for row in rows:
        assert show(str(tmp_path / "out"), row["image_id"], tmp_path / "show.png")
    assert sheet(str(tmp_path / "out"), tmp_path / "sheet.png")


def test_images_of_a_later_generation_are_read_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    annotated(out, *tar(tmp_path))
    run = runs.read(str(out))
    assert run is not None
    plan, (_, images) = runs.read_plan(str(out), run), list_images(binary(tmp_path), Counter())
    name = plans.write(
        runs.plan_folder(str(out)),
        images,
        Counter(),
        8,
        first_unit=plan.parts[-1].units.stop,
        first_part=len(plan.parts),
    )
    runs.add(str(out), name)
    assert reds(annotated(out, str(tmp_path / "s.tar"))) == [0, 1, 2, 0, 1, 2]


def test_objects_are_read_again(
    tmp_path: Path, s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    for number, data in enumerate(IMAGES):
        storage.put(f"s3://{s3_bucket}/in/{number} #%41?.png", data)
    storage.put(f"s3://{s3_bucket}/s.tar", Path(*tar(tmp_path)).read_bytes())
    output = annotated(f"s3://{s3_bucket}/out", f"s3://{s3_bucket}/in", f"s3://{s3_bucket}/s.tar")
    assert reds(output) == [0, 1, 2, 0, 1, 2]


def test_the_plan_knows_the_signature_of_a_url_that_is_redacted_in_its_row(tmp_path: Path) -> None:
    with signing_server(status := [200]) as url:
        lines = [f"{url}/{number}.png?size=1&sig=abc" for number in range(3)]
        (tmp_path / "m.txt").write_text("\n".join(lines))
        output = annotated(tmp_path / "out", str(tmp_path / "m.txt"))
        assert reds(output) == [0, 1, 2]
        face = next(iter(output.faces()))
        shown = f"{url}/0.png?size=1&sig=REDACTED"
        assert face.row["uri"] == face.row["image_id"] == shown
        status[0] = 403
        with pytest.raises(OSError, match=r"\A.+\Z") as caught:
            face.image()
        assert str(caught.value) == (
            f"the image cannot be read again: {shown}: HTTP 403; a signed URL that has expired cannot be renewed: its "
            "mask is in the output still"
        )
        shutil.rmtree(tmp_path / "out" / "_segface")
        (face, *_) = open_output(str(tmp_path / "out")).faces()
        with pytest.raises(OSError, match=r"\A.+REDACTED: HTTP 403; this output lacks _segface/plan, .+\Z"):
            face.image()


def test_a_copy_without_its_plan_has_plain_files_and_says_what_else_it_needs(tmp_path: Path) -> None:
    annotated(tmp_path / "out", *manifest(tmp_path), *tar(tmp_path))
    for name in ("stats", "shapes", "masks"):
        shutil.copytree(tmp_path / "out" / name, tmp_path / "copy" / name)
    output = open_output(str(tmp_path / "copy"))
    *found, member = [image for _, image in output.images(output.faces())][:4]
    assert [red(image) for image in found] == [0, 1, 2]
    assert repr(member) == repr(
        FileNotFoundError(
            f"there is no image at '{tmp_path}/s.tar#0.png' now; its mask is in the output still; this output lacks "
            "_segface/plan, which says where images of tar and Parquet files and of signed URLs are: copy that folder "
            "too"
        )
    )
    shutil.copytree(tmp_path / "out" / "_segface", tmp_path / "copy" / "_segface")
    assert reds(open_output(str(tmp_path / "copy"))) == [0, 1, 2, 0, 1, 2]
    plans.read_part.cache_clear()
    for file in (tmp_path / "copy" / "_segface" / "plan").glob("part-*"):
        file.unlink()
    output = open_output(str(tmp_path / "copy"))
    is_lost = [isinstance(image, FileNotFoundError) for _, image in output.images(output.faces())]
    assert is_lost == [False] * 3 + [True] * 3


def test_an_image_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path) -> None:
    output = annotated(tmp_path / "out", *manifest(tmp_path), *tar(tmp_path), *binary(tmp_path))
    (tmp_path / "1.png").unlink()
    shard = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(shard[:512] + b"\0" * 16 + shard[528:])
    (tmp_path / "b.parquet").unlink()
    found = [str(image) for _, image in output.images(output.faces()) if isinstance(image, Exception)]
    assert found == [
        f"there is no image at '{tmp_path}/1.png' now; its mask is in the output still",
        f"'{tmp_path}/s.tar#0.png' changed since it was annotated: it is unreadable now",
    ] + [f"there is no image at '{tmp_path}/b.parquet#{row}' now; its mask is in the output still" for row in range(3)]
    (tmp_path / "s.tar").write_bytes(shard[512:] + shard[:512])
    found = [str(image) for _, image in output.images(output.faces()) if isinstance(image, Exception)]
    assert found[1:4] == [f"'{tmp_path}/s.tar#{number}.png' changed since it was annotated" for number in range(3)]


def test_an_image_may_have_another_length_than_planned_as_after_a_retry(tmp_path: Path) -> None:
    output = annotated(tmp_path / "out", *manifest(tmp_path))
    Image.new("RGB", (24, 16), (200, 50, 90)).save(tmp_path / "1.png", compress_level=0)
    assert reds(output) == [0, 200, 2]


def test_a_unit_is_read_once_and_an_image_once_for_all_its_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def counted(images: list, **settings: bool) -> list:
        asked.append([image.image_id for image in images])
        return fetch_images(images, **settings)

    monkeypatch.setattr(originals, "fetch_images", counted)
    output = annotated(tmp_path / "out", *tar(tmp_path))
    faces = sorted(output.faces(), key=lambda face: -face.row["seq"])  # in any order within a unit
    assert [red(image) for _, image in output.images(faces)] == [2, 1, 0]
    output = open_output(str(small_output.small_output(tmp_path / "small")))
    one, first, second = output.images(output.faces())
    assert first[1] is second[1]
    assert first[1] is not one[1]
    assert asked == [["s.tar/0.png", "s.tar/1.png", "s.tar/2.png"], ["a/one.png"], ["two.png"]]
