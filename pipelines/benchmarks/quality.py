"""What do the faster ways to run the network change: pixels of a checkpoint's masks, and the F1 of demo-synthetic?

    python -m pipelines.benchmarks.quality [CHECKPOINT ...] [--compile]     # without names all 14
    python -m pipelines.benchmarks.quality CHECKPOINT --weights FILE        # your weights

Without a file, checkpoints get weights that are filled by a rule (tests/filled.py).  They parse the two recorded
images.  Prints Markdown; about a minute per checkpoint (compiling: several), 400 MB of disk.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from pipelines.benchmarks import corpus, modes
from segface_batch import catalog
from segface_batch.curate.evaluate import counted_pairs, f1
from segface_batch.images import DEFAULT_MAX_PIXELS
from segface_batch.images.crop import crop_image
from segface_batch.images.decode import decode
from segface_batch.model import weights as weight_files
from segface_batch.model.segface import normalised
from tests import filled
from tests.programs.parity_table import crop, notes

#: A pixel is safe where its best class leads by more than this: 70 times what float32 moves logits (tests/data).
SAFE_MARGIN = 0.02


def print_scores(faster: Sequence[modes.Mode]) -> None:
    """Mean F1 of demo-synthetic on the embedded rendered faces."""
    print("| way | mean F1 of demo-synthetic | change |\n|---|---|---|", flush=True)
    exact = mean_f1(modes.EXACT)
    for mode in (modes.EXACT, *faster):
        found = exact if mode is modes.EXACT else mean_f1(mode)
        print(f"| {mode} | {found:.4f} | {found - exact:+.4f} |", flush=True)


def mean_f1(mode: modes.Mode) -> float:
    network = mode.network(catalog.DEMO_CHECKPOINT, device="cpu")
    checkpoint = network.checkpoint
    classes = len(checkpoint.dataset.classes)
    confusion = np.zeros((classes, classes), np.int64)
    for file, true in zip(corpus.RENDERED, corpus.TRUE_MASKS, strict=True):
        pixels = crop_image(decode(file.read_bytes(), DEFAULT_MAX_PIXELS), checkpoint).pixels
        labels = network.parse(pixels[None]).labels[0]
        confusion += counted_pairs(corpus.labels(true, checkpoint.resolution), labels, classes)
    return float(np.nanmean(f1(confusion)))


def print_agreements(name: str, weights: str | None, faster: Sequence[modes.Mode]) -> None:
    """The share of pixels with the class that torch gives them in float32, of the safe ones and of all."""
    checkpoint = catalog.find(name)
    crops = [crop(checkpoint, image) for image in notes()]
    fives = [each.landmarks for each in crops if each.landmarks is not None]
    pixels, landmarks = np.stack([each.pixels for each in crops]), np.stack(fives) if fives else None
    with torch.inference_mode():
        points = None if landmarks is None else torch.from_numpy(landmarks)
        logits = weight_files.load(checkpoint, weight_files.locate(checkpoint, weights))(
            normalised(torch.from_numpy(pixels)), points
        )
        best, second = logits.topk(2, dim=1).values.unbind(1)
    safe = (best - second > SAFE_MARGIN).numpy()
    exact = modes.EXACT.network(name, weights, device="cpu").parse(pixels, landmarks).labels
    for mode in faster:
        same = mode.network(name, weights, device="cpu").parse(pixels, landmarks).labels == exact
        print(f"| {name} | {mode} | {same[safe].mean():.5%} | {same.mean():.4%} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT")
    parser.add_argument("--weights", metavar="FILE")
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    if chosen.weights and len(chosen.checkpoints) != 1:
        parser.error("--weights is the file of one CHECKPOINT: name that")
    _, *faster = modes.on_cpu(compiled=chosen.compile, bf16=True)
    print_scores(faster)
    print("\n| checkpoint | way | safe pixels equal | all pixels equal |\n|---|---|---|---|", flush=True)
    for name in chosen.checkpoints or catalog.PUBLISHED:
        with tempfile.TemporaryDirectory() as folder:
            weights = chosen.weights
            if weights is None and name in catalog.PUBLISHED:
                weights = str(filled.published_file(name, Path(folder)))
            print_agreements(name, weights, faster)


if __name__ == "__main__":
    main()
