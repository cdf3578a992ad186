"""The protocol between pipeline and network: crops in, class ids out.

`segface_network.SegFaceNetwork` runs the SegFace checkpoints; `annotate --network MODULE:FACTORY` runs any other, for
example pipelines/own_network.py.

B: batch; R: side of a crop in pixels.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from segface_batch.catalog import Checkpoint
from segface_batch.class_tables import check_classes

if TYPE_CHECKING:
    import numpy as np

    from segface_batch.images.confidence import Confidence


@dataclass(frozen=True)
class Parsed:
    """The result for a batch: `labels` (B, R, R) uint8 class ids, and the `confidence` of each mask, None where the
    network tells none."""

    labels: np.ndarray
    confidence: Sequence[Confidence] | None = None

    def masks(self) -> Iterator[tuple[np.ndarray, Confidence | None]]:
        """Labels (R, R) and confidence of each."""
        told = [None] * len(self.labels) if self.confidence is None else self.confidence
        return zip(self.labels, told, strict=True)


class NetworkFactory(Protocol):
    """Makes a network; a class of networks with an attribute `checkpoint` is one."""

    checkpoint: Checkpoint

    def __call__(self, job: Any, resources: Any) -> Network:
        """`job` is the run's `Job`, `resources` are its worker's (pipeline.resources.Resources)."""
        ...


class Network(Protocol):
    """One per worker process; several threads call it, one at a time."""

    @property
    def checkpoint(self) -> Checkpoint:
        """Its name, the side R of its crops, and its class table."""
        ...

    @property
    def batch_size(self) -> int:
        """The most crops that `parse` gets at once."""
        ...

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        """(B, R, R, 3) uint8 RGB -> the class of every pixel.

        `landmarks` (B, 5, 2) float32, in pixels of the crop, come with class tables whose `landmarks` are "five"."""
        ...


@cache
def factory(place: str) -> NetworkFactory:
    """The factory that MODULE:FACTORY names; ValueError, in one line with a hint, where there is none."""
    if not re.fullmatch(r"[\w.]+:\w+", place):
        raise ValueError(f"--network {place}: give MODULE:FACTORY, like my_package.networks:MyNetwork")
    module, _, name = place.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"--network {place}: {error}; give a module on PYTHONPATH and a name in it") from None
    if not isinstance(getattr(found, "checkpoint", None), Checkpoint):
        raise ValueError(
            f"--network {place} has no attribute `checkpoint`: give it a segface_batch.catalog.Checkpoint with its "
            "name, resolution and class table"
        )
    check_classes(found.checkpoint.dataset, f"--network {place}")
    return found
