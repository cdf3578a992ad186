"""SegFace on torch, on a CPU or an Nvidia GPU.  B: batch; R: side of the image in pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segface_batch.catalog import Checkpoint
from segface_batch.images import confidence
from segface_batch.model import engine, scores, warp, weights
from segface_batch.model.fused import FusedSegFace
from segface_batch.model.network import Parsed

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEngine:
    """`device` is auto, cpu or cuda, `precision` fp32 or bf16; `threads` limits the CPU threads of the process.

    With `compile` the network is compiled at the first call, for that batch size; where it cannot be compiled, the log
    says why in one line, and it runs uncompiled.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        path: Path,
        *,
        device: str,
        precision: str,
        threads: int | None,
        compile: bool,
        confidence_map: bool,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device, self.resolution = torch.device(device), checkpoint.resolution
        self.n_classes, self.confidence_map = len(checkpoint.dataset.classes), confidence_map
        on_cpu = self.device.type == "cpu"
        if precision == "bf16" and on_cpu and not engine.cpu_has_bf16():
            log.warning("this CPU has no instructions for bfloat16: bf16 is slower here than fp32")
        if compile and (reason := engine.no_compiler()):
            log.warning("the network is not compiled: %s", reason)
            compile = False
        network = FusedSegFace(weights.load(checkpoint, path), checkpoint.resolution, split=on_cpu and not compile)
        self.network: Any = network.to(self.device, _DTYPES[precision]).to(memory_format=torch.channels_last)
        if compile:
            # No CUDA graphs: they belong to the thread that recorded them, and an actor has several.
            mode = "default" if on_cpu else "max-autotune-no-cudagraphs"
            self.network = torch.compile(self.network, mode=mode, fullgraph=True, dynamic=False)

    @torch.inference_mode()
    def start(self, pixels: np.ndarray, landmarks: np.ndarray | None) -> Callable[[], Parsed]:
        """(B, R, R, 3) uint8 RGB and LaPa's landmarks (B, 5, 2) -> a function that waits for the result.

        On a GPU the work is only queued, in the order of the calls, and copies run beside it.
        """
        grids = () if landmarks is None else warp.grids(self._uploaded(landmarks), self.resolution)
        labels, scored = self.network(self._uploaded(pixels), *grids)
        if self.device.type == "cpu":
            return lambda: Parsed(labels.numpy(), self._of_pixels(labels.numpy(), scored.numpy()))
        sums = scores.summed(labels.flatten(1), scored.flatten(2), self.n_classes)
        found = [labels, sums]
        if self.confidence_map:
            found.append((scored[:, 1] * 255).round().to(torch.uint8))
        hosts = [self._downloaded(tensor) for tensor in found]
        copied = torch.cuda.Event()
        copied.record()

        def finish() -> Parsed:
            copied.synchronize()
            return self._of_sums(*(host.numpy() for host in hosts))

        return finish

    def _of_pixels(self, labels: np.ndarray, scored: np.ndarray) -> list[confidence.Confidence]:
        pairs = zip(labels, scored, strict=True)
        return [confidence.of_pixels(*pair, self.n_classes, keep=self.confidence_map) for pair in pairs]

    def _of_sums(self, labels: np.ndarray, sums: np.ndarray, margins: np.ndarray | None = None) -> Parsed:
        pixels = [np.bincount(mask.ravel(), minlength=self.n_classes) for mask in labels]
        maps = [None] * len(labels) if margins is None else margins
        return Parsed(labels, [confidence.of_sums(*each) for each in zip(pixels, sums, maps, strict=True)])

    def _uploaded(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _downloaded(self, tensor: Tensor) -> Tensor:
        """The tensor's copy in the host's memory, once the device comes to it."""
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)
