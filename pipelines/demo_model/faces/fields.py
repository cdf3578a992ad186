"""Numbers by place: smooth steps, unit vectors, and noise in space."""

from __future__ import annotations

import numpy as np

from pipelines.demo_model.faces import kernels


def smoothstep(start: float, end: float, x: np.ndarray) -> np.ndarray:
    """0 before start, 1 after end, smooth between; start may be the greater one."""
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def unit(vectors: np.ndarray, least: float = 0.0) -> np.ndarray:
    """The vectors (..., 3) at length 1; `least` is added to their length where it may be 0."""
    return vectors / (np.linalg.norm(vectors, axis=-1, keepdims=True) + least)


def column(values: np.ndarray) -> np.ndarray:
    """(N,) -> (N, 1), to weigh (N, 3)."""
    return values[:, None]


class Noise:
    """Smooth random numbers in space, the same wherever the same place is asked for again."""

    #: Side of the cube of random numbers; the pattern repeats after 24 / frequency dm.
    CELLS = 24

    def __init__(self, rng: np.random.Generator) -> None:
        self._cube = rng.standard_normal((self.CELLS, self.CELLS, self.CELLS)).astype(np.float32)

    def __call__(self, places: np.ndarray, frequency: float, octaves: int = 1) -> np.ndarray:
        """(N, 3) places -> (N,) float32, mean 0, of frequency random numbers to the dm."""
        return kernels.value_noise(self._cube, np.asarray(places, np.float32), frequency, octaves)
