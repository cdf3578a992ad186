"""`measure`: masks that exist become an output like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segface_batch import Job, annotate
from segface_batch.catalog import CELEBAMASK_HQ, LAPA
from segface_batch.images import masks
from segface_batch.inputs.fetch import Answer
from segface_batch.inputs.image import SourceImage
from segface_batch.output.face import Face, FetchedImage
from segface_batch.output.plan import Unit
from segface_batch.output.verify import verify
from segface_batch.pipeline import labels
from segface_batch.pipeline.metrics import Clock
from tests import drivers, filled
from tests.images.hand_made import HAND_MADE

REFERENCE = filled.REFERENCE / "labels"


def rows(out: Path, table: str = "stats") -> list[dict[str, Any]]:
    return pq.read_table(out / table).to_pylist()


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def test_part_masks_and_ids_get_the_statistics_of_their_masks(ray_session: None, tmp_path: Path) -> None:
    source, out = tmp_path / "anno", tmp_path / "out"
    shutil.copytree(REFERENCE / "celebamask_parts", source / "1")
    frontal = HAND_MADE[0]
    save(source / "2" / "frontal.png", frontal.labels)
    save(source / "2" / "half.png", np.array([[2, 2], [255, 0]], np.uint8))
    (source / "2" / "00007_hair.png").write_bytes(b"")
    save(source / "2" / "drawing.png", np.full((3, 3), 19, np.uint8))
    summary = annotate(Job(str(source), str(out), class_table="celebamask-hq"))
    assert (summary.images, summary.status) == (5, {"error": 2, "ok": 3})
    assert verify(str(out)).complete
    found = {row["image_id"]: row for row in rows(out)}
    shapes = {row["image_id"]: row for row in rows(out, "shapes")}
    stored = {row["image_id"]: row["mask"] for row in rows(out, "masks")}
    assert {name: row["error"] for name, row in found.items()} == {
        "1/02001": None, "2/00007": "empty", "2/drawing.png": "bad_labels", "2/frontal.png": None, "2/half.png": None,
    }  # fmt: skip
    expected = frontal.expected()
    both = found["2/frontal.png"] | shapes["2/frontal.png"]
    nulls = [name for name, value in expected.items() if value is None]
    assert [name for name in expected if both[name] is None] == nulls
    numbers = {name: value for name, value in expected.items() if value is not None}
    assert {name: both[name] for name in numbers} == pytest.approx(numbers, rel=1e-6)
    assert (both["width"], both["height"], both["transform"]) == (40, 40, [1, 0, 0, 0, 1, 0])
    assert (both["confidence"], both["conf_skin"], both["skin_light"]) == (None, None, None)
    truth = np.asarray(Image.open(REFERENCE / "celebamask_512.png"))
    assert np.array_equal(masks.decode(stored["1/02001"]["bytes"]), truth)
    counts = np.bincount(truth.ravel(), minlength=19).tolist()
    assert [found["1/02001"][f"px_{name}"] for name in CELEBAMASK_HQ.class_names] == counts
    # Pixels to be ignored stay so, and are in no column.
    half = found["2/half.png"]
    assert (half["mask_pixels"], half["px_skin"], half["frac_background"]) == (3, 2, pytest.approx(1 / 3))
    assert masks.decode(stored["2/half.png"]["bytes"]).tolist() == [[2, 2], [255, 0]]
    assert json.loads((out / "_segface" / "run.json").read_text())["dataset"] == "CelebAMask-HQ"


def test_the_masks_of_an_output_give_its_statistics_again(
    ray_session: None, output: Path, command: Callable[..., CompletedProcess[str]], ray_address: str, tmp_path: Path
) -> None:
    """By their Parquet files, under its own class table; measured in pixels of the mask, as the image is not known."""
    words = (
        "measure",
        output / "masks",
        "again",
        "--class-table",
        output / "_segface" / "run.json",
        "--image-column",
        "mask",
    )
    ended = command(*words, RAY_ADDRESS=ray_address)
    assert ended.returncode == 0, ended.stderr
    ours, theirs = rows(tmp_path / "again"), rows(output)
    assert [row["image_id"] for row in ours] == [row["image_id"] for row in theirs]
    same = [name for name in theirs[0] if name.startswith(("px_", "frac_"))]
    assert [[row[name] for name in same] for row in ours] == [[row[name] for name in same] for row in theirs]
    without_names = [
        [{name: value for name, value in row.items() if name not in ("unit", "seq")} for row in rows(out, "shapes")]
        for out in (tmp_path / "again", output)
    ]
    assert without_names[0] == without_names[1]
    before = drivers.parts(tmp_path / "again")
    assert command(*words).returncode == 0
    assert drivers.parts(tmp_path / "again") == before


def test_a_mask_is_the_only_face_of_an_image_of_its_size() -> None:
    reader = labels.LabelReader(Job("s3://b/in", "s3://b/out", class_table="lapa", max_pixels=6))
    pixels = np.array([[0, 1, 2], [3, 10, 255]], np.uint8)

    def read(data: bytes | None, error: str | None = None) -> Face:
        image = FetchedImage(0, 0, SourceImage("a.png", "/a.png"), {}, data, error)
        (face,) = reader.decoded(image, Clock()).faces()
        return face

    face = read(masks.encode(pixels))
    assert face.crop is not None
    assert (face.size, face.n_faces, face.crop.box, face.error) == ((3, 2), 1, (0, 0, 3, 2), None)
    assert face.labels is not None
    assert np.array_equal(face.labels, pixels)
    assert face.crop.transform.tolist() == [[1, 0, 0], [0, 1, 0]]
    for data, error in (
        (masks.encode(pixels + np.uint8(1)), "bad_labels"),
        (masks.encode(pixels[[0, 1, 1]]), "too_large"),
    ):
        assert (read(data).error, read(data).n_faces) == (error, 0)
    assert read(None, "missing").error == "missing"


def unit(*uris: str) -> Unit:
    import pyarrow as pa

    images = tuple(SourceImage(uri, uri) for uri in uris)
    return Unit(4, tuple(range(10, 10 + len(images))), images, pa.schema([]))


def test_each_part_mask_is_fetched_and_the_answers_come_back_by_image() -> None:
    job = Job("s3://b/in", "s3://b/out", class_table="celebamask-hq")
    files, names = labels.with_parts(unit("a.png", "1_{hair,skin}.png", "2_{hat}.png"))
    assert [image.uri for image in files.images] == ["a.png", "1_hair.png", "1_skin.png", "2_hat.png"]
    assert (files.number, files.seqs, names) == (4, (0, 1, 2, 3), [[], ["hair", "skin"], ["hat"]])
    ones = Answer(masks.encode(np.ones((2, 2), np.uint8)))
    found = labels.joined([Answer(b"whole"), ones, ones, Answer(None, "missing", "gone")], names, job)
    assert found[0] == Answer(b"whole")
    assert found[1].data is not None
    assert masks.decode(found[1].data).tolist() == [[14, 14], [14, 14]]
    assert found[2] == Answer(None, "missing", "gone")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("checkpoint", "swinb_celeba_512"), ("weights_sha256", "0" * 64), ("faces", "detect"), ("decode", "near"),
        ("precision", "bf16"), ("mask_space", "image"), ("confidence_map", True), ("engine", "torch"),
    ],
)  # fmt: skip
def test_settings_of_a_network_or_a_crop_are_refused(setting: str, value: object) -> None:
    given: dict[str, Any] = {"class_table": "lapa", setting: value}
    name = setting.replace("_", "-")
    with pytest.raises(ValueError, match=rf"\A--{name} is for images, and masks are measured: leave it out\Z"):
        Job("s3://b/in", "s3://b/out", **given)


def test_masks_need_neither_weights_nor_landmarks() -> None:
    job = Job("s3://b/in", "s3://b/out", class_table="lapa")
    assert (job.model.dataset, job.placed_by) == (LAPA, ())
