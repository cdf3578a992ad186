"""How `SegFaceNetwork` hands crops to its engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segface_batch.model.network import Parsed
from segface_batch.model.on_torch import TorchEngine
from segface_batch.model.segface_network import SegFaceNetwork


def test_every_batch_is_full_and_every_crop_has_its_own_landmarks_and_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def start(self: TorchEngine, pixels: np.ndarray, landmarks: np.ndarray | None) -> Callable[[], Parsed]:
        assert landmarks is not None
        seen.append((pixels[:, 0, 0, 0].tolist(), landmarks[:, 0, 0].tolist()))
        return lambda: Parsed(pixels[..., 0])

    monkeypatch.setattr(TorchEngine, "start", start)
    network = SegFaceNetwork("demo-synthetic", device="cpu", engine="torch", batch_size=2)
    numbers = np.arange(3)
    pixels = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (3, 192, 192, 3))
    landmarks = np.broadcast_to(10 * numbers.astype(np.float32)[:, None, None], (3, 5, 2))
    labels = network.parse(pixels, landmarks).labels
    assert seen == [([0, 1], [0, 10]), ([2, 0], [20, 0])]
    assert np.array_equal(labels, pixels[..., 0])
