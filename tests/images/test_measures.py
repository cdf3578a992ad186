"""Measures of masks made to tell one definition from its neighbour; hand_made.py has whole faces."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segface_batch.catalog import CELEBAMASK_HQ, Dataset, FaceClass
from segface_batch.images.masks import OUTSIDE
from segface_batch.images.measures import CroppedFace
from tests.images.hand_made import BUST, EYES, FRONTAL, HAIR, LIPS, MOUTH, NAMES, NOSE, SKIN, HandMade, Rectangle

HAIR_ID, SKIN_ID, NOSE_ID, LEFT_EYE, RIGHT_EYE = (
    NAMES.index(name) for name in ("hair", "skin", "nose", "l_eye", "r_eye")
)


def face(labels: np.ndarray, pixels: np.ndarray | None = None) -> CroppedFace:
    """A mask that is its own image."""
    height, width = labels.shape
    return CroppedFace(labels, CELEBAMASK_HQ, np.eye(2, 3), (width, height), pixels)


def drawn(*rectangles: Rectangle) -> CroppedFace:
    return face(HandMade("", rectangles).labels)


def test_the_middle_is_that_of_the_nose_or_else_of_the_skin_or_else_of_the_mask() -> None:
    nose, skin = ("nose", 14, 20, 18, 24), ("skin", 10, 8, 26, 34)
    assert drawn(skin, nose).middle == 16
    assert drawn(skin).middle == 18
    assert drawn(HAIR).middle == 20


def test_a_pair_keeps_its_bit_in_a_table_without_the_pairs_before_it() -> None:
    classes = (("background", "background"), ("a", "eye"), ("b", "eye"))
    dataset = Dataset("eyes", tuple(FaceClass(name, name, (0, 0, 0), common) for name, common in classes), "")
    labels = np.array([[0, 2, 0, 0, 1, 0]], np.uint8)
    assert CroppedFace(labels, dataset, np.eye(2, 3), (6, 1)).swapped == 2
    assert CroppedFace(labels[:, ::-1], dataset, np.eye(2, 3), (6, 1)).swapped == 0


@pytest.mark.parametrize("degrees", [-150, -90, -20, 0, 45, 90, 135, 180])
def test_roll_follows_a_face_all_around_and_its_lengths_do_not(degrees: int) -> None:
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = np.array([[2 * cos, -2 * sin, 150], [2 * sin, 2 * cos, 150]])
    found = CroppedFace(HandMade("", FRONTAL).labels, CELEBAMASK_HQ, turned, (300, 300))
    assert found.roll is not None
    assert (found.roll - degrees + 180) % 360 == pytest.approx(180)
    assert [found.eye_dist, found.head_size] == pytest.approx([16, 34 / 300])
    assert [found.eye_open_left, found.eye_open_right, found.mouth_open] == pytest.approx([2 / 17] * 3)


def test_the_chin_is_the_middle_of_all_pixels_of_the_lowest_row_of_the_face() -> None:
    """6 px around x = 13 and 2 px around x = 29: x = 17, and the eyes' middle is (20, 17)."""
    found = drawn(SKIN, *EYES, ("skin", 10, 34, 16, 35), ("skin", 28, 34, 30, 35))
    assert found.head_size == pytest.approx(math.hypot(3, 18) / 40)


def test_a_stray_pixel_opens_a_mouth_by_its_share_of_the_width() -> None:
    found = drawn(*FRONTAL, ("mouth", 16, 25, 17, 26))
    assert found.mouth_open == pytest.approx(17 / 8 / 17)


@pytest.mark.parametrize("hidden", LIPS, ids=lambda lip: lip[0])
def test_a_mouth_of_which_a_lip_is_hidden_is_not_measured(hidden: Rectangle) -> None:
    found = drawn(*(each for each in FRONTAL if each != hidden))
    assert (found.mouth_open, found.mouth_covered) == (None, None)
    assert found.eye_open_left == pytest.approx(2 / 17)


def test_what_covers_a_mouth_is_sought_in_the_box_around_lips_and_opening() -> None:
    found = drawn(SKIN, *LIPS, ("mouth", 14, 28, 26, 30), ("hair", 14, 27, 16, 28))
    assert found.mouth_covered == pytest.approx(2 / (12 * 4))


