"""LaPa's face warp against the official grids, matrices and warped images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segface_batch.model import warp
from tests import filled
from tests.programs.parity_table import Golden

#: The official code computes in float32 and through a general linear solver; ours is float64 until the last step.
MATRIX, GRID = 1e-5, 1e-5

#: At the border of the image the ramp falls from 1 to 0 within a pixel of 2/224, which magnifies the grids' rounding.
RAMP = 1e-3


@pytest.fixture(scope="module")
def cases() -> Golden:
    with np.load(filled.REFERENCE / "golden" / "lapa_warp_cases.npz") as stored:
        return Golden(dict(stored), {})


@pytest.fixture(scope="module")
def grids(cases: Golden) -> tuple[torch.Tensor, torch.Tensor]:
    return warp.grids(torch.from_numpy(cases.arrays["landmarks"]), int(cases.arrays["resolution"]))


def test_the_similarity_is_the_official_matrix(cases: Golden):
    factor, shift = warp.similarity(torch.from_numpy(cases.arrays["landmarks"]), int(cases.arrays["resolution"]))
    a, b, zero = factor.real, factor.imag, torch.zeros_like(factor.real)
    rows = [[a, -b, shift.real], [b, a, shift.imag], [zero, zero, zero + 1]]
    matrices = torch.stack([torch.stack(row, -1) for row in rows], 1).numpy()
    official = cases.arrays["align_matrix"]
    difference = np.abs(matrices - official).max(axis=(1, 2)) / np.abs(official).max(axis=(1, 2))
    assert difference.max() < MATRIX


def test_both_grids_are_the_official_ones(cases: Golden, grids: tuple[torch.Tensor, torch.Tensor]):
    there, back = grids
    assert (there.dtype, back.dtype) == (torch.float32, torch.float32)
    assert cases.difference("warp_grid", there.permute(0, 3, 1, 2)) < GRID
    assert cases.difference("inverse_grid", back.permute(0, 3, 1, 2)) < GRID


def test_landmarks_are_warped_alone_as_in_a_batch(cases: Golden, grids: tuple[torch.Tensor, torch.Tensor]):
    landmarks = torch.from_numpy(cases.arrays["landmarks"])
    for n, one in enumerate(landmarks):
        there, back = warp.grids(one[None], int(cases.arrays["resolution"]))
        assert torch.equal(there[0], grids[0][n])
        assert torch.equal(back[0], grids[1][n])


def test_a_ramp_is_warped_and_warped_back_as_officially(cases: Golden, grids: tuple[torch.Tensor, torch.Tensor]):
    resolution = int(cases.arrays["resolution"])
    steps = 1 + torch.arange(resolution) / resolution
    ramp = torch.stack(torch.meshgrid(steps, steps, indexing="xy")).expand(len(grids[0]), -1, -1, -1)
    warped = warp.sampled(ramp, grids[0])
    assert cases.difference("warped_ramp", warped) < RAMP
    assert cases.difference("unwarped_ramp", warp.sampled(warped, grids[1])) < RAMP


def test_landmarks_on_the_targets_leave_the_middle_of_the_image_where_it_is():
    resolution = 256
    targets = torch.tensor([[196, 226], [316, 226], [256, 286], [220, 360.4], [292, 360.4]], dtype=torch.float64)
    factor, shift = warp.similarity((targets / 256 * (resolution - 1) / 2)[None], resolution)
    assert torch.allclose(factor, torch.ones_like(factor))
    assert torch.allclose(shift, torch.zeros_like(shift), atol=1e-9)
