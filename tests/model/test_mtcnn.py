"""Faces found in images whose faces are known: the renderer's, alone and many in one image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

import segface_batch
from segface_batch.images.faces import Faces
from segface_batch.model.mtcnn import Mtcnn
from tests.conftest import PORTRAITS

RENDERED = Path(segface_batch.__file__).parent / "assets" / "faces" / "rendered"

#: By seed, what the renderer says: (5, 2) pixels of the image of 256 pixels.
TRUTH = {
    seed: np.array(points)
    for seed, points in json.loads((Path(__file__).parents[1] / "data" / "rendered_landmarks.json").read_text()).items()
}

#: Boxes of facenet-pytorch 2.6.0's own MTCNN (min_face_size 40).
PORTRAIT_BOXES = {"eileen_collins.jpg": (67.0, 62.0, 154.8, 172.8), "grace_hopper.jpg": (92.8, 100.4, 269.7, 318.8)}


@pytest.fixture(scope="module")
def detector() -> Mtcnn:
    return Mtcnn(min_score=0.9)


def opened(seed: str) -> Image.Image:
    return Image.open(RENDERED / f"{seed}.jpg").convert("RGB")


def misses(truth: list[np.ndarray], faces: Faces) -> tuple[list[float], int]:
    """Mean distance of the landmarks in eye distances, for each face that was found (all within half an eye distance),
    and how many finds are none of them."""
    errors, used = [], set()
    for points in truth:
        eyes = np.linalg.norm(points[0] - points[1])
        distances = np.linalg.norm(faces.landmarks - points, axis=2).mean(axis=1) / eyes
        if len(distances) and distances.min() < 0.5:
            errors.append(distances.min())
            used.add(int(distances.argmin()))
    return errors, len(faces) - len(used)


def group_image(rng: np.random.Generator, columns: int, rows: int) -> tuple[Image.Image, list[np.ndarray]]:
    """Rendered faces of several sizes, turned by up to 15 degrees, side by side; and where their landmarks are."""
    cell = 300
    scene = Image.new("RGB", (columns * cell, rows * cell), (90, 110, 100))
    truth = []
    for number, seed in enumerate(rng.permutation(sorted(TRUTH))[: columns * rows]):
        face, points, side = opened(seed), TRUTH[seed], int(rng.integers(110, 256))
        angle = rng.uniform(-15, 15)
        face = face.resize((side, side), Image.Resampling.BICUBIC)
        face = face.rotate(angle, Image.Resampling.BICUBIC, fillcolor=(90, 110, 100))
        turn = np.exp(-1j * np.deg2rad(angle))  # y runs downwards
        around = (points * (side / 256) - side / 2) @ [1, 1j] * turn + side / 2 * (1 + 1j)
        place = np.array([number % columns, number // columns]) * cell + rng.integers(0, cell - side, 2)
        scene.paste(face, tuple(place.tolist()))
        truth.append(np.stack([around.real, around.imag], 1) + place)
    return scene, truth


def test_rendered_faces_are_found_where_they_are(detector: Mtcnn) -> None:
    errors, false = [], 0
    for seed, points in TRUTH.items():
        near, others = misses([points], detector.detect(opened(seed)))
        errors, false = errors + near, false + others
    print(f"{len(errors)} of {len(TRUTH)}, median error {np.median(errors):.3f}, {false} false")
    assert len(errors) >= 22  # as facenet-pytorch finds; two have something before the face
    assert np.median(errors) < 0.1
    assert false == 0


def test_every_face_of_a_group_image_is_found(detector: Mtcnn) -> None:
    scene, truth = group_image(np.random.default_rng(5), columns=5, rows=4)
    faces = detector.detect(scene)
    errors, false = misses(truth, faces)
    print(f"{len(errors)} of {len(truth)}, median error {np.median(errors):.3f}, {false} false")
    assert len(errors) >= 17
    assert np.median(errors) < 0.12
    assert false <= 1
    areas = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
    assert (np.diff(areas) <= 0).all()
    assert np.array_equal(faces.largest(3).boxes, faces.boxes[:3])


def test_portraits_have_the_boxes_of_the_reference(detector: Mtcnn) -> None:
    for name, box in PORTRAIT_BOXES.items():
        faces = detector.detect(Image.open(PORTRAITS / name).convert("RGB"))
        assert len(faces) == 1
        assert np.abs(faces.boxes[0] - box).max() < 6  # of 90 and 175 pixels; scaled by other filters


def test_a_mirrored_image_has_mirrored_faces(detector: Mtcnn) -> None:
    scene, _ = group_image(np.random.default_rng(7), columns=3, rows=1)
    faces, mirrored = detector.detect(scene), detector.detect(ImageOps.mirror(scene))
    assert len(faces) == len(mirrored) > 0
    points = mirrored.landmarks[:, [1, 0, 2, 4, 3]]  # left stays left as seen
    points[..., 0] = scene.width - points[..., 0]
    eyes = np.linalg.norm(faces.landmarks[:, 0] - faces.landmarks[:, 1], axis=1)
    errors = np.linalg.norm(faces.landmarks[:, None] - points[None], axis=3).mean(axis=2).min(axis=1) / eyes
    assert errors.max() < 0.15


@pytest.mark.parametrize("size", [(1, 1), (39, 500), (300, 200)])
def test_no_faces_are_found_where_there_are_none(detector: Mtcnn, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    faces = detector.detect(Image.fromarray(noise))
    assert (len(faces), faces.boxes.shape, faces.landmarks.shape) == (0, (0, 4), (0, 5, 2))


def test_small_faces_and_unsure_ones_are_left_out() -> None:
    face = opened("2000014")
    height = np.ptp(Mtcnn().detect(face).boxes[0, [1, 3]])
    assert len(Mtcnn(min_face=int(height * 0.9)).detect(face)) == 1
    assert len(Mtcnn(min_face=int(height * 1.1)).detect(face)) == 0
    assert len(Mtcnn(min_score=0.9999999).detect(face)) == 0


def test_no_face_is_surer_than_the_detectors_own_least_score_however_little_is_asked_for() -> None:
    assert len(Mtcnn(min_score=0.01).detect(opened("2000008"))) == 1  # a second one would have a score of 0.31
