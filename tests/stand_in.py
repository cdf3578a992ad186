"""Parsers that cost little, for tests of everything around the network (`annotate --parser tests.stand_in:Quick`)."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np

from segface_batch import catalog, metrics
from segface_batch.parse import ParseUnits, Prepared

#: The side of a picture's first pixel, as a colour, tells the parsers below what to do with it.
DEADLY, DEADLY_ONCE, SLOW = (1, 1, 1), (2, 2, 2), (3, 3, 3)

#: Where DEADLY_ONCE remembers that it has killed.
MEMORY = "SEGFACE_STAND_IN_MEMORY"

#: Where Counted writes.
LOG = "SEGFACE_STAND_IN_LOG"


class Network:
    """Labels that follow from the pixels alone."""

    batch_size = 4

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = catalog.find(checkpoint)

    def labels(self, pixels: np.ndarray, landmarks: np.ndarray | None = None) -> np.ndarray:
        for picture in pixels:
            first = tuple(picture[0, 0].tolist())
            if first == DEADLY:
                os.kill(os.getpid(), signal.SIGKILL)
            if first == DEADLY_ONCE and not (memory := Path(os.environ[MEMORY])).exists():
                memory.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if first == SLOW:
                time.sleep(0.2)
        return pixels[..., 0] % len(self.checkpoint.dataset.classes)


class Quick(ParseUnits):
    """Everything but the network."""

    @staticmethod
    def load(parser: dict[str, Any]) -> Network:
        return Network(parser["checkpoint"])


class CountedNetwork(ParseUnits):
    """Says in the file $SEGFACE_STAND_IN_LOG who has parsed: host, node, unit, pictures and time, a unit a line."""

    def _rows(self, pictures: list[dict[str, Any]], seconds: metrics.Seconds) -> list[dict[str, Any]]:
        import ray

        rows = super()._rows(pictures, seconds)
        node = ray.get_runtime_context().get_node_id()
        with open(os.environ[LOG], "a") as file:
            file.write(f"{socket.gethostname()} {node} {rows[0]['unit']} {len(pictures)} {time.time():.3f}\n")
        return rows


class Counted(Quick, CountedNetwork):
    """The same without a network."""


class Free(Quick):
    """Neither decodes nor encodes: one mask for all."""

    def _rows(self, pictures: list[dict[str, Any]], seconds: metrics.Seconds) -> list[dict[str, Any]]:
        from segface_batch.parse import ok_row

        if not hasattr(self, "row"):
            from segface_batch.inputs.framing import Framed

            side = self.parser.checkpoint.resolution
            framed = Framed(np.zeros((side, side, 3), np.uint8), None, (0, 0, side, side))
            mask = np.zeros((side, side), np.uint8)
            row = ok_row(pictures[0], Prepared(side, side, 1), framed, mask, self.dataset.class_names)
            self.row = {name: value for name, value in row.items() if name not in pictures[0]}
        kept = ("image_id", "uri", "unit", "seq")
        return [{name: picture[name] for name in kept} | self.row for picture in pictures]
