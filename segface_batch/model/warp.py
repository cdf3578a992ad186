"""LaPa's face warp and its inverse: the face is aligned, and what is far from it is compressed.

The warp is RoI Tanh-warping (Lin et al., CVPR 2019, "Face Parsing with RoI Tanh-Warping"), in the variant of SegFace's
LaPa model (github.com/Kartik-3004/SegFace, commit 9416628, MIT).  A point of the plane is one complex number x + iy,
so that a similarity (rotation, scale, shift) is `factor * point + shift`.

B, C, R: batch, channels, and the side of the square image in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Where the eyes, the nose tip and the mouth corners are put: x + iy in an image from -1 to 1 (the official code has
#: pixels of a 512 pixel image).
_TARGETS = tuple(
    complex(x, y) / 256 - (1 + 1j) for x, y in ((196, 226), (316, 226), (256, 286), (220, 360.4), (292, 360.4))
)

#: Half side of the middle square where the warp is linear; tanh compresses the rest of the plane around it.
_LINEAR = 0.2

#: The official limit for arctanh: what lies farther than 3.24 half sides from the middle is never sampled.
_ARCTANH_LIMIT = 0.999


def similarity(landmarks: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """(B, 5, 2) pixels -> factor and shift, complex128 (B,), that bring them nearest to the targets (least squares).

    Landmarks that coincide give NaN; `images.crop` refuses them.
    """
    targets = torch.tensor(_TARGETS, dtype=torch.complex128, device=landmarks.device)
    targets = (targets + (1 + 1j)) * ((resolution - 1) / 2)
    points = torch.view_as_complex(landmarks.double().contiguous())
    target_middle, middle = targets.mean(), points.mean(dim=1, keepdim=True)
    around = points - middle
    factor = ((targets - target_middle) * around.conj()).sum(dim=1) / around.abs().square().sum(dim=1)
    return factor, target_middle - factor * middle.squeeze(1)


def grids(landmarks: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """(B, 5, 2) pixels -> the grids that warp and that warp back, float32 (B, R, R, 2), for `sampled`.

    Computed in float64.  Coordinates are those of pixel corners, where `sampled` expects centres: each way moves the
    image by half a pixel up and left.  The networks were trained with that.
    """
    factor, shift = (value[:, None, None] for value in similarity(landmarks, resolution))
    steps = torch.arange(resolution, dtype=torch.float64, device=landmarks.device)
    aligned = (_expanded(steps / resolution * 2 - 1) + 1) / 2 * resolution
    half, corner = resolution / 2, 1 + 1j  # pixels / half - corner: from -1 to 1
    warp = _plane(aligned) * (1 / factor / half) - (shift / factor / half + corner)
    back = _plane(steps) * (factor / half) + (shift / half - corner)
    return torch.view_as_real(warp).float(), _compressed(torch.view_as_real(back)).float()


def sampled(maps: Tensor, grid: Tensor) -> Tensor:
    """(B, C, R, R) sampled at the grid, bilinear; zero outside."""
    return F.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)


def _plane(steps: Tensor) -> Tensor:
    """(R,) coordinates along each side -> (R, R) points."""
    return torch.complex(*torch.meshgrid(steps, steps, indexing="xy"))


def _compressed(t: Tensor) -> Tensor:
    outside = torch.tanh((t.abs() - _LINEAR) / (1 - _LINEAR)) * (1 - _LINEAR) + _LINEAR
    return torch.where(t.abs() > _LINEAR, t.sign() * outside, t)


def _expanded(t: Tensor) -> Tensor:
    outside = ((t.abs() - _LINEAR) / (1 - _LINEAR)).clamp(-_ARCTANH_LIMIT, _ARCTANH_LIMIT)
    outside = torch.atanh(outside) * (1 - _LINEAR) + _LINEAR
    return torch.where(t.abs() > _LINEAR, t.sign() * outside, t)
