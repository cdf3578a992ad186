"""How sure the network is, against a plain softmax in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from segface_batch.catalog import PUBLISHED
from segface_batch.images import confidence
from segface_batch.images.confidence import Confidence
from segface_batch.model import scores
from segface_batch.model.segface_network import SegFaceNetwork
from tests.programs.parity_table import golden

#: What the sums of float32 over 262,144 pixels may be off.
CLOSE = 1e-4


def plain(logits: np.ndarray) -> Confidence:
    """Of logits (K, H, W), by the definitions and in float64."""
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=0))
    p = weights / weights.sum(axis=0)
    second, best = np.sort(p, axis=0)[-2:]
    labels, k = logits.argmax(axis=0), len(logits)
    margin = best - second
    seen = [labels == label for label in range(k)]
    of_class = [[score[mask].mean() if mask.any() else math.nan for mask in seen] for score in (best, margin)]
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=0).mean() / math.log(k)
    overall = best[labels != 0].mean() if (labels != 0).any() else math.nan
    low, margins = int((margin < 0.2).sum()), np.rint(255 * margin)
    return Confidence(np.array(of_class[0]), np.array(of_class[1]), overall, low, entropy, margins)


def check(ours: Confidence, theirs: Confidence, moved: int = 0) -> None:
    """Where rounding may give `moved` pixels to other classes, those of each class weigh more than CLOSE."""
    for name in ("best", "margin"):
        close = 100 * CLOSE if moved else CLOSE
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=close, rtol=0, err_msg=name)
    assert ours.overall == pytest.approx(theirs.overall, abs=CLOSE, nan_ok=True)
    assert ours.entropy == pytest.approx(theirs.entropy, abs=CLOSE)
    # A margin may be on the other side of the limit by its last bits.
    assert abs(ours.low_px - theirs.low_px) <= 2 + 10 * moved
    if ours.margins is not None and theirs.margins is not None:
        assert ours.margins.dtype == np.uint8
        assert np.abs(ours.margins - theirs.margins).max() <= 1


def of_logits(logits: np.ndarray) -> tuple[Confidence, Confidence]:
    """Of logits (K, H, W), reduced as on a CPU and as on a GPU."""
    k = len(logits)
    flat = torch.from_numpy(np.ascontiguousarray(logits)).flatten(1)[None]
    labels, scored = scores.scored(flat)
    assert np.array_equal(labels[0].numpy(), logits.reshape(k, -1).argmax(axis=0))
    sums = scores.summed(labels, scored, k)[0].numpy()
    on_gpu = confidence.of_sums(np.bincount(labels[0].numpy(), minlength=k), sums)
    return confidence.of_pixels(labels[0].numpy(), scored[0].numpy(), k), on_gpu


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recorded_logits_have_the_confidence_of_a_plain_softmax(name: str) -> None:
    for logits in golden(name).arrays["logits_sample"]:
        for ours in of_logits(logits):
            check(ours, plain(logits))


def test_equal_logits_are_those_of_the_first_class_and_leave_no_margin() -> None:
    labels, scored = scores.scored(torch.zeros(1, 4, 3))
    assert labels.tolist() == [[0, 0, 0]]
    assert scored[0, :, 0].tolist() == pytest.approx([0.25, 0, math.log(4)])
    labels, scored = scores.scored(torch.tensor([[[1.0], [5.0], [5.0], [0.0]]]))
    assert (labels.item(), scored[0, 1].item()) == (1, 0)


def test_huge_logits_are_sure_and_give_no_nan() -> None:
    labels, scored = scores.scored(torch.tensor([[[-1e4], [1e4], [0.0]]]))
    assert labels.item() == 1
    assert scored[0, :, 0].tolist() == [1, 1, 0]


def test_a_pixel_below_the_limit_counts_as_low_and_one_at_it_does_not() -> None:
    scored = np.array([[0.5, 0.5], [0.2, 0.19], [0, 0]], np.float32)
    found = confidence.of_pixels(np.zeros(2, np.uint8), scored, 2)
    assert found.low_px == 1
    labels, tensor = torch.zeros(1, 2, dtype=torch.uint8), torch.from_numpy(scored)[None]
    assert scores.summed(labels, tensor, 2)[0, -2].item() == 1


def test_a_mask_of_background_alone_has_no_overall_confidence() -> None:
    found = confidence.of_pixels(np.zeros((2, 2), np.uint8), np.full((3, 2, 2), 0.5, np.float32), 3)
    assert math.isnan(found.overall)
    assert found.best[0] == 0.5
    assert np.isnan(found.best[1:]).all()
    assert np.isnan(found.margin[1:]).all()
    assert found.entropy == pytest.approx(0.5 / math.log(3))


def test_margins_are_not_kept_without_being_asked_for() -> None:
    network = SegFaceNetwork("demo-synthetic", device="cpu", engine="torch")
    told = network.parse(np.zeros((3, 192, 192, 3), np.uint8)).confidence
    assert told is not None
    assert [each.margins for each in told] == [None] * 3
