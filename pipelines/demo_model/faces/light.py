"""Light from 40 directions around the head: a sky and up to three lamps, with shadows of skin, hat and hair.

Everything is in view: z is towards the camera.  D directions, V vertices, N places.
"""

from __future__ import annotations

import numpy as np

from pipelines.demo_model.faces import kernels
from pipelines.demo_model.faces.fields import column, unit

COUNT = 40

#: From the face to the camera.
TO_CAMERA = np.array([0, 0, 1.0])

#: Shadow maps: cells a side, half side in dm, and the point in view that they are centred on.
SHADOW_CELLS, SHADOW_REACH, SHADOW_CENTER = 120, np.float32(3.6), np.array([0, -0.3, -0.6], np.float32)

#: How far something may lie over a place before it shades it, and how much farther takes 63 % of the light, dm: skin
#: soon, strands of hair slowly, as light goes through them.
SHADOW_SLACK, SKIN_FALL, HAIR_FALL = 0.07, 0.06, 0.16

#: Light that wraps around skin from below the surface, of red, green and blue.
SKIN_WRAP = (0.38, 0.18, 0.1)

#: Brings a face under an average environment to a middle brightness.
EXPOSURE = 2.2


def _even_directions(count: int) -> np.ndarray:
    """(count, 3) unit vectors along a Fibonacci spiral."""
    i = np.arange(count) + 0.5
    polar = np.arccos(1 - 2 * i / count)
    around = np.pi * (1 + 5**0.5) * i
    return np.stack([np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)], 1)


class Light:
    """A random environment: `energy` (D, 3) comes from `directions` (D, 3); `key` (3,) points to the first lamp."""

    directions = _even_directions(COUNT)

    def __init__(self, rng: np.random.Generator) -> None:
        sky, ground = rng.uniform(0.15, 1.0), rng.uniform(0.02, 0.5)
        colored = rng.random() < 0.18

        def tint() -> np.ndarray:
            if colored:
                return rng.uniform(0.25, 1.0, 3)
            return np.array([1, rng.uniform(0.82, 1.02), rng.uniform(0.65, 1.1)])

        from_above = self.directions[:, 1:2] * 0.5 + 0.5
        dimmest = 0.3, 0.06
        ambient = (ground + (sky - ground) * from_above) * tint()
        self.energy: np.ndarray = ambient * rng.uniform(dimmest[0] if rng.random() < 0.75 else dimmest[1], 1.0)
        lamps = []
        for _ in range(rng.integers(1, 4)):
            lamp = rng.normal(0, 1, 3)
            lamp[1] = abs(lamp[1]) * 0.8
            lamp[2] = abs(lamp[2]) * 0.9 + (0.2 if rng.random() < 0.85 else -1.0)
            lamp = unit(lamp)
            sharpness = rng.uniform(3, 14) if rng.random() < 0.8 else rng.uniform(14, 40)
            lobe = np.exp(sharpness * (self.directions @ lamp - 1))
            self.energy = self.energy + column(lobe) * rng.uniform(0.5, 3.0) * tint()
            lamps.append(lamp)
        self.key: np.ndarray = lamps[0]

    @property
    def mean(self) -> np.ndarray:
        """(3,) the mean energy."""
        return self.energy.mean(0)

    @property
    def brightest(self) -> np.ndarray:
        """(6,) the strongest directions, first the strongest: those that make highlights."""
        return np.argsort(-self.energy.sum(1))[:6]

    def visible(self, vertices: np.ndarray, triangles: np.ndarray, hair: np.ndarray) -> np.ndarray:
        """(V + N, D) float32, 0 to 1: how much of each direction reaches the vertices (V, 3) and hair points (N, 3)."""
        places = np.concatenate([vertices, hair])
        fall = np.where(np.arange(len(places)) < len(vertices), SKIN_FALL, HAIR_FALL)
        visible = np.ones((len(places), COUNT), np.float32)
        for j, direction in enumerate(self.directions):
            up = np.array([0, 1, 0]) if abs(direction[1]) < 0.9 else np.array([1, 0, 0])
            x = unit(np.cross(up, direction))
            frame = np.stack([x, np.cross(direction, x), direction], 1).astype(np.float32)
            seen = ((places - SHADOW_CENTER) @ frame).astype(np.float32)
            cells = (seen[:, :2] / SHADOW_REACH * 0.5 + 0.5) * SHADOW_CELLS
            height = seen[:, 2]
            highest = np.full((SHADOW_CELLS, SHADOW_CELLS), -99, np.float32)
            kernels.triangle_heights(cells[: len(vertices)], height[: len(vertices)], triangles, highest)
            kernels.point_heights(cells[len(vertices) :], height[len(vertices) :], highest)
            over = kernels.bilinear(highest, cells[:, 1] - 0.5, cells[:, 0] - 0.5)
            visible[:, j] = np.exp(-np.maximum(0, over - height - SHADOW_SLACK) / fall)
        return visible

    def on_skin(self, normals: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Irradiance (V, 3) of skin, where light wraps around, and (V, 3) of a hard surface."""
        facing = normals @ self.directions.T

        def irradiance(wrap: float) -> np.ndarray:
            lit = visible * np.maximum(0, (facing + wrap) / (1 + wrap))
            return lit @ self.energy / COUNT * EXPOSURE

        soft = np.stack([irradiance(wrap)[:, channel] for channel, wrap in enumerate(SKIN_WRAP)], 1)
        return soft, irradiance(0.0)

    def highlights(
        self, normals: np.ndarray, visible: np.ndarray, shine: np.ndarray, sharpness: np.ndarray
    ) -> np.ndarray:
        """(N, 3) mirrored light, by normals (N, 3), visible (N, 6) of the brightest, shine and sharpness (N,)."""
        total = np.zeros((len(normals), 3))
        for j, t in enumerate(self.brightest):
            direction = self.directions[t]
            lobe = np.clip(normals @ unit(direction + TO_CAMERA), 0, 1) ** sharpness * (sharpness + 2) / 8 * shine
            weight = lobe * visible[:, j] * np.clip(normals @ direction, 0, 1)
            total += column(weight) * self.energy[t] * 0.55
        grazing = shine * 0.25 * (1 - np.clip(normals[:, 2], 0, 1)) ** 3
        return total + column(grazing) * self.mean
