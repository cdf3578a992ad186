"""What is reduced from the scores of pixels; tests/model/test_scores.py has the scores against a plain softmax."""

from __future__ import annotations

import math

import numpy as np
import pytest

from segface_batch.images import confidence


def test_kept_margins_are_those_of_the_pixels_in_255_steps_rounded() -> None:
    labels = np.array([[0, 1, 1, 1]], np.uint8)
    scores = np.array([[[0.5, 0.6, 0.999, 1]], [[0.001, 0.2, 0.9985, 1]], [[0.6, 0.5, 0, 0]]], np.float32)
    found = confidence.of_pixels(labels, scores, 2, keep=True)
    assert found.margins is not None
    assert (found.margins.dtype, found.margins.tolist()) == (np.uint8, [[0, 51, 255, 255]])
    assert found.best == pytest.approx([0.5, 2.599 / 3])
    assert found.margin == pytest.approx([0.001, 2.1985 / 3])
    assert (found.overall, found.low_px) == (pytest.approx(2.599 / 3), 1)
    assert found.entropy == pytest.approx(1.1 / 4 / math.log(2))
    assert confidence.of_pixels(labels, scores, 2).margins is None
