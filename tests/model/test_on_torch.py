"""What only a GPU does, without one: where constants lie, and when a result may be read, on a stand-in whose copies are
done no sooner than a GPU's must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from segface_batch.catalog import Checkpoint, find
from segface_batch.model import engine, scores, warp, weights
from segface_batch.model.fused import FusedSegFace
from segface_batch.model.on_torch import TorchEngine
from segface_batch.model.segface import SegFace
from segface_batch.model.segface_network import SegFaceNetwork
from tests.model.test_scores import check

DEMO = find("demo-synthetic")

#: As LaPa's checkpoints, which warp, and small.
LAPA = replace(DEMO, name="small-lapa", dataset=find("swinb_lapa_224").dataset)

FIVE = np.array([[[60, 75], [130, 75], [95, 110], [70, 140], [120, 140]]], np.float32)


class StandIn(TorchFunctionMode):
    """A GPU on the CPU: what is copied to the host without waiting is there when its event was waited for, and is
    nonsense before.  `log` tells what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []
        self.waiting: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "pin_memory":
            self.log.append("pin")
            return args[0]
        if name == "empty" and kwargs.pop("pin_memory", False):
            return func(*args, **kwargs).fill_(250)
        if name == "copy_" and kwargs.get("non_blocking"):
            self.waiting.append(args[:2])
            return args[0]
        if name == "to" and len(args) > 1 and torch.device("cuda") in args:
            self.log.append(f"upload {tuple(args[0].shape)} {'in turn' if kwargs.get('non_blocking') else 'waiting'}")
            args = tuple(torch.device("cpu") if value == torch.device("cuda") else value for value in args)
        return func(*args, **kwargs)

    def event(self) -> Event:
        return Event(self)


class Event:
    def __init__(self, device: StandIn) -> None:
        self.device, self.before = device, []

    def record(self) -> None:
        self.before = [*self.device.waiting]

    @torch.inference_mode()
    def synchronize(self) -> None:
        self.device.log.append("wait")
        for host, there in self.before:
            host.copy_(there)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    with StandIn() as device:
        monkeypatch.setattr(torch.cuda, "Event", device.event)
        yield device


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 192, 192, 3), dtype=np.uint8)


@cache
def network_of(checkpoint: Checkpoint) -> SegFace:
    torch.manual_seed(0)
    return SegFace(checkpoint).eval()


def of(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> TorchEngine:
    """The engine of a network with random weights."""
    monkeypatch.setattr(weights, "load", lambda checkpoint, path: network_of(checkpoint))
    usual = {"device": "cuda", "precision": "fp32", "threads": None, "compile": False, "confidence_map": True}
    settings = usual | settings
    return TorchEngine(checkpoint, weights.locate(DEMO), **settings)


@pytest.mark.parametrize("checkpoint", [DEMO, LAPA], ids=lambda checkpoint: checkpoint.name)
def test_on_a_gpu_a_result_is_read_after_its_copy(
    checkpoint: Checkpoint, pixels: np.ndarray, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    landmarks = None if checkpoint is DEMO else FIVE
    expected = of(checkpoint, monkeypatch, device="cpu").start(pixels, landmarks)()
    runner = of(checkpoint, monkeypatch)
    gpu.log.clear()
    first, second = runner.start(pixels, landmarks), runner.start(255 - pixels, landmarks)
    uploads = ["pin", "upload (1, 192, 192, 3) in turn"]
    if landmarks is not None:
        uploads = ["pin", "upload (1, 5, 2) in turn", *uploads]
    assert gpu.log == 2 * uploads  # both are queued, and nothing was waited for
    parsed = first()
    assert gpu.log == [*2 * uploads, "wait"]
    assert (parsed.labels == expected.labels).mean() > 0.9999  # other sizes of products add in another order
    assert len(np.unique(parsed.labels)) > 1
    assert not np.array_equal(second().labels, parsed.labels)
    for ours, theirs in zip(parsed.confidence or (), expected.confidence or (), strict=True):
        check(ours, theirs, moved=10)
        assert ours.margins is not None


@pytest.mark.parametrize("checkpoint", [DEMO, LAPA], ids=lambda checkpoint: checkpoint.name)
def test_all_that_a_network_computes_with_is_on_the_device_of_its_weights(checkpoint: Checkpoint) -> None:
    """On torch's device without memory, which refuses tensors of others as a GPU does."""
    side = checkpoint.resolution
    network = FusedSegFace(SegFace(checkpoint).eval(), side, split=False).to("meta")
    grids = () if checkpoint is DEMO else warp.grids(torch.zeros(2, 5, 2, device="meta"), side)
    labels, scored = network(torch.zeros(2, side, side, 3, dtype=torch.uint8, device="meta"), *grids)
    assert (labels.device.type, labels.shape, labels.dtype) == ("meta", (2, side, side), torch.uint8)
    assert (scored.device.type, scored.shape, scored.dtype) == ("meta", (2, 3, side, side), torch.float32)
    assert scores.summed(labels.flatten(1), scored.flatten(2), 19).shape == (2, 40)


@pytest.mark.parametrize(
    ("device", "compile", "split", "mode"),
    [
        ("cpu", False, True, None),
        ("cpu", True, False, "default"),
        ("cuda", False, False, None),
        ("cuda", True, False, "max-autotune-no-cudagraphs"),
    ],
)
def test_a_network_is_split_or_compiled_as_its_device_likes_it(
    device: str, compile: bool, split: bool, mode: str | None, gpu: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[dict[str, Any]] = []
    monkeypatch.setattr(torch, "compile", lambda network, **how: compiled.append(how) or network)
    monkeypatch.setattr(engine, "no_compiler", lambda: None)
    runner = of(DEMO, monkeypatch, device=device, compile=compile)
    assert runner.network.split == split
    assert compiled == ([{"mode": mode, "fullgraph": True, "dynamic": False}] if compile else [])


def test_a_gpu_gets_sixteen_crops_at_once_and_a_cpu_one(gpu: StandIn) -> None:
    batches = {
        device: SegFaceNetwork(DEMO.name, device=device, engine="torch").batch_size for device in ("cuda", "cpu")
    }
    assert batches == {"cuda": 16, "cpu": 1}
    assert SegFaceNetwork(DEMO.name, device="cuda", engine="torch", batch_size=3).batch_size == 3


def test_auto_is_the_gpu_where_torch_finds_one(gpu: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    for found, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        assert of(DEMO, monkeypatch, device="auto").device.type == device


def test_an_engine_takes_no_more_threads_than_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(before + 1)
        of(DEMO, monkeypatch, device="cpu", threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
