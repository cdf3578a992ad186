"""A SegFace checkpoint as a `Network`: it finds and checks the weights and runs them on an engine.

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
#: 16 should fill a GPU at 512 x 512 (not measured on a GPU).
CPU_BATCH, GPU_BATCH = 1, 16


class SegFaceNetwork:
    """Crops -> class ids per pixel.

    `weights` is a local file or any fsspec URL; without it the published file is fetched once from the Hugging Face
    hub.  `device` is auto, cpu or cuda.  `engine` is torch, openvino (on a CPU, with the extra of that name) or auto,
    which is OpenVINO where it is installed and there is no GPU.  `precision` bf16 is faster than fp32 where the device
    has instructions for it, and not exact.  With `compile` torch compiles the network at the first call, which takes
    minutes.  `threads` limits the CPU threads of the engine (torch: of the whole process).  With `confidence_map` the
    confidence has `margins`.
    ValueError for an unknown name, OSError where the weights cannot be found or fetched.
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
        confidence_map: bool = False,
    ) -> None:
        self.checkpoint = catalog.find(checkpoint)
        path = weight_files.locate(self.checkpoint, weights, revision)
        if weights_sha256 is not None:
            weight_files.verify(path, weights_sha256)
        if precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {precision}: choose fp32 or bf16")
        self.engine = "torch" if compile and engine == "auto" else engines.choose(engine, device)
        log.info("%s runs on %s, %s", checkpoint, self.engine, precision)
        if self.engine == "openvino":
            engines.check_openvino(device, compile)
            # Imported here: each engine takes seconds and needs packages of its own.
            from segface_batch.model.on_openvino import OpenvinoEngine

            self._runner = OpenvinoEngine(
                self.checkpoint, path, precision=precision, threads=threads, confidence_map=confidence_map
            )
            self.device = "cpu"
        else:
            from segface_batch.model.on_torch import TorchEngine

            self._runner = TorchEngine(
                self.checkpoint,
                path,
                device=device,
                precision=precision,
                threads=threads,
                compile=compile,
                confidence_map=confidence_map,
            )
            self.device = self._runner.device.type
        self.batch_size = batch_size or (GPU_BATCH if self.device == "cuda" else CPU_BATCH)
        self._one_at_a_time = threading.Lock()  # threads may share a FaceParser

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        """(B, R, R, 3) uint8 RGB -> `Parsed`; only LaPa's checkpoints use `landmarks` (B, 5, 2) float32.

        Every batch has `batch_size` crops, so that a crop's rounding does not depend on how many come with it.
        """
        parts = [
            self._parse(np.arange(first, first + self.batch_size) % len(pixels), pixels, landmarks)
            for first in range(0, len(pixels), self.batch_size)
        ]
        empty = np.empty((0, *pixels.shape[1:3]), np.uint8)
        labels = np.concatenate([empty, *(part.labels for part in parts)])[: len(pixels)]
        confidence = [each for part in parts for each in part.confidence or ()]
        return Parsed(labels, confidence[: len(pixels)])

    def _parse(self, chosen: np.ndarray, pixels: np.ndarray, landmarks: np.ndarray | None) -> Parsed:
        """`Parsed` of the crops with these indices."""
        with self._one_at_a_time:
            finish = self._runner.start(pixels[chosen], None if landmarks is None else landmarks[chosen])
        return finish()
