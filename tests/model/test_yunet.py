"""YuNet: boxes, landmarks and scores of OpenCV's detector in pixels of the image.

The published weights cannot be had here: data/yunet_like.onnx has the same inputs and outputs, and takes a red patch of
8 x 8 pixels for a face (data/make_yunet.py says where it puts box and landmarks).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segface_batch.model import weights, yunet
from segface_batch.model.yunet import YuNet
from tests.data.make_yunet import OFFSETS

LIKE = Path(__file__).parents[1] / "data" / "yunet_like.onnx"


def use_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "from_hub", lambda *_: LIKE)
    monkeypatch.setattr(yunet, "SHA256", hashlib.sha256(LIKE.read_bytes()).hexdigest())


@pytest.fixture(autouse=True)
def _like(monkeypatch: pytest.MonkeyPatch) -> None:
    use_like(monkeypatch)


def patches(*places: tuple[int, int], size: tuple[int, int] = (320, 200), side: int = 8) -> Image.Image:
    """Red patches of `side` pixels whose left top corners are `side` times the places."""
    image = Image.new("RGB", size)
    for x, y in places:
        image.paste((255, 0, 0), (x * side, y * side, (x + 1) * side, (y + 1) * side))
    return image


def test_faces_come_in_pixels_of_the_image() -> None:
    faces = YuNet(min_face=10).detect(patches((10, 5), (25, 12)))
    assert faces.boxes == pytest.approx(np.array([[68, 24, 92, 56], [188, 80, 212, 112]]), abs=0.01)
    assert faces.scores == pytest.approx([1, 1], abs=1e-3)
    around = np.reshape(OFFSETS, (5, 2)) * 8
    corners = np.array([[[80, 40]], [[200, 96]]])
    assert faces.landmarks == pytest.approx(around + corners, abs=0.01)


def test_large_images_are_scaled_and_their_faces_scaled_back() -> None:
    faces = YuNet(min_face=40).detect(patches((10, 5), size=(1284, 803), side=32))
    assert faces.boxes == pytest.approx(np.array([[272, 96, 368, 224]]), abs=2)
    assert faces.landmarks[0, 2] == pytest.approx([320, 160], abs=1)


def test_small_faces_unsure_ones_and_images_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(YuNet(min_face=10).detect(Image.new("RGB", (65, 33)))) == 0
    assert len(YuNet(min_face=10).detect(Image.new("RGB", (1, 1)))) == 0
    pink = Image.new("RGB", (64, 64))
    pink.paste((180, 0, 0), (16, 16, 24, 24))
    assert len(YuNet(min_face=10, min_score=0.6).detect(pink)) == 1
    assert len(YuNet(min_face=10, min_score=0.8).detect(pink)) == 0
    assert len(YuNet(min_face=33).detect(patches((2, 2), size=(64, 64)))) == 0


def test_threads_look_at_images_of_several_sizes_at_once() -> None:
    detector = YuNet(min_face=10)
    images = [patches((n % 5 + 2, 3), size=(100 + 16 * n, 120)) for n in range(24)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(detector.detect, images))
    assert [faces.boxes[0, 0] for faces in found] == pytest.approx([8 * (n % 5 + 2) - 12 for n in range(24)], abs=0.01)


def test_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yunet, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="expected 0000"):
        YuNet()
