"""How well do measures follow the faces that the renderer drew, and how well does low confidence find wrong pixels?

    python -m pipelines.benchmarks.measures [FACES [FIRST_SEED]]

Renders faces that `demo-synthetic` has not learned from, and asks their scenes for the truth.  Measures are taken on
true label maps, where they can only be wrong by what they are, and on the network's masks.  Prints Markdown; a second
or two a face on one thread.

R: the network's resolution in pixels.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.stats import rankdata

from pipelines.demo_model.faces.face import render
from pipelines.demo_model.faces.head import Head
from pipelines.demo_model.faces.scene import Scene
from segface_batch import catalog
from segface_batch.images.confidence import LOW_MARGIN
from segface_batch.images.crop import Crop, crop_image
from segface_batch.images.measures import CroppedFace
from segface_batch.model.segface_network import SegFaceNetwork

FACES, FIRST_SEED, SIDE = 200, 1_000_000, 256

#: Faces between two lines of progress.
PROGRESS = 20

#: The share of faces that count as bad: those with the fewest right pixels.
WORST = 0.1

#: Measures, and what their truth is.
TRUTHS = {
    "eye_open_left": "gap between the lids, over eyes to chin",
    "eye_open_right": "the same",
    "mouth_open": "gap between the lips, over eyes to chin",
    "roll": "angle of the axis through the eyes in the picture",
    "yaw_proxy": "angle of the head to the left of the picture",
    "head_cover": "1 with a hat, 0 without",
}

#: Where the skin ends, in the middle of an eye and of the mouth, and the chin: head.npz at rest, dm.
_LIDS = np.array([[0.311, 7.332, 1.411], [0.311, 7.24, 1.405]])
_LIPS = np.array([[0, 6.608, 1.553], [0, 6.601, 1.54]])
_CHIN = np.array([0, 6.168, 1.378])


@dataclass(frozen=True)
class Rendered:
    """A face as the network gets it; `truth` has the numbers of TRUTHS, `labels` (R, R) uint8 are true."""

    truth: list[float]
    crop: Crop
    labels: np.ndarray


def rendered(seed: int, checkpoint: catalog.Checkpoint, side: int = SIDE) -> Rendered:
    """The face of a seed, drawn with `side` pixels."""
    face, resolution = render(seed, side), (checkpoint.resolution, checkpoint.resolution)
    labels = np.asarray(Image.fromarray(face.labels).resize(resolution, Image.Resampling.NEAREST))
    return Rendered(truth(face.scene), crop_image(Image.fromarray(face.image), checkpoint), labels)


def truth(scene: Scene) -> list[float]:
    """The numbers of TRUTHS.  Gaps are those of the mesh before the head turns, whatever hides them."""
    left = np.array([-1, 1, 1])
    x, y, _ = scene.camera.rotation @ scene.pose.rotation[:, 0]  # to the right of a face that looks at the camera
    ahead_x, _, ahead_z = scene.camera.rotation @ scene.pose.rotation[:, 2]
    return [
        _gap(scene, _LIDS * left),
        _gap(scene, _LIDS),
        _gap(scene, _LIPS),
        math.degrees(math.atan2(-y, x)),
        math.degrees(math.atan2(-ahead_x, ahead_z)),
        float(scene.hat is not None),
    ]


def _gap(scene: Scene, places: np.ndarray) -> float:
    """How far the first of two places at rest is above the second one, over the distance from the eyes to the chin."""
    person = scene.person
    upper, lower, chin = (person.vertices[_vertex(scene.head, place)] for place in (*places, _CHIN))
    return max(0.0, float((upper - lower)[1] / np.linalg.norm(person.eyes - chin)))


def _vertex(head: Head, place: np.ndarray) -> int:
    """The number of the skin's vertex that is nearest to a place at rest."""
    return int(head.body[np.linalg.norm(head.rest[head.body] - place, axis=1).argmin()])


def measured(labels: np.ndarray, crop: Crop) -> list[float]:
    """The measures of TRUTHS, NaN for null."""
    _, _, width, height = map(int, crop.box)
    face = CroppedFace(labels, catalog.CELEBAMASK_HQ, crop.transform, (width, height))
    found = (getattr(face, name) for name in TRUTHS)
    return [math.nan if value is None else value for value in found]


