"""The mesh as the camera sees it, and what is known of it at every pixel that it covers.

N is the number of covered pixels, V and T vertices and triangles of head and hat, H, W rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipelines.demo_model.faces import kernels
from pipelines.demo_model.faces.fields import Noise, column, unit
from pipelines.demo_model.faces.hat import HAT, Hat
from pipelines.demo_model.faces.head import BODY, LASHES, Head, vertex_normals
from pipelines.demo_model.faces.view import Camera, Pose


@dataclass(frozen=True)
class Mesh:
    """Head and hat in view, without lashes; the first vertices are the head's."""

    vertices: np.ndarray  # (V, 3) float32, in view
    normals: np.ndarray  # (V, 3) float32
    rest: np.ndarray  # (V, 3) float32, where the vertex is at rest
    triangles: np.ndarray  # (T, 3)
    uv_triangles: np.ndarray  # (T, 3), of Head.uv
    part: np.ndarray  # (T,)


def mesh_in_view(head: Head, turned: np.ndarray, hat: Hat | None, pose: Pose, camera: Camera) -> Mesh:
    """The mesh of head and hat; `turned` (V, 3) are the head's vertices."""
    kept = ~np.isin(head.part, LASHES)
    vertices, rest = [camera.view(turned)], [head.rest]
    triangles, uv_triangles, part = [head.triangles[kept]], [head.uv_triangles[kept]], [head.part[kept]]
    if hat is not None:
        vertices.append(camera.view(pose.skull(hat.vertices)))
        rest.append(hat.vertices)
        triangles.append(hat.triangles + len(turned))
        uv_triangles.append(np.zeros_like(hat.triangles))
        part.append(np.full(len(hat.triangles), HAT))
    in_view, corners = np.concatenate(vertices).astype(np.float32), np.concatenate(triangles)
    return Mesh(
        in_view,
        vertex_normals(in_view, corners),
        np.concatenate(rest),
        corners,
        np.concatenate(uv_triangles),
        np.concatenate(part),
    )


class Surface:
    """Pixels of the mesh: where they are, how they are lit, and the paint on them, which painters change."""

    def __init__(
        self,
        mesh: Mesh,
        head: Head,
        camera: Camera,
        depth: np.ndarray,
        irradiance: np.ndarray,
        hard_irradiance: np.ndarray,
        noise: Noise,
    ) -> None:
        """Draws the mesh into depth (H, W); irradiance (V, 3) is of skin, hard_irradiance (V, 3) of eyes and hats."""
        xy, inverse_depth = camera.project(mesh.vertices)
        hit = np.full(depth.shape, -1, np.int64)
        weights = np.zeros((*depth.shape, 3), np.float32)
        kernels.triangles(xy, inverse_depth, mesh.triangles, depth, hit, weights)
        self.covered = hit >= 0  # (H, W)
        self._hit, self._weights = hit[self.covered], np.ascontiguousarray(weights[self.covered])
        self._triangles, self._noise = mesh.triangles, noise

        self.part = mesh.part[self._hit]
        self.rest = self.at_pixels(mesh.rest)
        self.position = self.at_pixels(mesh.vertices)
        self.normal = unit(self.at_pixels(mesh.normals), 1e-9)
        self.irradiance = self.at_pixels(irradiance)
        self.hard_irradiance = self.at_pixels(hard_irradiance)
        uv = kernels.at_pixels(head.uv.astype(np.float64), mesh.uv_triangles, self._hit, self._weights)
        self.body = self.part == BODY
        self.ear = head.mask("ears", uv) * self.body
        self.lip = head.mask("lips", uv) * self.body
        self.inside_mouth = (head.mask("inside-mouth", uv) * self.body) > 0.5
        self.blotches, self.grain = self.noise(3.0, 3), self.noise(26.0, 2)

        count = len(self.part)
        self.labels = np.zeros(count, np.uint8)
        self.albedo = np.ones((count, 3))
        self.shine = np.full(count, 0.02)
        self.sharpness = np.full(count, 14.0)

    def at_pixels(self, values: np.ndarray) -> np.ndarray:
        """(V, C) values of vertices -> (N, C) float64."""
        return kernels.at_pixels(
            np.ascontiguousarray(values, dtype=np.float64), self._triangles, self._hit, self._weights
        )

    def noise(self, frequency: float, octaves: int, shift: float = 0.0) -> np.ndarray:
        """(N,) noise by the place at rest, so that it sticks to the skin."""
        return self._noise(self.rest + shift, frequency, octaves)

    def blend(self, weight: np.ndarray, color: np.ndarray) -> None:
        """Covers the paint with a colour (3,) or (N, 3), by weight (N,)."""
        self.albedo = self.albedo * (1 - column(weight)) + color * column(weight)

    def bend(self, where: np.ndarray, by: np.ndarray) -> None:
        """Bends the normals of a mask (N,) by (N, 3)."""
        self.normal[where] += by[where]
        self.normal = unit(self.normal, 1e-9)
