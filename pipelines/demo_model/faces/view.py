"""How the head is turned, and where the camera stands.

"Turned" is a place after the head has moved on its neck; "in view" is the camera's frame, dm, x to the right of the
image, y up, z towards the camera.
"""

from __future__ import annotations

import numpy as np

from pipelines.demo_model.faces.fields import smoothstep
from pipelines.demo_model.faces.head import AXIS_Z, EYES, EYES_Y, Person

#: Where the skull turns on the neck, at rest.
PIVOT = np.array([0, 6.35, 0.1])


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3), to be multiplied from the left; radians, yaw first."""
    (cy, cp, cr), (sy, sp, sr) = np.cos([yaw, pitch, roll]), np.sin([yaw, pitch, roll])
    turned = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nodded = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    tilted = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return tilted @ nodded @ turned


class Pose:
    """The turn of the head on a neck and chest that stay where they are."""

    def __init__(self, rng: np.random.Generator, person: Person) -> None:
        self.rotation = rotation(*np.radians([rng.normal(0, 11), rng.normal(0, 8), rng.normal(0, 6)]))
        self.raised = person.eyes[1] - EYES_Y
        self._pivot = PIVOT + (person.eyes - EYES) * [0, 1, 0]

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points turned: the skull wholly, the shoulders not at all, the neck smoothly between."""
        height = (points[..., 1] - self.raised) - 5.7 + (points[..., 2] - AXIS_Z) * 0.3
        return self._turned(points, smoothstep(0, 1, height / 0.6))

    def skull(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) points that belong to the skull, such as a hat's, turned wholly."""
        return self._turned(points, np.ones(points.shape[:-1]))

    def _turned(self, points: np.ndarray, weight: np.ndarray) -> np.ndarray:
        whole = (points - self._pivot) @ self.rotation.T + self._pivot
        return points * (1 - weight[..., None]) + whole * weight[..., None]


class Camera:
    """A camera before the face; `side` is the image's side in pixels."""

    def __init__(self, rng: np.random.Generator, person: Person, pose: Pose, side: int) -> None:
        yaw = np.clip(rng.normal(0, 17), -50, 50)
        self.rotation = rotation(np.radians(yaw), np.radians(rng.normal(0, 6)), np.radians(rng.normal(0, 5)))
        face = pose.skull(person.eyes[None])[0] + pose.rotation @ np.array([0, -0.1, 0])
        # The eyes' distance as a share of the image: as in CelebA's aligned crops, or farther away.
        share = 0.22 * np.exp(rng.normal(0, 0.09)) if rng.random() < 0.8 else rng.uniform(0.13, 0.2)
        width = np.linalg.norm(person.eye_right - person.eye_left) / share  # of the image at the face, dm
        self.distance = rng.uniform(7, 26)
        aside, above = rng.normal(0, 0.05) * width, rng.normal(0, 0.05) * width
        self._center = face + np.array([aside, above + 0.02 * width, 0])
        self._side = side
        self._focal = self.distance * side / width  # pixels

    @property
    def pixels_per_dm(self) -> float:
        """At the distance of the face."""
        return float(self._focal / self.distance)

    def view(self, turned: np.ndarray) -> np.ndarray:
        """(..., 3) turned points in view."""
        return (turned - self._center) @ self.rotation.T

    def project(self, in_view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(..., 3) points in view -> (..., 2) float32 x, y in pixels and (...) float32 inverse depth."""
        depth = self.distance - in_view[..., 2]
        x = self._side / 2 + self._focal * in_view[..., 0] / depth
        y = self._side / 2 - self._focal * in_view[..., 1] / depth
        return np.stack([x, y], -1).astype(np.float32), (1 / depth).astype(np.float32)
