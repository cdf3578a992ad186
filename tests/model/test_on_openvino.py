"""What OpenVINO's engine keeps for later, and for whom."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from segface_batch.catalog import find
from segface_batch.model import weights
from segface_batch.model.on_openvino import OpenvinoEngine
from segface_batch.model.segface import SegFace

DEMO = find("demo-synthetic")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGFACE_BATCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "openvino"


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 192, 192, 3), dtype=np.uint8)


def engine(path: Path) -> OpenvinoEngine:
    return OpenvinoEngine(DEMO, path, precision="fp32", threads=1, confidence_map=False)


@pytest.fixture(scope="module")
def demo() -> OpenvinoEngine:
    return engine(weights.locate(DEMO))


def parsed(by: OpenvinoEngine, crops: np.ndarray) -> np.ndarray:
    return by.start(crops, None)().labels


def test_a_graph_is_kept_for_its_weights_alone(
    cache: Path, demo: OpenvinoEngine, crops: np.ndarray, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    other = tmp_path / "other.safetensors"
    weights.write(DEMO, SegFace(DEMO).eval(), other)
    for path in (other, weights.locate(DEMO)):
        mask = parsed(engine(path), crops)
        assert np.array_equal(mask, parsed(demo, crops)) == (path != other)
    assert len(list(cache.iterdir())) == 2


def test_every_crop_of_a_batch_has_its_own_mask(demo: OpenvinoEngine, crops: np.ndarray) -> None:
    first, second = parsed(demo, crops)
    assert not np.array_equal(first, second)
    assert np.array_equal(parsed(demo, crops[1:]), second[None])


def test_where_nothing_can_be_kept_the_masks_are_the_same_and_a_line_says_so(
    demo: OpenvinoEngine, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGFACE_BATCH_CACHE", "/proc/nowhere")
    assert np.array_equal(parsed(engine(weights.locate(DEMO)), crops), parsed(demo, crops))
    assert capsys.readouterr().err.startswith("the converted network cannot be kept: no folder for files to keep (")
