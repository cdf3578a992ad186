"""What the official code computed for the filled weights, against ours, stage by stage.

    python -m tests.programs.parity_table [CHECKPOINT ...]

prints one Markdown row per checkpoint (all 14 without names; a few minutes, 400 MB of disk).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segface_batch.catalog import PUBLISHED, Checkpoint
from segface_batch.images.crop import Crop, crop_image
from segface_batch.model import warp, weights
from segface_batch.model.segface import SegFace, depth_to_space, normalised
from tests import filled


@dataclass(frozen=True)
class Golden:
    """The official outputs for two images: `arrays` as in golden/NAME.npz, `meta` about them."""

    arrays: dict[str, np.ndarray]
    meta: dict

    def difference(self, stage: str, ours: Tensor) -> float:
        """The largest difference of a stage (B, C, H, W), on the channels, rows and columns that are stored."""
        assert tuple(self.arrays[f"{stage}_shape"]) == tuple(ours.shape), stage
        channels, rows, columns = (self.arrays[f"{stage}_{axis}"] for axis in ("channels", "rows", "cols"))
        return largest(ours.numpy()[:, channels[:, None, None], rows[:, None], columns], self.arrays[f"{stage}_sample"])

    @property
    def safe(self) -> np.ndarray:
        """(B, R, R) bool: pixels whose best class leads by more than 0.02."""
        return np.unpackbits(self.arrays["safe_packed"], axis=-1, count=self.arrays["mask"].shape[-1]).astype(bool)


def largest(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours.astype(np.float64) - theirs).max())


def golden(name: str) -> Golden:
    with np.load(filled.REFERENCE / "golden" / f"{name}.npz") as stored:
        arrays = dict(stored)
    return Golden(arrays, json.loads(str(arrays.pop("meta"))))


def notes() -> dict[str, dict]:
    """Per image: width, height, lapa_landmarks_106, helen_landmarks_68_doubled."""
    return json.loads((filled.REFERENCE / "images" / "annotations.json").read_text())["pictures"]


def image(name: str) -> Image.Image:
    return Image.open(filled.REFERENCE / "images" / f"{name}.png").convert("RGB")


def crop(checkpoint: Checkpoint, name: str) -> Crop:
    """An image cropped for a checkpoint, with the points of its annotations."""
    note = notes()[name]
    points = {
        "": None,
        "five": np.array(note["lapa_landmarks_106"]),
        "68": np.array(note["helen_landmarks_68_doubled"]) / 2,
    }
    return crop_image(image(name), checkpoint, points[checkpoint.dataset.landmarks])


def inputs(checkpoint: Checkpoint, names: list[str]) -> tuple[Tensor, Tensor | None]:
    """The normalised pixels of some images, and their landmarks where the network takes them."""
    crops = [crop(checkpoint, name) for name in names]
    landmarks = [one.landmarks for one in crops if one.landmarks is not None]
    pixels = normalised(torch.from_numpy(np.stack([one.pixels for one in crops])))
    return pixels, torch.from_numpy(np.stack(landmarks)) if landmarks else None


@torch.inference_mode()
def stages(network: SegFace, pixels: Tensor, landmarks: Tensor | None) -> dict[str, Tensor]:
    """Everything on the way to the logits, by the names in the golden files."""
    found: dict[str, Tensor] = {"input": pixels}
    back = None
    if network.aligned:
        assert landmarks is not None
        there, back = warp.grids(landmarks, pixels.shape[-1])
        pixels = warp.sampled(pixels, there)
        found |= {"warp_grid": there.permute(0, 3, 1, 2), "inverse_grid": back.permute(0, 3, 1, 2)}
        found["warped_input"] = pixels
    maps = network.backbone(pixels)
    found |= {f"feature{n}": features for n, features in enumerate(maps)}
    fused = network.fuse(maps)
    code = network.pe_layer(*fused.shape[1:3])
    found |= {"fused": fused.permute(0, 3, 1, 2), "position_code": code.permute(2, 0, 1)[None]}
    decoder = network.face_decoder
    tokens, features = decoder.transformer(decoder.class_tokens(), fused.flatten(1, 2), code.flatten(0, 1))
    upscaled = decoder.output_upscaling(features).unflatten(1, fused.shape[1:3])
    found |= {"tokens": tokens, "hyper": decoder.output_hypernetwork_mlps(tokens), "upscaled": depth_to_space(upscaled)}
    logits = depth_to_space(decoder(fused, code))
    if back is not None:
        found["decoder_logits"] = logits
        logits = warp.sampled(logits, back)
    return found | {"logits": logits}


@dataclass(frozen=True)
class Parity:
    """`differences`: the largest per stage; then pixels of our mask that differ from theirs, of all and of the safe
    ones, and that differ from the argmax of our own logits."""

    differences: dict[str, float]
    pixels: int
    different: int
    safe_different: int
    argmax_different: int


def parity(network: SegFace, name: str) -> Parity:
    """How far the network is from what the official code computed for that checkpoint."""
    theirs = golden(name)
    pixels, landmarks = inputs(PUBLISHED[name], theirs.meta["pictures"])
    ours = stages(network, pixels, landmarks)
    argmax = ours["logits"].argmax(dim=1).numpy()
    tokens = ours.pop("tokens")[..., ::8].numpy()
    differences = {
        "tokens": largest(tokens, theirs.arrays["tokens"]),
        "hyper": largest(ours.pop("hyper").numpy(), theirs.arrays["hyper"]),
        **{stage: theirs.difference(stage, value) for stage, value in ours.items()},
    }
    with torch.inference_mode():
        mask = network.classes(pixels, landmarks).numpy()
    assert mask.dtype == np.uint8
    wrong = mask != theirs.arrays["mask"]
    counts = (int(pixels.sum()) for pixels in (wrong, wrong[theirs.safe], mask != argmax))
    return Parity(differences, wrong.size, *counts)


def main(names: list[str]) -> None:
    print("| checkpoint | largest logit difference | mask pixels differing | of | safe pixels differing | seconds |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in names or PUBLISHED:
            began = time.monotonic()
            path = filled.published_file(name, Path(folder))
            result = parity(weights.load(PUBLISHED[name], path), name)
            path.unlink()
            figures = f"{result.differences['logits']:.1e} | {result.different} | {result.pixels}"
            seconds = f"{time.monotonic() - began:.1f}"
            print(f"| {name} | {figures} | {result.safe_different} | {seconds} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
