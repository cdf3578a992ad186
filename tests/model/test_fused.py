"""Every way to run the network, against what the official code computed (tests/data/reference)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from segface_batch.catalog import find
from segface_batch.images import confidence
from segface_batch.model import engine, warp, weights
from segface_batch.model.fused import FusedSegFace
from segface_batch.model.segface import normalised
from segface_batch.model.segface_network import SegFaceNetwork
from tests import filled
from tests.conftest import SMALL
from tests.model import test_scores
from tests.model.test_parity import TOLERANCE
from tests.programs.parity_table import Golden, crop, golden
from tests.reference_graph import ReferenceGraph

NO_BF16 = "this CPU has no instructions for bfloat16"

#: One of each backbone and data set; between them, resolutions differ in nothing that the engines see.
KINDS = (
    *("convnext_celeba_512", "efficientnet_celeba_512", "mobilenet_celeba_512", "resnet_celeba_512"),
    *("swinb_celeba_256", "swinv2b_celeba_512", "swinb_lapa_224", "swinb_helen_512"),
)


@pytest.fixture(scope="module")
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    path = filled.published_file(request.param, tmp_path_factory.mktemp("published"))
    yield request.param, path
    path.unlink()  # up to 370 MB each


def of(names: tuple[str, ...]) -> pytest.MarkDecorator:
    """The checkpoints as parameter, marked by what they cost."""
    costs = {SMALL: (), "swinb_lapa_224": pytest.mark.slow}
    marked = [pytest.param(name, marks=costs.get(name, pytest.mark.long)) for name in names]
    return pytest.mark.parametrize("published", marked, indirect=True)


def images(name: str, theirs: Golden) -> tuple[np.ndarray, np.ndarray | None]:
    """Pixels (2, R, R, 3) uint8 and LaPa's landmarks (2, 5, 2) of the recorded images."""
    crops = [crop(find(name), image) for image in theirs.meta["pictures"]]
    fives = [crop.landmarks for crop in crops if crop.landmarks is not None]
    return np.stack([crop.pixels for crop in crops]), np.stack(fives) if fives else None


def check(mask: np.ndarray, theirs: Golden) -> None:
    """As exact as float32 allows."""
    assert mask.dtype == np.uint8
    wrong = mask != theirs.arrays["mask"]
    assert not wrong[theirs.safe].any()
    assert wrong.mean() <= 1e-3


@of(KINDS)
def test_fused_weights_give_the_official_logits_and_masks(published: tuple[str, Path]) -> None:
    name, path = published
    theirs = golden(name)
    pixels, landmarks = images(name, theirs)
    grids = () if landmarks is None else warp.grids(torch.from_numpy(landmarks), pixels.shape[1])
    network = FusedSegFace(weights.load(find(name), path), pixels.shape[1], split=True).eval()
    with torch.inference_mode():
        logits = network.logits(torch.from_numpy(pixels), *grids)
        mask, scored = network(torch.from_numpy(pixels), *grids)
    assert theirs.difference("logits", logits) < TOLERANCE
    check(mask.numpy(), theirs)
    # A few features at a time, or all together: the same but for what rounding does to ties.
    assert (mask == logits.argmax(1)).float().mean() > 0.99999
    for labels, scores, each in zip(mask.numpy(), scored.numpy(), logits.numpy(), strict=True):
        told = confidence.of_pixels(labels, scores, len(each), keep=True)
        test_scores.check(told, test_scores.plain(each), moved=1)


@of(KINDS)
def test_openvino_gives_the_official_masks(
    published: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path = published
    monkeypatch.setenv("SEGFACE_BATCH_CACHE", str(tmp_path))
    theirs = golden(name)
    pixels, landmarks = images(name, theirs)
    network = SegFaceNetwork(name, weights=str(path), engine="openvino", threads=2, confidence_map=True)
    parsed = network.parse(pixels, landmarks)
    check(made := parsed.labels, theirs)
    grids = () if landmarks is None else warp.grids(torch.from_numpy(landmarks), pixels.shape[1])
    fused = FusedSegFace(weights.load(find(name), path), pixels.shape[1], split=True).eval()
    with torch.inference_mode():
        logits = fused.logits(torch.from_numpy(pixels), *grids).numpy()
    for told, each in zip(parsed.confidence or (), logits, strict=True):
        test_scores.check(told, test_scores.plain(each), moved=10)
    (kept,) = (tmp_path / "openvino").iterdir()
    assert {file.name for file in kept.iterdir()} == {"network.xml", "network.bin"}
    again = SegFaceNetwork(name, weights=str(path), engine="openvino", threads=2).parse(*images(name, theirs)).labels
    assert np.array_equal(again, made)


@of(("mobilenet_celeba_512", "swinb_lapa_224", "swinb_helen_512"))
def test_the_published_graph_gives_the_recorded_logits(published: tuple[str, Path]) -> None:
    name, path = published
    theirs = golden(name)
    pixels, landmarks = images(name, theirs)
    graph = ReferenceGraph(find(name), weights.load(find(name), path))
    inputs = normalised(torch.from_numpy(pixels)), None if landmarks is None else torch.from_numpy(landmarks)
    assert theirs.difference("logits", graph.logits(*inputs)) < TOLERANCE
    check(graph.classes(*inputs).to(torch.uint8).numpy(), theirs)


@pytest.mark.long
@pytest.mark.skipif(engine.no_compiler() is not None, reason="no compiler here")
@pytest.mark.parametrize("published", ["mobilenet_celeba_512"], indirect=True)
def test_a_compiled_network_gives_the_official_masks(published: tuple[str, Path]) -> None:
    name, path = published
    theirs = golden(name)
    network = SegFaceNetwork(name, weights=str(path), device="cpu", compile=True)
    assert network.engine == "torch"
    check(network.parse(*images(name, theirs)).labels, theirs)


def test_bf16_of_openvino_is_close_and_says_where_the_cpu_has_none(
    weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = golden(SMALL)
    pixels, _ = images(SMALL, theirs)
    network = SegFaceNetwork(SMALL, weights=str(weights), device="cpu", engine="openvino", precision="bf16")
    same = network.parse(pixels[:1]).labels == theirs.arrays["mask"][:1]
    assert same[theirs.safe[:1]].mean() > 0.95
    said = capsys.readouterr().err
    assert said == ("" if engine.cpu_has_bf16() else f"{NO_BF16}: OpenVINO computes in float32\n")


def test_without_a_compiler_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    network = SegFaceNetwork("demo-synthetic", device="cpu", compile=True)
    assert capsys.readouterr().err == "the network is not compiled: it needs a C++ compiler, g++ or clang++\n"
    assert network.parse(np.zeros((1, 192, 192, 3), np.uint8)).labels.shape == (1, 192, 192)


def test_settings_that_openvino_cannot_have_are_refused() -> None:
    with pytest.raises(ValueError, match="--engine openvino is for CPUs"):
        SegFaceNetwork("demo-synthetic", engine="openvino", device="cuda")
    with pytest.raises(ValueError, match="--compile is for torch"):
        SegFaceNetwork("demo-synthetic", engine="openvino", compile=True)
