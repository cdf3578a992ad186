"""From logits to classes, and to how sure the network is of them (images/confidence.py says of what).

Classes come first, so that every step runs over pixels that lie side by side: with 19 classes torch's argmax over the
last axis takes longer than all of this.

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
    best, *others = logits.unbind(1)
    second = torch.full_like(best, -torch.inf)
    labels = torch.zeros_like(best)
    for label, each in enumerate(others, 1):
        labels = torch.where(each > best, torch.full_like(labels, label), labels)
        second = torch.maximum(second, torch.minimum(best, each))
        best = torch.maximum(best, each)
    below = logits - best.unsqueeze(1)
    weights = below.exp()
    # Sums over classes as products with ones: a reduction over this axis takes OpenVINO four times as long.
    ones = torch.ones_like(logits[:, :, :1]).transpose(1, 2)  # B, 1, K
    total, weighted = (ones @ weights).squeeze(1), (ones @ (weights * below)).squeeze(1)
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
