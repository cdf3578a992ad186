"""Networks that cost little, for tests of everything around the network (`annotate --network tests.stand_in:Quick`)."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import numpy as np

from segface_batch import catalog
from segface_batch.job import Job
from segface_batch.model.network import Parsed
from segface_batch.model.segface_network import SegFaceNetwork
from segface_batch.pipeline.resources import Resources

#: An image whose first pixel has this colour tells the networks below what to do with it.
DEADLY, DEADLY_ONCE, SLOW = (1, 1, 1), (2, 2, 2), (3, 3, 3)

#: Where DEADLY_ONCE remembers that it has killed.
MEMORY = "SEGFACE_STAND_IN_MEMORY"

#: Where Counted writes.
LOG = "SEGFACE_STAND_IN_LOG"


class Quick:
    """Labels that follow from the pixels alone."""

    checkpoint = catalog.find("demo-synthetic")
    batch_size = 4

    def __init__(self, job: Job, resources: Resources) -> None: ...

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        for image in pixels:
            first = tuple(image[0, 0].tolist())
            if first == DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            if first == DEADLY_ONCE and not (memory := Path(os.environ[MEMORY])).exists():
                memory.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if first == SLOW:
                time.sleep(0.2)
        return Parsed(pixels[..., 0] % len(self.checkpoint.dataset.classes))


class Told(Quick):
    """All background, or all of the first class where its job has the word secret in it."""

    def __init__(self, job: Job, resources: Resources) -> None:
        self.label = int("secret" in repr(job))

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        return Parsed(np.full(pixels.shape[:3], self.label, np.uint8))


class Counted(Quick):
    """Says in the file $SEGFACE_STAND_IN_LOG who has parsed: host, node, crops and time, a batch a line."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        write_line(len(pixels))
        return super().parse(pixels, landmarks)


class CountedNetwork(SegFaceNetwork):
    """The same with the network of `demo-synthetic`."""

    checkpoint = catalog.find("demo-synthetic")

    def __init__(self, job: Job, resources: Resources) -> None:
        super().__init__("demo-synthetic", device=resources.device, threads=resources.threads, engine="torch")

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        write_line(len(pixels))
        return super().parse(pixels, landmarks)


def write_line(crops: int) -> None:
    import ray

    node = ray.get_runtime_context().get_node_id()
    with open(os.environ[LOG], "a") as file:
        file.write(f"{socket.gethostname()} {node} {crops} {time.time():.3f}\n")


class Free(Quick):
    """One mask for all: everything around the network, next to nothing in it."""

    def parse(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> Parsed:
        return Parsed(np.zeros(pixels.shape[:3], np.uint8))
