"""`FaceParser`: a SegFace checkpoint as a plain object, and as the function of a Ray Data `map_batches`.

B pictures, R the checkpoint's resolution, C its classes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from segface_batch import catalog
from segface_batch.inputs.framing import frame
from segface_batch.model import engine as engines, weights as weight_files
from segface_batch.output.statistics import class_pixels

log = logging.getLogger(__name__)

#: Pictures that go through the network together.  On a CPU more than one gains nothing (pipelines/measure_actors.py);
#: on a GPU 16 fill it at 512 x 512 (not measured on a GPU).
CPU_BATCH, GPU_BATCH = 1, 16


class FaceParser:
    """Face pictures -> class ids per pixel.

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
        self._one_at_a_time = threading.Lock()  # threads of an actor share the device

    def labels(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        """(B, R, R, 3) uint8 RGB, framed -> (B, R, R) uint8 class ids.

        `landmarks` (B, 5, 2) float32 are in pixels of the frame; only LaPa's checkpoints use them.  Batches are
        filled up to `batch_size`, so that what a picture's neighbours are does not change its rounding.
        """
        parts = [
            self._batch(pixels[first : first + self.batch_size], landmarks, first)
            for first in range(0, len(pixels), self.batch_size)
        ]
        return np.concatenate(parts) if parts else np.empty((0, *pixels.shape[1:3]), np.uint8)

    def _batch(self, pixels: np.ndarray, landmarks: np.ndarray | None, first: int) -> np.ndarray:
        count = len(pixels)
        fill = np.arange(self.batch_size) % count
        points = None if landmarks is None else landmarks[first : first + count][fill]
        with self._one_at_a_time:
            finish = self.runs.start(pixels[fill], points)
        return finish()[:count]

    def parse(
        self, images: Iterable[np.ndarray | Image.Image], landmarks: Sequence[np.ndarray] | None = None
    ) -> np.ndarray:
        """RGB pictures of any sizes, (H, W, 3) uint8 or Pillow -> (B, R, R) uint8 class ids.

        A mask covers its whole picture (Helen: the square around the landmarks), scaled to R x R.  `landmarks`, for
        LaPa and Helen, hold (N, 2) points in pixels of each picture.  FramingError where they are missing or wrong.
        """
        pictures = [image if isinstance(image, Image.Image) else Image.fromarray(image) for image in images]
        points = [None] * len(pictures) if landmarks is None else landmarks
        frames = [frame(p.convert("RGB"), self.checkpoint, q) for p, q in zip(pictures, points, strict=True)]
        side = self.checkpoint.resolution
        pixels = np.stack([f.pixels for f in frames]) if frames else np.empty((0, side, side, 3), np.uint8)
        fives = [f.landmarks for f in frames if f.landmarks is not None]
        return self.labels(pixels, np.stack(fives) if fives else None)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A Ray Data batch with a column `image` -> the same with `mask` (B, R, R), px_<class> and frac_<class>.

        Checkpoints that need landmarks read them from the column `landmarks` (B, N, 2).
        """
        points = batch.get("landmarks") if self.checkpoint.dataset.landmarks else None
        masks = self.parse(batch["image"], None if points is None else list(points))
        names = self.checkpoint.dataset.class_names
        pixels = np.stack([class_pixels(mask, len(names)) for mask in masks])
        columns = {"mask": masks}
        columns |= {f"px_{name}": pixels[:, index] for index, name in enumerate(names)}
        columns |= {f"frac_{name}": (pixels[:, i] / masks[0].size).astype(np.float32) for i, name in enumerate(names)}
        return {**batch, **columns}
