"""Photographs with any number of faces, end to end: a row and a mask for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from segface_batch import annotate
from segface_batch.curate.evaluate import evaluate
from segface_batch.curate.show import show
from segface_batch.images import masks
from segface_batch.output.verify import verify
from tests import corpus, drivers
from tests.model.test_mtcnn import group_image

pytestmark = pytest.mark.usefixtures("ray_session")


@pytest.fixture(scope="module")
def group() -> tuple[Image.Image, list[np.ndarray]]:
    return group_image(np.random.default_rng(11), columns=3, rows=2)


@pytest.fixture(scope="module")
def out(group: tuple[Image.Image, list[np.ndarray]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    scene, _ = group
    (folder / "in").mkdir()
    scene.save(folder / "in" / "a-group.png")
    for orientation, turn in corpus.STORED.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        scene.transpose(turn).save(folder / "in" / f"b-{orientation}.png", exif=exif)
    Image.new("RGB", (200, 300), (40, 80, 120)).save(folder / "in" / "c-nobody.png")
    (folder / "in" / "d-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    summary = annotate(drivers.job(folder / "in", folder / "out", faces="detect", min_score=0.9))
    assert summary.images == 10
    return folder / "out"


def rows(out: Path, name: str) -> list[dict[str, Any]]:
    return [row for row in pq.read_table(out / "stats").to_pylist() if row["image_id"] == name]


def test_every_face_has_a_row_with_its_place(out: Path, group: tuple[Image.Image, list[np.ndarray]]) -> None:
    scene, truth = group
    found = rows(out, "a-group.png")
    assert len(found) >= len(truth) - 1
    assert [row["face"] for row in found] == list(range(len(found)))
    assert {row["n_faces"] for row in found} == {len(found)}
    assert {(row["width"], row["height"]) for row in found} == {scene.size}
    areas = [(row["box_right"] - row["box_left"]) * (row["box_bottom"] - row["box_top"]) for row in found]
    assert areas == sorted(areas, reverse=True)
    for row in found:
        points = np.reshape(row["points"], (5, 2))
        errors = [np.linalg.norm(points - t, axis=1).mean() / np.linalg.norm(t[0] - t[1]) for t in truth]
        assert min(errors) < 0.5
        # The eyes are a fourth of the mask apart, or less in long faces.
        transform = np.reshape(row["transform"], (2, 3))
        eyes = np.linalg.solve(transform[:, :2], (points[:2] - transform[:, 2]).T).T
        side = masks.decode(pq.read_table(out / "masks")["mask"][0]["bytes"].as_py()).shape[0]
        assert eyes[1, 0] - eyes[0, 0] <= side / 4 + 1
        assert 0.9 < row["score"] <= 1


@pytest.mark.parametrize("orientation", corpus.STORED)
def test_an_image_stored_otherwise_has_the_rows_of_the_upright_one(out: Path, orientation: int) -> None:
    upright, sideways = rows(out, "a-group.png"), rows(out, f"b-{orientation}.png")
    differing = {"image_id", "uri", "unit", "seq"}
    for one, other in zip(upright, sideways, strict=True):
        assert {k: v for k, v in one.items() if k not in differing} == {
            k: v for k, v in other.items() if k not in differing
        }


def test_images_without_faces_and_broken_ones_have_one_row(out: Path) -> None:
    (nobody,), (broken,) = rows(out, "c-nobody.png"), rows(out, "d-broken.png")
    assert (nobody["status"], nobody["error"], nobody["n_faces"], nobody["width"]) == ("no_face", None, 0, 200)
    assert (broken["status"], broken["n_faces"], broken["points"]) == ("error", 0, None)
    report = verify(str(out))
    assert report.complete, report


def test_show_draws_all_faces_of_a_photograph(out: Path, tmp_path: Path) -> None:
    with Image.open(show(str(out), "a-group.png", tmp_path / "all.png")) as drawn:
        assert (np.asarray(drawn) == (255, 220, 0)).all(axis=2).sum() > 1000  # boxes and landmarks
    with pytest.raises(ValueError, match="no face was found"):
        show(str(out), "c-nobody.png", tmp_path / "none.png")


def test_masks_of_faces_are_no_masks_of_images(out: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="evaluate one of ready crops"):
        evaluate(str(out), tmp_path)


def test_given_landmarks_place_the_face_of_each_row(
    group: tuple[Image.Image, list[np.ndarray]], tmp_path: Path
) -> None:
    scene, truth = group
    scene.save(tmp_path / "group.png")
    given = [{"uri": "group.png", "image_id": f"{n}", "landmarks": points.ravel()} for n, points in enumerate(truth)]
    pq.write_table(pa.Table.from_pylist([*given, {"uri": "group.png", "image_id": "none"}]), tmp_path / "list.parquet")
    summary = annotate(drivers.job(tmp_path / "list.parquet", tmp_path / "out", faces="given"))
    assert (summary.status, summary.errors) == ({"error": 1, "ok": len(truth)}, {"no_landmarks": 1})
    for row, points in zip(pq.read_table(tmp_path / "out" / "stats").to_pylist(), truth, strict=False):
        assert np.reshape(row["points"], (5, 2)) == pytest.approx(points, rel=1e-5)
        assert (row["score"], row["n_faces"]) == (None, 1)
        transform = np.reshape(row["transform"], (2, 3))
        eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
        middle = transform @ [192 / 2, 192 / 2, 1]
        assert middle == pytest.approx(eyes + 0.1 * (mouth - eyes), abs=1e-3)
