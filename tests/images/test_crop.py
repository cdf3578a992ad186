"""Crops and landmarks by the official loaders' rules, and the two reasons why an image has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from segface_batch.catalog import find
from segface_batch.images.crop import Box, Crop, CropError, crop_faces, crop_given, crop_image, given_box, helen_box
from segface_batch.images.faces import Faces
from tests.programs.parity_table import crop, golden, image, notes

CELEBA, LAPA, HELEN = find("swinb_celeba_224"), find("swinb_lapa_224"), find("swinb_helen_512")

#: Five points of a 60 x 50 image, and 68 points around its middle.
FIVE = np.array([[20, 20], [40, 20], [30, 30], [23, 40], [37, 40]], dtype=np.float64)
SIXTY_EIGHT = np.stack([np.linspace(20, 39, 68), np.linspace(10, 29, 68)], axis=1)


def ramp(width: int = 60, height: int = 50) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([4 * x, 5 * y, x + y], axis=-1).astype(np.uint8))


def reason(checkpoint, points) -> str:
    with pytest.raises(CropError) as caught:
        crop_image(ramp(), checkpoint, points)
    return str(caught.value)


def same(one: Crop, other: Crop) -> bool:
    return (
        one.box == other.box
        and np.array_equal(one.pixels, other.pixels)
        and np.array_equal(np.asarray(one.landmarks), np.asarray(other.landmarks))
    )


def test_celebamask_takes_the_whole_image_and_no_landmarks():
    result = crop_image(ramp(), CELEBA)
    assert (result.box, result.landmarks, result.pixels.shape) == ((0, 0, 60, 50), None, (224, 224, 3))
    assert result.pixels.dtype == np.uint8
    expected = np.asarray(ramp().resize((224, 224), Image.Resampling.BICUBIC))
    assert np.array_equal(result.pixels, expected)
    assert same(crop_image(ramp(), CELEBA, FIVE), result)


def test_lapa_takes_the_whole_image_and_brings_the_points_into_the_crop():
    result = crop_image(ramp(), LAPA, FIVE)
    assert result.box == (0, 0, 60, 50)
    assert result.landmarks is not None
    assert result.landmarks.dtype == np.float32
    assert np.allclose(result.landmarks, FIVE * [224 / 60, 224 / 50], rtol=1e-6)


def test_lapas_106_points_become_the_five_of_the_official_loader():
    stored = golden("swinb_lapa_448")
    for name, expected in zip(stored.meta["pictures"], stored.arrays["landmarks"], strict=True):
        landmarks = crop(find("swinb_lapa_448"), name).landmarks
        assert landmarks is not None
        assert np.abs(landmarks - expected).max() < 1e-4


def official_helen_crop(doubled: np.ndarray, width: int, height: int) -> Box:
    """The crop as the official loader computes it from the doubled coordinates of landmarks.txt."""
    points = np.asarray(doubled, dtype=np.float32).astype(np.float64) * 0.5
    low = points.min(axis=0).astype(np.float32)
    extent = points.max(axis=0).astype(np.float32) - low + 1
    centre = (low + extent / 2).astype(np.int32)
    side = int(extent.max() * np.float32(1.2))
    left, top = centre - side // 2
    return max(0, int(left)), max(0, int(top)), min(width, int(left) + side), min(height, int(top) + side)


@pytest.mark.parametrize("name", ["a_w600_h500", "b_w300_h400", "c_w1024_h1024"])
def test_helen_crops_a_square_around_the_68_points(name: str):
    note = notes()[name]
    box = official_helen_crop(np.array(note["helen_landmarks_68_doubled"]), note["width"], note["height"])
    result = crop(HELEN, name)
    assert (result.box, result.landmarks) == (box, None)
    expected = image(name).crop(box).resize((512, 512), Image.Resampling.BICUBIC)
    assert np.array_equal(result.pixels, np.asarray(expected))


def test_helens_square_is_rounded_as_officially_for_points_anywhere():
    random = np.random.default_rng(0)
    for _ in range(300):
        points = random.uniform(0, 1) * random.uniform(-50, 700, (68, 2)) + random.uniform(0, 200)
        try:
            box = helen_box(points.astype(np.float32), 640, 480)
        except CropError:
            left, top, right, bottom = official_helen_crop(2 * points, 640, 480)
            assert left >= right or top >= bottom
        else:
            assert box == official_helen_crop(2 * points, 640, 480)


def test_helens_square_is_cut_at_the_border_of_the_image():
    assert crop_image(ramp(), HELEN, SIXTY_EIGHT).box == (18, 8, 42, 32)
    assert crop_image(ramp(), HELEN, SIXTY_EIGHT + np.array([15, 0])).box == (33, 8, 57, 32)
    assert crop_image(ramp(), HELEN, SIXTY_EIGHT + np.array([25, 25])).box == (43, 33, 60, 50)


@pytest.mark.parametrize("checkpoint", [LAPA, HELEN], ids=["lapa", "helen"])
def test_missing_points_are_no_landmarks(checkpoint):
    assert reason(checkpoint, None) == "no_landmarks"
    assert reason(checkpoint, np.empty((0, 2))) == "no_landmarks"


@pytest.mark.parametrize(
    "points",
    [
        FIVE[:4],
        SIXTY_EIGHT,
        FIVE[:, :1],
        FIVE.ravel(),
        FIVE * np.nan,
        FIVE * np.inf,
        FIVE * 1e300,
        FIVE * 0,
        FIVE * 1e-9,
    ],
    ids=["four", "68", "one column", "flat", "nan", "infinite", "huge", "all zero", "within a pixel"],
)
def test_unfit_points_for_lapa_are_bad_landmarks(points: np.ndarray):
    assert reason(LAPA, points) == "bad_landmarks"


@pytest.mark.parametrize(
    "points",
    [
        FIVE,
        SIXTY_EIGHT[:67],
        SIXTY_EIGHT * np.nan,
        SIXTY_EIGHT * 1e300,
        SIXTY_EIGHT + 1000,
        SIXTY_EIGHT - 1000,
        SIXTY_EIGHT * 0,
        SIXTY_EIGHT * 0 + 30.4,
        np.sign(SIXTY_EIGHT - SIXTY_EIGHT.mean(0)) * np.finfo(np.float32).max,
    ],
    ids=[
        "five",
        "67",
        "nan",
        "huge",
        "right of the image",
        "left of the image",
        "all zero",
        "all in one place",
        "float32's ends",
    ],
)
def test_unfit_points_for_helen_are_bad_landmarks(points: np.ndarray):
    assert reason(HELEN, points) == "bad_landmarks"


@pytest.mark.parametrize(("apart", "error"), [(1.0, None), (0.9, "bad_landmarks")])
def test_landmarks_a_pixel_apart_are_a_face_and_closer_ones_are_none(apart: float, error: str | None) -> None:
    points = np.full((68, 2), 30.0)
    points[5, 1] += apart
    if error:
        assert reason(HELEN, points) == error
    else:
        assert crop_image(ramp(), HELEN, points).box == (29, 30, 31, 32)


#: A face in a photograph of 600 x 400 pixels: box and five landmarks.
FACES = Faces(
    np.array([[200, 100, 300, 220]], np.float32),
    np.array([0.99], np.float32),
    np.array([[[225, 145], [275, 145], [250, 170], [230, 195], [270, 195]]], np.float32),
)


def photograph() -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (400, 600, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", ["swinb_celeba_224", "swinb_lapa_224", "swinb_helen_512"])
def test_a_face_that_was_found_is_cropped_for_every_family(name: str) -> None:
    (crop,) = crop_faces(photograph(), find(name), FACES)
    assert isinstance(crop, Crop)
    assert crop.pixels.shape == (find(name).resolution,) * 2 + (3,)
    assert crop.score == pytest.approx(0.99)
    assert crop.points is not None
    assert np.array_equal(crop.points, FACES.landmarks[0])
    corners = crop.transform @ np.array([[0, crop.pixels.shape[0]], [0, crop.pixels.shape[0]], [1, 1]])
    width = corners[0, 1] - corners[0, 0]
    if "lapa" in name:
        assert crop.landmarks is not None
        back = crop.landmarks @ crop.transform[:, :2].T + crop.transform[:, 2]
        assert back == pytest.approx(FACES.landmarks[0], abs=1e-3)
        assert width == pytest.approx(400)  # twice CelebA-HQ's
    elif "helen" in name:
        assert (crop.landmarks, crop.box) == (None, (178, 88, 323, 233))  # 1.2 x 121, around the box's middle
        assert width == 145
    else:
        assert (crop.landmarks, crop.box) == (None, (200, 100, 300, 220))
        assert width == pytest.approx(200)  # four eye distances


def test_faces_that_cannot_be_cropped_say_why_each() -> None:
    alike = Faces(np.repeat(FACES.boxes, 2, 0), np.repeat(FACES.scores, 2), np.repeat(FACES.landmarks, 2, 0))
    alike.landmarks[0] = 7.0
    first, second = crop_faces(photograph(), find("swinb_celeba_224"), alike)
    assert first == "bad_landmarks"
    assert isinstance(second, Crop)


@pytest.mark.parametrize("count", [5, 68, 106])
def test_given_landmarks_place_a_face_of_a_photograph(count: int) -> None:
    five = FACES.landmarks[0]
    points = np.repeat(five[2:3], count, axis=0)
    if count == 5:
        points = five
    elif count == 68:
        points[36:42], points[42:48], points[30], points[48], points[54] = five
    else:
        points[[74, 104]], points[[83, 105]], points[54], points[84], points[90] = five
    crop = crop_given(photograph(), find("swinb_celeba_224"), points)
    (found,) = crop_faces(photograph(), find("swinb_celeba_224"), FACES)
    assert isinstance(found, Crop)
    assert np.array_equal(crop.pixels, found.pixels)
    assert (crop.box, crop.score) == ((225, 145, 275, 195), None)


def test_a_given_box_has_its_middle_in_the_image_and_sides_of_a_pixel_at_least() -> None:
    """At each limit and beyond it, in an image of 60 x 50 pixels."""
    for box in ((-1, -1, 1, 1), (59, 49, 61, 51), (3, 4, 4, 44), (3, 4, 43, 5), (-500, -500, 560, 550)):
        assert given_box(np.array(box, float).reshape(2, 2), 60, 50) == box
    for box in (
        (-1.5, 1, 1, 3), (1, -1.5, 3, 1), (59, 4, 61.5, 5), (4, 49, 5, 51.5), (3, 4, 3.5, 44), (3, 4, 43, 4.5),
        (4, 4, 3, 44), (math.nan, 1, 2, 3), (1, 1, math.inf, 3), (-1e9, 1, 60, 3),
    ):  # fmt: skip
        with pytest.raises(CropError, match=r"\Abad_box\Z"):
            given_box(np.array(box, float).reshape(2, 2), 60, 50)


def test_given_landmarks_may_be_missing_or_useless() -> None:
    for points, error in (
        (None, "no_landmarks"),
        (np.zeros((5, 2)), "bad_landmarks"),
        (np.zeros((7, 2)), "bad_landmarks"),
    ):
        with pytest.raises(CropError, match=error):
            crop_given(photograph(), find("swinb_celeba_224"), points)
