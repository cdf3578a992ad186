"""A SegFace checkpoint as a `Network`: its weights, found and checked, and the engine that runs them.

B: batch; R: the checkpoint's resolution in pixels.
"""

from __future__ import annotations

import logging
import threading

import numpy as np

from segface_batch import catalog
from segface_batch.model import engine as engines, weights as weight_files
from segface_batch.model.network import Parsed

log = logging.getLogger(__name__)

#: Crops that go through the network together.  On a CPU more than one gains nothing (pipelines/benchmarks/actors.py);
#: on a GPU 16 fill it at 512 x 512 (not measured on a GPU).
CPU_BATCH, GPU_BATCH = 1, 16


class SegFaceNetwork:
    """Crops -> class ids per pixel.

    `weights` is a local file or any fsspec URL; without it the published file is fetched once from the Hugging Face
    hub.  `device` is auto, cpu or cuda.  `engine` is torch, openvino (on a CPU, with the extra of that name) or auto,
    which takes OpenVINO where it is installed and there is no GPU.  `precision` bf16 is faster than fp32 where the
    device has instructions for it, and not exact.  With `compile` torch compiles the network at the first call, for
    minutes.  `threads` limits the CPU threads of the engine; torch's are the process's own.
    ValueError for an unknown name, OSError where the weights cannot be had.
    """

    def __init__(
        self,
        checkpoint: str = catalog.DEFAULT_CHECKPOINT,
        *,
        weights: str | None = None,
        weights_sha256: str | None = None,
        revision: str | None = None,
        device: str = "auto",
        precision: str = "fp32",
        batch_size: int | None = None,
        threads: int | None = None,
        engine: str = "auto",
        compile: bool = False,
    ) -> None:
        self.checkpoint = catalog.find(checkpoint)
        path = weight_files.locate(self.checkpoint, weights, revision)
        if weights_sha256 is not None:
            weight_files.verify(path, weights_sha256)
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {precision}: choose fp32 or bf16")
        self.engine = "torch" if compile and engine == "auto" else engines.choose(engine, device)
        log.info("%s is run by %s, %s", checkpoint, self.engine, precision)
        if self.engine == "openvino":
            engines.check_openvino(device, compile)
            # Imported here, because each takes seconds and needs its own packages.
            from segface_batch.model.on_openvino import OpenvinoEngine

            self.runs, self.device = OpenvinoEngine(self.checkpoint, path, precision=precision, threads=threads), "cpu"
        else:
            from segface_batch.model.on_torch import TorchEngine

            self.runs = TorchEngine(
                self.checkpoint, path, device=device, precision=precision, threads=threads, compile=compile
            )
            self.device = self.runs.device.type
        self.batch_size = batch_size or (GPU_BATCH if self.device == "cuda" else CPU_BATCH)
        self._one_at_a_time = threading.Lock()  # threads of a worker share the device

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        """(B, R, R, 3) uint8 RGB -> `Parsed`.

        `landmarks` (B, 5, 2) float32 are in pixels of the crop; only LaPa's checkpoints use them.  Batches are filled
        up to `batch_size`, so that the other crops of a batch do not change a crop's rounding.
        """
        parts = [
            self._batch(pixels[first : first + self.batch_size], landmarks, first)
            for first in range(0, len(pixels), self.batch_size)
        ]
        return Parsed(np.concatenate(parts) if parts else np.empty((0, *pixels.shape[1:3]), np.uint8))

    def _batch(self, pixels: np.ndarray, landmarks: np.ndarray | None, first: int) -> np.ndarray:
        count = len(pixels)
        fill = np.arange(self.batch_size) % count
        points = None if landmarks is None else landmarks[first : first + count][fill]
        with self._one_at_a_time:
            finish = self.runs.start(pixels[fill], points)
        return finish()[:count]
