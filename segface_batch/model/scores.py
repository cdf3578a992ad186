"""From logits to classes, and to how sure the network is of them (images/confidence.py says of what).

Classes come first, and one follows the other, so that every step is one of few vectors in a CPU's cache: of 19 classes
and 512 x 512 pixels all of this takes a thread about as long as torch's argmax over the last axis
(pipelines/benchmarks/confidence.py).

B: batch; K: classes; P: pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segface_batch.images.confidence import LOW_MARGIN


def scored(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, K, P) float32 -> labels (B, P) uint8, and scores (B, 3, P) float32: the best probability, its margin
    over the second, and the entropy in nats.

    Of equal logits the first class gets the pixel, as by argmax.
    """
    first, *others = logits.unbind(1)
    best, second, labels = first, torch.full_like(first, -torch.inf), torch.zeros_like(first)
    for label, each in enumerate(others, 1):
        # Not torch.where, which takes six times as long as any of these.
        is_better = (each - best).sign().relu()
        labels = torch.maximum(labels, label * is_better)
        second = torch.maximum(second, torch.minimum(best, each))
        best = torch.maximum(best, each)
    total, weighted = torch.zeros_like(first), torch.zeros_like(first)
    for each in logits.unbind(1):
        below = each - best
        weight = below.exp()
        total, weighted = total + weight, weighted + weight * below
    probability = 1 / total
    margin = probability * (1 - (second - best).exp())
    entropy = total.log() - weighted * probability
    return labels.to(torch.uint8), torch.stack((probability, margin, entropy), dim=1)


def summed(labels: Tensor, scores: Tensor, n_classes: int) -> Tensor:
    """Labels (B, P) and scores (B, 3, P) -> (B, 2K + 2) float32: for each class the sum of the best probabilities of
    its pixels, then those of their margins, then the number of low margins and the sum of the entropy.

    Products again, whose result does not depend on which thread of a GPU is first, as that of scattered sums does.
    """
    is_class = labels.unsqueeze(1) == torch.arange(n_classes, device=labels.device).view(1, -1, 1)
    sums = is_class.float() @ scores[:, :2].transpose(1, 2)  # B, K, 2
    low = (scores[:, 1] < LOW_MARGIN).sum(1, keepdim=True)
    return torch.cat((sums.transpose(1, 2).flatten(1), low.float(), scores[:, 2].sum(1, keepdim=True)), dim=1)
