"""Weights from a rule: every tensor of a published file, filled from its name and shape alone.

`data/reference` holds what the official code computes with these weights, so that a loader and a network that
reproduce it understand every tensor.  `python -m tests.filled NAME FOLDER` writes such a file.

The rule (which anyone can write again): the raw 64-bit numbers of PCG64, seeded by the CRC-32 of the tensor's name,
become uniform values with mean zero and variance one, which are then scaled by what the tensor is for.  float64
throughout, stored as float32.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

REFERENCE = Path(__file__).parent / "data" / "reference"

#: (pattern of the whole name, offset, scale), the first that fits; the scale of a weight is divided by sqrt(fan in).
_RULES = (
    (r".*\.running_var", 1.0, 0.25),
    (r".*\.running_mean", 0.0, 0.1),
    (r".*\.layer_scale", 0.3, 0.05),
    (r".*\.logit_scale", 2.3, 1.5),
    (r".*\.relative_position_bias_table", 0.0, 0.5),
    (r".*\.bias", 0.0, 0.1),
)


def record(name: str) -> dict:
    """What is known of a checkpoint: "tensors" (name -> shape, dtype, kind, filled_crc32), "unused_by_inference" and
    "derived" (names)."""
    return json.loads((REFERENCE / "checkpoints" / f"{name}.json").read_text())


def filled(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The value of the tensor with that official name, float32 (int64 for counters and indices)."""
    last = key.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    if last == "relative_position_index":
        return _relative_position_index(shape)
    if last == "relative_coords_table":
        return _relative_coords_table(shape)
    count = math.prod(shape)
    if last == "positional_encoding_gaussian_matrix":
        values = _uniform(key, 12 * count).reshape(count, 12).sum(axis=1) - 6.0
    else:
        offset, scale = _offset_and_scale(key, shape)
        values = scale * ((2.0 * _uniform(key, count) - 1.0) * math.sqrt(3.0))
        values += offset
    return values.reshape(shape).astype(np.float32)


def state(name: str) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint by their official names."""
    return {key: torch.from_numpy(filled(key, tuple(entry["shape"]))) for key, entry in record(name)["tensors"].items()}


def published_file(name: str, folder: Path) -> Path:
    """`folder/NAME/model_299.pt` in the layout of the published files; written when it is not there yet.

    Checkpoints that differ in their resolution alone have the same tensors, and share one file on the disk.
    """
    path = folder / name / "model_299.pt"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    twins = folder.glob(f"{name.rsplit('_', 1)[0]}_*/model_299.pt")
    if twin := next(twins, None):
        os.link(twin, path)
        return path
    published = {
        "epoch": 299,
        "iteration": 0,
        "state_dict_backbone": state(name),
        "optimizer": {"state": {}, "param_groups": []},
        "scheduler": {"last_epoch": 299},
    }
    unfinished = path.with_suffix(f".{os.getpid()}")
    torch.save(published, unfinished)
    unfinished.replace(path)
    return path


def checksum(value: np.ndarray) -> int:
    """The CRC-32 that `record` gives for a filled tensor."""
    return zlib.crc32(np.ascontiguousarray(value).tobytes())


def _uniform(key: str, count: int) -> np.ndarray:
    raw = np.random.PCG64(zlib.crc32(key.encode())).random_raw(count)
    return (raw >> np.uint64(11)) * 2.0**-53


def _offset_and_scale(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for pattern, offset, scale in _RULES:
        if re.fullmatch(pattern, key):
            return offset, scale
    if len(shape) == 1:
        return 1.0, 0.1
    if key.endswith("_token.weight"):
        return 0.0, 1.0
    fan_in = shape[0] if ".output_upscaling." in key else math.prod(shape[1:])
    return 0.0, _gain(key, shape) / math.sqrt(fan_in)


def _gain(key: str, shape: tuple[int, ...]) -> float:
    if ".output_hypernetwork_mlps." in key:
        return 1.7
    if len(shape) != 4 or not key.startswith("backbone."):
        return 1.0
    if key.endswith(".conv3.weight"):
        return 0.4
    return 0.65 if shape[2:] == (1, 1) and shape[0] < shape[1] else 1.4


def _relative_position_index(shape: tuple[int, ...]) -> np.ndarray:
    """For every pair of places in a window, the row of the bias table that belongs to their distance."""
    window = math.isqrt(math.isqrt(shape[0]))
    rows, columns = np.divmod(np.arange(window * window), window)
    down = rows[:, None] - rows + window - 1
    right = columns[:, None] - columns + window - 1
    return (down * (2 * window - 1) + right).reshape(shape).astype(np.int64)


def _relative_coords_table(shape: tuple[int, ...]) -> np.ndarray:
    """Swin V2: all distances in a window on a logarithmic scale."""
    window = (shape[1] + 1) // 2
    steps = np.arange(1 - window, window, dtype=np.float32) / np.float32(window - 1) * np.float32(8)
    curve = np.sign(steps) * np.log2(np.abs(steps) + np.float32(1)) / np.float32(3)
    return np.stack(np.meshgrid(curve, curve, indexing="ij"), axis=-1).reshape(shape).astype(np.float32)


def main(name: str, folder: str) -> None:
    print(published_file(name, Path(folder)))


if __name__ == "__main__":
    main(*sys.argv[1:])
