"""One image in the making: who is in it, seen from where, in which light, and what has been drawn so far.

H, W are rows and columns of the canvas, which is larger than the finished image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.demo_model.faces import kernels
from pipelines.demo_model.faces.hair import Hair
from pipelines.demo_model.faces.hat import Hat
from pipelines.demo_model.faces.head import Head, Person
from pipelines.demo_model.faces.light import TO_CAMERA, Light
from pipelines.demo_model.faces.reach import Reach
from pipelines.demo_model.faces.view import Camera, Pose
from segface_batch.catalog import CELEBAMASK_HQ

#: Class ids by name.  Of a pair, "l_" is the one at the left of the image when the face looks at the camera.
CLASS = {name: index for index, name in enumerate(CELEBAMASK_HQ.class_names)}


@dataclass
class Canvas:
    """What has been drawn; everything new is drawn over it, or behind what is nearer."""

    image: np.ndarray  # (H, W, 3) float64, linear light
    labels: np.ndarray  # (H, W) uint8
    depth: np.ndarray  # (H, W) float32, inverse depth, 0 for what has none
    coverage: np.ndarray  # (H, W) float32, how much of a pixel strands cover since they were last counted


@dataclass(frozen=True)
class Scene:
    rng: np.random.Generator
    head: Head
    person: Person
    hair: Hair
    reach: Reach
    hat: Hat | None
    pose: Pose
    camera: Camera
    light: Light
    canvas: Canvas

    def strands(
        self, in_view: np.ndarray, color: np.ndarray, width: np.ndarray, label: int, nearer: float = 1.0
    ) -> None:
        """Draws strands (S, K, 3) of color (S, K, 3) and width (S, K) in pixels; nearer > 1 lifts them off the skin."""
        xy, inverse_depth = self.camera.project(in_view.astype(np.float32))
        canvas = self.canvas
        kernels.ribbons(
            xy, inverse_depth * nearer, color, width, canvas.depth, canvas.image, canvas.labels, canvas.coverage, label
        )

    def wire(self, points: np.ndarray, thickness: float, color: np.ndarray, label: int) -> None:
        """Draws a wire through turned points (K, 3), thickness in dm, with a glitter along it."""
        glitter = self.rng.uniform(0.4, 1.6, (1, len(points), 1))
        width = np.full((1, len(points)), thickness * self.camera.pixels_per_dm)
        self.strands(self.camera.view(points)[None], color * self.light.mean * 2 * glitter, width, label, 1.0005)

    def ball(self, center: np.ndarray, radius: float, color: np.ndarray, label: int) -> None:
        """Draws a polished ball at a turned point (3,), radius in dm."""
        canvas, key = self.canvas, self.light.key
        (x0, y0), inverse_depth = (found[0] for found in self.camera.project(self.camera.view(center[None])))
        r = radius * self.camera.pixels_per_dm
        nearest = 1 / (1 / inverse_depth - radius)
        height, width = canvas.depth.shape
        rows = slice(max(0, int(y0 - r)), max(0, min(height, int(y0 + r) + 2)))
        columns = slice(max(0, int(x0 - r)), max(0, min(width, int(x0 + r) + 2)))
        dx = ((np.arange(width, dtype=np.float32)[columns] + 0.5 - x0) / r)[None, :]
        dy = ((y0 - np.arange(height, dtype=np.float32)[rows] - 0.5) / r)[:, None]
        square = dx * dx + dy * dy
        seen = (square < 1) & (nearest > canvas.depth[rows, columns])
        dx, dy = (np.broadcast_to(part, square.shape)[seen] for part in (dx, dy))
        normals = np.stack([dx, dy, np.sqrt(1 - square[seen])], 1)
        halfway = (key + TO_CAMERA) / np.linalg.norm(key + TO_CAMERA)
        diffuse = 0.25 + 0.9 * np.maximum(0, normals @ key)
        mirrored = np.maximum(0, normals @ halfway) ** 40 * 1.5
        canvas.image[rows, columns][seen] = color * diffuse[:, None] * self.light.mean * 2 + mirrored[:, None]
        canvas.labels[rows, columns][seen] = label
        canvas.depth[rows, columns][seen] = nearest
