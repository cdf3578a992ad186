"""From encoded bytes to crops: which faces of an image are kept, and what becomes of those that cannot be cropped."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segface_batch.catalog import find
from segface_batch.images.crop import Crop
from segface_batch.images.faces import Faces
from segface_batch.inputs.image import SourceImage
from segface_batch.job import Job
from segface_batch.model.mtcnn import Mtcnn
from segface_batch.output.face import Face, FetchedImage
from segface_batch.pipeline.cropper import Cropper
from segface_batch.pipeline.metrics import Clock
from tests.model.test_yunet import use_like

#: Eyes, nose tip and mouth corners of a face of 100 pixels.
FIVE = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)


def cropper(tmp_path: Path, **settings: Any) -> Cropper:
    (tmp_path / "in").mkdir(exist_ok=True)
    job = Job(str(tmp_path / "in"), str(tmp_path / "out"), checkpoint="demo-synthetic", **settings)
    return Cropper(job, find("demo-synthetic"), "cpu")


def photograph(width: int = 400, height: int = 300) -> FetchedImage:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (90, 110, 100)).save(stream, "PNG")
    return FetchedImage(0, 0, SourceImage("a.png", "a.png", None, 1), {}, stream.getvalue())


class ThreeFaces:
    """Finds a large face, one whose landmarks all lie in one place, and a small one."""

    def detect(self, image: Image.Image) -> Faces:
        boxes = np.array([[0, 0, 120, 120], [150, 0, 250, 100], [300, 0, 350, 50]], np.float32)
        landmarks = np.stack([FIVE, np.full((5, 2), 200, np.float32), FIVE / 2 + [300, 0]])
        return Faces(boxes, np.array([0.97, 0.99, 0.98], np.float32), landmarks.astype(np.float32))


def faces(tmp_path: Path, **settings: Any) -> list[Face]:
    found = cropper(tmp_path, faces="detect", **settings)
    found.detector = ThreeFaces()
    return list(found.decoded(photograph(), Clock()).faces())


def shown(face: Face) -> tuple[Any, ...]:
    score = None if face.crop is None or face.crop.score is None else round(face.crop.score, 2)
    return face.index, face.n_faces, face.size, face.error, score


def test_a_face_that_cannot_be_cropped_keeps_its_number_among_the_others(tmp_path: Path) -> None:
    size = (400, 300)
    assert [shown(face) for face in faces(tmp_path)] == [
        (0, 3, size, None, 0.97),
        (1, 3, size, "bad_landmarks", None),
        (2, 3, size, None, 0.98),
    ]


@pytest.mark.parametrize(("most", "kept"), [(1, [0.97]), (2, [0.97, None]), (3, [0.97, None, 0.98])])
def test_of_many_faces_the_largest_are_kept_as_many_as_asked_for(
    most: int, kept: list[float | None], tmp_path: Path
) -> None:
    found = [shown(face) for face in faces(tmp_path, max_faces=most)]
    assert [(n_faces, score) for _, n_faces, _, _, score in found] == [(most, score) for score in kept]


def test_a_decoded_image_keeps_its_size_whatever_is_wrong_with_its_face(tmp_path: Path) -> None:
    (tmp_path / "list.csv").touch()
    job = Job(str(tmp_path / "list.csv"), str(tmp_path / "out"), checkpoint="demo-synthetic", faces="given")
    (face,) = Cropper(job, find("demo-synthetic"), "cpu").decoded(photograph(), Clock()).faces()
    assert shown(face) == (0, 0, (400, 300), "no_landmarks", None)


def test_what_is_larger_than_allowed_is_refused_and_what_is_just_as_large_is_not(tmp_path: Path) -> None:
    for decode in ("exact", "near", "fast"):
        for most, error in ((400 * 300, None), (400 * 300 - 1, "too_large")):
            found = cropper(tmp_path, max_pixels=most, decode=decode).decoded(photograph(), Clock())
            assert (found.error, found.n_faces) == (error, int(error is None)), decode


@pytest.mark.parametrize("name", ["mtcnn", "yunet"])
def test_the_detector_skips_small_and_unsure_faces_as_the_job_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_like(monkeypatch)
    found: Any = cropper(tmp_path, faces="detect", detector=name, min_face=50, min_score=0.5).detector
    assert (found.min_face, found.min_score) == (50, 0.5)
    assert isinstance(found, Mtcnn) == (name == "mtcnn")


def test_a_given_box_is_looked_into_however_unsure_the_landmarks_are(tmp_path: Path) -> None:
    (tmp_path / "list.csv").touch()
    job = Job(str(tmp_path / "list.csv"), str(tmp_path / "out"), checkpoint="demo-synthetic", faces="given")
    source = SourceImage("a.png", "a.png", [10.0, 10.0, 200.0, 200.0], 1)
    image = FetchedImage(0, 0, source, {}, photograph().data)
    (face,) = Cropper(job, find("demo-synthetic"), "cpu").decoded(image, Clock()).faces()
    assert isinstance(face.crop, Crop)
    assert (face.error, face.n_faces) == (None, 1)
    assert face.crop.score is not None
    assert face.crop.score < 0.5  # there is none
