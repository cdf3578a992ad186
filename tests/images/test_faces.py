"""Which faces of an image are kept, and in which order."""

from __future__ import annotations

import numpy as np

from segface_batch.images.faces import NO_FACES, Faces

#: Areas 4, 8, 6, 6 and 8: the larger first, then from left to right, then from top to bottom.
BOXES = [[0, 0, 2, 2], [5, 1, 7, 5], [3, 0, 6, 2], [1, 1, 3, 4], [5, 0, 9, 2]]
ORDER = [4, 1, 3, 2, 0]


def faces() -> Faces:
    points = np.arange(50, dtype=np.float32).reshape(5, 5, 2)
    return Faces(np.array(BOXES, np.float32), np.arange(5, dtype=np.float32), points)


def test_the_largest_face_is_the_first_and_no_more_than_wanted_are_kept() -> None:
    for most in (None, 0, 1, 3, 5, 9):
        kept = faces().largest(most)
        expected = ORDER[:most]
        assert len(kept) == len(expected)
        assert kept.boxes.tolist() == [BOXES[number] for number in expected]
        assert kept.scores.tolist() == expected
        assert kept.landmarks.tolist() == faces().landmarks[expected].tolist()


def test_of_no_faces_the_largest_are_none() -> None:
    assert len(NO_FACES.largest()) == len(NO_FACES.largest(1)) == 0
