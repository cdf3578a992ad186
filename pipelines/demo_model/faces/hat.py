"""A hat: rings of vertices over the skull, a peak or a brim, and the hair that it hides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.demo_model.faces.hair import Hair
from pipelines.demo_model.faces.head import Person
from pipelines.demo_model.faces.reach import Reach

#: What a hat's triangles are marked with, beside the parts of head.py.
HAT = 10

#: Rings from the crown to the edge, and vertices of a ring.
RINGS, AROUND = 14, 40


@dataclass(frozen=True)
class Hat:
    vertices: np.ndarray  # (V, 3) float32, on the head before it turns
    triangles: np.ndarray  # (T, 3)
    hidden: np.ndarray | None  # (S, K) bool: points of strands that lie under the hat


def random_hat(rng: np.random.Generator, person: Person, hair: Hair, reach: Reach) -> Hat:
    """A cap, a beanie or a hat with a brim, its edge above the eyes and lower behind."""
    kind = str(rng.choice(["cap", "beanie", "brim"]))
    edge_y = person.eyes[1] + rng.uniform(0.32, 0.55)
    slope = rng.uniform(-0.02, 0.22)
    over_hair = 0.06 if hair.style in ("curly", "long", "medium") else 0
    thickness = rng.uniform(0.05, 0.14) + over_hair

    def edge(around: np.ndarray) -> np.ndarray:
        return edge_y - slope * (1 - np.cos(around)) * 1.2

    around = np.linspace(-np.pi, np.pi, AROUND, endpoint=False)
    down = np.linspace(0, 1, RINGS)[:, None]
    lowest = np.pi / 2 - np.arctan2(edge(around) - reach.middle[1], 0.85)
    from_top = down * lowest
    distance = reach.of_skull(from_top, np.broadcast_to(around, from_top.shape)) + thickness
    if kind != "beanie":
        distance += 0.10 * np.sin(np.pi * np.minimum(1, (1 - down) * 1.3))
    outwards = np.stack(
        [
            np.sin(from_top) * np.sin(around),
            np.cos(from_top),
            np.sin(from_top) * np.cos(around),
        ],
        -1,
    )
    rings = reach.middle + distance[:, :, None] * outwards
    if kind != "beanie":
        if kind == "cap":
            width = 0.75 * np.maximum(0, np.cos(around)) ** 0.6
            drop = 0.12 * width
        else:
            width = 0.55 * rng.uniform(0.95, 1.05, AROUND)
            drop = np.full(AROUND, 0.05)
        forwards = np.stack([np.sin(around), np.zeros(AROUND), np.cos(around)], 1)
        brim = rings[-1] + forwards * width[:, None] - drop[:, None] * np.array([0, 1, 0])
        rings = np.concatenate([rings, brim[None]])

    hidden = None
    if hair.strands is not None:
        away = hair.strands - reach.middle
        hidden = hair.strands[..., 1] > edge(np.arctan2(away[..., 0], away[..., 2])) + 0.02
    return Hat(rings.reshape(-1, 3).astype(np.float32), _between(len(rings)), hidden)


def _between(rings: int) -> np.ndarray:
    """(T, 3) two triangles for every square between two rings."""
    ring, column = np.mgrid[0 : rings - 1, 0:AROUND].reshape(2, -1)
    a = ring * AROUND + column
    b = ring * AROUND + (column + 1) % AROUND
    below_a, below_b = a + AROUND, b + AROUND
    return np.stack([a, below_a, b, b, below_a, below_b], 1).reshape(-1, 3)
