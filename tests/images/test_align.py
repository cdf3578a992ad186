"""CelebA-HQ's crop: where a face is in it, which pixels it shows, and the way back."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from segface_batch.images import align

SIDE = 128


def face(middle: complex, size: float, angle: float) -> np.ndarray:
    """Landmarks of a face whose eyes are `size` apart and whose mouth is as far below them, turned by `angle`."""
    points = np.array([-0.5, 0.5, 0.55j, -0.4 + 1j, 0.4 + 1j]) * size * np.exp(1j * np.deg2rad(angle)) + middle
    return np.stack([points.real, points.imag], axis=1)


def in_crop(transform: np.ndarray, points: np.ndarray) -> np.ndarray:
    return np.linalg.solve(transform[:, :2], (points - transform[:, 2]).T).T


@pytest.mark.parametrize("angle", [0, 17, -90, 180])
def test_eyes_and_mouth_have_their_places_however_a_face_is_turned(angle: float) -> None:
    points = face(300 + 200j, 60, angle)
    placed = in_crop(align.transform(points, SIDE), points)
    # Eyes a fourth of the width apart; the middle a tenth of the way from them to the mouth.
    assert placed == pytest.approx(in_crop(align.transform(face(0, 1, 0), SIDE), face(0, 1, 0)))
    assert placed[1] - placed[0] == pytest.approx([SIDE / 4, 0])
    assert placed[:2].mean(axis=0) == pytest.approx([SIDE / 2, SIDE / 2 - 0.1 * SIDE / 4])


def test_a_long_face_is_placed_by_its_length() -> None:
    points = np.array([[-0.5, 0], [0.5, 0], [0, 1], [-0.4, 2], [0.4, 2]]) * 50 + 400
    placed = in_crop(align.transform(points, SIDE), points)
    assert placed[3, 1] - placed[0, 1] == pytest.approx(SIDE / 3.6)


def scene(rng: np.random.Generator, width: int, height: int, patch: int = 40) -> np.ndarray:
    """Square patches of a few levels, (H, W, 3) uint8 with equal channels."""
    patches = rng.integers(0, 5, (height // patch + 1, width // patch + 1), dtype=np.uint8) * 50
    return np.repeat(np.kron(patches, np.ones((patch, patch), np.uint8))[:height, :width, None], 3, axis=2)


@pytest.mark.parametrize("size", [20, 60, 400])
def test_pixels_of_the_crop_are_those_under_them(size: int) -> None:
    rng = np.random.default_rng(size)
    image = scene(rng, 12 * size, 10 * size, patch=size)
    for angle in (0, 33, -120):
        transform = align.transform(face(6 * size + 5j * size, size, angle), SIDE)
        found = align.pixels(Image.fromarray(image), transform, SIDE)[..., 0].astype(int)
        rows, columns = np.indices((SIDE, SIDE)) + 0.5
        x, y = (transform[i, 0] * columns + transform[i, 1] * rows + transform[i, 2] for i in range(2))
        under = image[np.floor(y).astype(int), np.floor(x).astype(int), 0]
        assert (np.abs(found - under) < 25).mean() > 0.9  # the rest are edges of patches
        assert np.median(np.abs(found - under)) == 0


def test_a_mask_pasted_back_covers_what_it_was_made_of() -> None:
    """The crop's own pixels stand for a mask; pasted back, they meet the image's."""
    rng, ious = np.random.default_rng(3), []
    for _ in range(20):
        size, angle = rng.uniform(25, 150), rng.uniform(-180, 180)
        image = (scene(rng, 900, 900) > 120).astype(np.uint8) * 255
        transform = align.transform(face(450 + 450j, size, angle), 512)
        mask = align.pixels(Image.fromarray(image), transform, 512)[..., 0] > 127
        y, x = np.indices(image.shape[:2]) + 0.5
        columns, rows = np.floor(np.tensordot(np.linalg.inv(np.vstack([transform, [0, 0, 1]]))[:2],
                                              np.stack([x, y, np.ones_like(x)]), 1)).astype(int)  # fmt: skip
        inside = (rows >= 0) & (columns >= 0) & (rows < 512) & (columns < 512)
        pasted, truth = mask[rows[inside], columns[inside]], image[..., 0][inside] > 127
        ious.append((pasted & truth).sum() / (pasted | truth).sum())
        area = mask.sum() * abs(np.linalg.det(transform[:, :2]))
        assert area == pytest.approx(truth.sum(), rel=0.01)
    print(f"least IoU {min(ious):.4f}")
    assert min(ious) > 0.99


def test_beyond_its_edges_the_image_is_reflected() -> None:
    row = Image.fromarray(np.arange(4, dtype=np.uint8)[None].repeat(2, 0))
    assert np.asarray(align.reflected(row, (-5, 0, 9, 1)))[0].tolist() == [3, 3, 2, 1, 0, 0, 1, 2, 3, 3, 2, 1, 0, 0]
    assert np.asarray(align.reflected(row, (5, 0, 7, 1)))[0].tolist() == [2, 1]
    assert np.asarray(align.reflected(row, (1, -1, 2, 3)))[:, 0].tolist() == [1, 1, 1, 1]


def test_a_mirrored_image_has_the_mirrored_crop() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 500, 3), dtype=np.uint8))
    points = face(240 + 190j, 50, 20)
    mirrored = (points * [-1, 1] + [500, 0])[[1, 0, 2, 4, 3]]
    one = align.pixels(image, align.transform(points, SIDE), SIDE)
    other = align.pixels(ImageOps.mirror(image), align.transform(mirrored, SIDE), SIDE)
    assert np.abs(one.astype(int) - other[:, ::-1]).max() <= 2


def test_a_crop_may_be_four_times_as_large_as_the_image_and_have_its_middle_on_an_edge() -> None:
    image = Image.new("RGB", (50, 40), "red")

    def place(scale: float, x: float, y: float) -> np.ndarray:
        return np.array([[scale, 0, x - SIDE / 2 * scale], [0, scale, y - SIDE / 2 * scale]])

    largest = 4 * 50 / SIDE
    for x, y in ((0, 0), (50, 40), (25, 20)):
        found = align.pixels(image, place(largest, x, y), SIDE)
        assert (found.shape, np.unique(found.reshape(-1, 3), axis=0).tolist()) == ((SIDE, SIDE, 3), [[255, 0, 0]])
    for scale, x, y in ((largest + 0.01, 25, 20), (1, -0.5, 20), (1, 50.5, 20), (1, 25, -0.5), (1, 25, 40.5)):
        with pytest.raises(ValueError, match="not a place"):
            align.pixels(image, place(scale, x, y), SIDE)


def test_coinciding_landmarks_and_crops_far_beyond_the_image_are_refused() -> None:
    image = Image.new("RGB", (50, 50))
    with np.errstate(invalid="ignore"):
        nowhere = align.transform(np.ones((5, 2)), SIDE)
    for transform in (nowhere, align.transform(face(0, 200, 0), SIDE)):
        with pytest.raises(ValueError, match="not a place"):
            align.pixels(image, transform, SIDE)
