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
from segface_batch.model import engine, warp, weights
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
        self, checkpoint: Checkpoint, path: Path, *, device: str, precision: str, threads: int | None, compile: bool
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device, self.resolution = torch.device(device), checkpoint.resolution
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
        labels = self.network(self._uploaded(pixels), *grids)
        if self.device.type == "cpu":
            return lambda: Parsed(labels.numpy())
        host = torch.empty(labels.shape, dtype=labels.dtype, pin_memory=True)
        host.copy_(labels, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def finish() -> Parsed:
            copied.synchronize()
            return Parsed(host.numpy())

        return finish

    def _uploaded(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