def test_a_hat_counts_to_the_last_of_the_rows_that_can_show_it() -> None:
    """49 of 100."""
    labels = np.zeros((100, 10), np.uint8)
    labels[48:51] = NAMES.index("hat")
    assert face(labels).head_cover == pytest.approx(1 / 49)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_eye")])
def test_background_hair_hat_and_cloth_cover_an_eye_and_no_other_class(name: str) -> None:
    """D = 40: the boxes are grown by two pixels to 8 x 6, and one row of six is of that class."""
    labels = np.full((30, 60), SKIN_ID, np.uint8)
    labels[:10] = NAMES.index(name)
    labels[11:13, 8:12], labels[11:13, 48:52] = LEFT_EYE, RIGHT_EYE
    covered = 1 / 6 if name in ("background", "hair", "hat", "cloth") else 0
    assert face(labels).eyes_covered == pytest.approx(covered)


def test_the_box_of_an_eye_ends_at_the_edge_of_the_mask_and_counts_with_its_pixels() -> None:
    """D = 44: grown by two pixels the left box is 6 x 4 and the right one 8 x 4."""
    labels = np.full((30, 60), SKIN_ID, np.uint8)
    labels[:2, :4], labels[:2, 44:48] = LEFT_EYE, RIGHT_EYE
    labels[:10, 5] = HAIR_ID
    assert face(labels).eyes_covered == pytest.approx(4 / (24 + 32))
    assert face(np.ascontiguousarray(labels[:, ::-1])).eyes_covered == pytest.approx(4 / (24 + 32))


def test_a_column_of_skin_is_on_the_side_on_which_its_middle_is() -> None:
    """The nose's centroid is at x = 4.75: column 4 is left of it, column 5 right."""
    labels = np.zeros((4, 8), np.uint8)
    labels[0], labels[1:, 4], labels[1, 5] = SKIN_ID, NOSE_ID, NOSE_ID
    pixels = np.full((4, 8, 3), 100, np.uint8)
    pixels[:, 4] = 50
    found = face(labels, pixels)
    assert (found.middle, found.skin_light_balance) == (4.75, pytest.approx((100 - 90) / 190))


def test_without_a_nose_light_has_no_balance() -> None:
    found = face(HandMade("", (SKIN, *EYES)).labels, np.full((40, 40, 3), 100, np.uint8))
    assert (found.skin_light, found.skin_light_balance) == (100, None)


def test_what_is_not_seen_is_not_measured() -> None:
    assert (drawn(*LIPS, MOUTH, NOSE).yaw_proxy, drawn(SKIN).yaw_proxy) == (None, None)
    assert drawn(*BUST).hair_over_face is None


def test_a_crop_is_cut_at_the_right_and_at_the_lower_edge_of_its_photograph() -> None:
    labels = HandMade("", FRONTAL).labels
    for shift, size, seen in (((30, 0), (50, 90), np.s_[:, :20]), ((0, 30), (90, 50), np.s_[:20])):
        transform = np.array([[1.0, 0, shift[0]], [0, 1, shift[1]]])
        expected = np.full_like(labels, OUTSIDE)
        expected[seen] = labels[seen]
        assert np.array_equal(CroppedFace(labels, CELEBAMASK_HQ, transform, size).inside, expected)


def test_what_a_crop_shows_beyond_its_photograph_neither_shines_nor_covers() -> None:
    """Columns up to 7 are beyond it; D = 40, so that a box of an eye reaches from column 6."""
    labels = np.full((30, 60), SKIN_ID, np.uint8)
    labels[11:13, 8:12], labels[11:13, 48:52] = LEFT_EYE, RIGHT_EYE
    labels[5:20, 6] = HAIR_ID
    pixels = np.full((30, 60, 3), 90, np.uint8)
    pixels[:, :7] = 200
    found = CroppedFace(labels, CELEBAMASK_HQ, np.array([[1.0, 0, -7], [0, 1, 0]]), (60, 30), pixels)
    assert (found.eye_dist, found.eyes_covered, found.skin_light, found.skin_light_spread) == (40, 0, 90, 0)
