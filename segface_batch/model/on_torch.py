"""The network run by torch, on a CPU or an Nvidia GPU.  B: batch; R: side of the image in pixels."""

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
from segface_batch.model.fused import Inference

log = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEngine:
    """`device` is auto, cpu or cuda, `precision` fp32 or bf16; `threads` limits the CPU threads of the process.

    With `compile` the network is compiled at the first call, for the number of images that it gets; where that
    cannot be, one line of the log says why, and it runs as it is.
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
        network = Inference(weights.load(checkpoint, path), checkpoint.resolution, split=on_cpu and not compile)
        self.network: Any = network.to(self.device, _DTYPES[precision]).to(memory_format=torch.channels_last)
        if compile:
            # Not as CUDA graphs, which belong to the thread that recorded them: an actor has several.
            mode = "default" if on_cpu else "max-autotune-no-cudagraphs"
            self.network = torch.compile(self.network, mode=mode, fullgraph=True, dynamic=False)

    @torch.inference_mode()
    def start(self, pixels: np.ndarray, landmarks: np.ndarray | None) -> Callable[[], np.ndarray]:
        """(B, R, R, 3) uint8 RGB and LaPa's landmarks (B, 5, 2) -> what waits for the class ids (B, R, R) uint8.

        On a GPU the work is only handed over, in the order of the calls, and copies run beside it.
        """
        grids = () if landmarks is None else warp.grids(self._uploaded(landmarks), self.resolution)
        labels = self.network(self._uploaded(pixels), *grids)
        if self.device.type == "cpu":
            return labels.numpy
        host = torch.empty(labels.shape, dtype=labels.dtype, pin_memory=True)
        host.copy_(labels, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record()

        def finish() -> np.ndarray:
            copied.synchronize()
            return host.numpy()

        return finish

    def _uploaded(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)