def correlations(found: np.ndarray, true: np.ndarray) -> tuple[int, float, float]:
    """How many pairs have no NaN; Pearson's and Spearman's correlation of these."""
    both = ~np.isnan(found) & ~np.isnan(true)
    pair = found[both], true[both]
    pearson, spearman = np.corrcoef(*pair)[0, 1], np.corrcoef(*map(rankdata, pair))[0, 1]
    return int(both.sum()), float(pearson), float(spearman)


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve: how often a positive has a higher score than a negative, ties counting half."""
    count = int(positive.sum())
    ranks = rankdata(scores)[positive].sum() - count * (count + 1) / 2
    return float(ranks / (count * (len(positive) - count)))


def main(faces: str = str(FACES), first_seed: str = str(FIRST_SEED)) -> None:
    network = SegFaceNetwork(catalog.DEMO_CHECKPOINT, device="cpu", threads=1, confidence_map=True)
    drawn: list[Rendered] = []
    for seed in range(int(first_seed), int(first_seed) + int(faces)):
        drawn.append(rendered(seed, network.checkpoint))
        if len(drawn) % PROGRESS == 0:
            print(f"{len(drawn)} of {faces} rendered", file=sys.stderr, flush=True)
    parsed = network.parse(np.stack([face.crop.pixels for face in drawn]))
    true = np.array([face.truth for face in drawn])
    on_truth = np.array([measured(face.labels, face.crop) for face in drawn])
    on_masks = np.array([measured(mask, face.crop) for mask, face in zip(parsed.labels, drawn, strict=True)])
    print_measures("true map", on_truth, list(TRUTHS.values()), true)
    print_measures("mask", on_masks, list(TRUTHS.values()), true)
    print_measures("mask", on_masks, ["the same on the true map"] * len(TRUTHS), on_truth)
    confidence = parsed.confidence or ()
    print_confidence(
        np.stack([face.labels for face in drawn]),
        parsed.labels,
        np.stack([each.margins for each in confidence if each.margins is not None]),
        np.array([each.overall for each in confidence]),
    )


def print_measures(where: str, found: np.ndarray, meanings: Sequence[str], true: np.ndarray) -> None:
    """How measures (faces, measures) that were taken on `where` follow the truth, whose meanings are given."""
    print(f"| on the {where} | truth | faces | null | Pearson | Spearman |\n|---|---|---|---|---|---|")
    for name, meaning, own, other in zip(TRUTHS, meanings, found.T, true.T, strict=True):
        count, pearson, spearman = correlations(own, other)
        print(f"| {name} | {meaning} | {count} | {1 - count / len(own):.1%} | {pearson:.3f} | {spearman:.3f} |")
    print()


def print_confidence(labels: np.ndarray, masks: np.ndarray, margins: np.ndarray, confidence: np.ndarray) -> None:
    """Of labels, masks and margins (N, R, R) uint8, and the confidence (N,) of each face."""
    wrong, low = labels != masks, margins / 255 < LOW_MARGIN
    print(
        f"| pixels | wrong | AUC of 1 - margin | under {LOW_MARGIN} | wrong among these | wrong among others "
        "| of the wrong, under |\n|---|---|---|---|---|---|---|"
    )
    for name, counted in {"all": np.ones_like(wrong), "not background": labels != catalog.BACKGROUND}.items():
        is_wrong, is_low = wrong[counted], low[counted]
        shares = (is_low.mean(), is_wrong[is_low].mean(), is_wrong[~is_low].mean(), is_low[is_wrong].mean())
        told = " | ".join(f"{share:.2%}" for share in shares)
        print(f"| {name} | {is_wrong.mean():.2%} | {auc(255 - margins[counted], is_wrong):.3f} | {told} |")
    right = 1 - wrong.mean(axis=(1, 2))
    bound = np.sort(right)[math.ceil(WORST * len(right)) - 1]
    print(f"\nPixels right: {right.mean():.2%} in the mean face, {bound:.2%} or less in the worst {WORST:.0%}.")
    for name, scores in {"1 - confidence": 1 - confidence, "low_px": low.sum(axis=(1, 2))}.items():
        print(f"AUC of {name} for these: {auc(scores, right <= bound):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
