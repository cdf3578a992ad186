"""Brows and beard: painted on the skin first, then drawn over it as short hairs."""

from __future__ import annotations

import numpy as np
from scipy.spatial import KDTree

from pipelines.demo_model.faces.colors import HAIR_COLORS
from pipelines.demo_model.faces.fields import column, smoothstep, unit
from pipelines.demo_model.faces.hair import Hair, roots
from pipelines.demo_model.faces.head import BODY, hairline
from pipelines.demo_model.faces.kernels import NO_LABEL
from pipelines.demo_model.faces.scene import CLASS, Scene
from pipelines.demo_model.faces.skin import Complexion
from pipelines.demo_model.faces.surface import Surface

#: Points of a short hair.
_POINTS = 4

#: Hairs of the densest brows and beard, and the density from which a beard has hairs at all.
_BROW_HAIRS, _BEARD_HAIRS, _STUBBLE = 500, 4500, 0.45


class Beard:
    """None on most faces (density 0), else full, a goatee or a moustache."""

    def __init__(self, rng: np.random.Generator, hair: Hair, female: bool) -> None:
        if hair.bald:
            self.color = HAIR_COLORS[rng.integers(0, 5)] * rng.uniform(0.6, 1)
        else:
            self.color = hair.color * rng.uniform(0.5, 1.0)
        self.density = rng.uniform(0.1, 1.0) if not female and rng.random() < 0.5 else 0.0
        self._kind = str(rng.choice(["full", "goatee", "moustache"], p=[0.65, 0.2, 0.15]))

    def cover(self, rest: np.ndarray) -> np.ndarray:
        """(N, 3) places at rest -> (N,) 0 to 1: how much of the beard grows there; none between the lips."""
        x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
        moustache = np.exp(-((x / 0.27) ** 4)) * smoothstep(6.66, 6.70, y) * smoothstep(6.84, 6.80, y)
        jaw = smoothstep(6.05, 6.2, y) * (z > 0.35) * smoothstep(6.75, 6.55, y - 0.75 * np.clip(x - 0.3, 0, 0.6))
        if self._kind == "goatee":
            jaw = jaw * np.exp(-((x / 0.28) ** 4))
        if self._kind == "moustache":
            jaw = jaw * 0
        beside_mouth = ((x / 0.29) ** 2 + ((y - 6.61) / 0.125) ** 2 > 1) | (z < 1.2)
        return np.clip(np.maximum(jaw, moustache), 0, 1) * beside_mouth

    def paint(self, surface: Surface) -> None:
        if self.density == 0:
            return
        uneven = np.clip(0.75 + 0.25 * surface.noise(20.0, 1), 0, 1)
        weight = self.cover(surface.rest) * self.density * (1 - np.clip(surface.lip, 0, 1)) * surface.body * uneven
        surface.blend(np.clip(weight * 0.75, 0, 0.9), surface.albedo * 0.35 + self.color * 0.3)

    def draw(self, scene: Scene, turned: np.ndarray, irradiance: np.ndarray) -> None:
        """Its hairs, which keep the label of what lies below; see _ShortHairs for turned and irradiance."""
        if self.density <= _STUBBLE:
            return
        rng = scene.rng
        rng.random()  # decides nothing; kept, so that a seed keeps its image
        length = rng.uniform(0.02, 0.16) * self.density
        rest = scene.head.rest[scene.head.triangles].mean(1)
        hairs = _ShortHairs.grow(scene, self._grows(rest, 0.02), int(_BEARD_HAIRS * self.density))
        if hairs is None:
            return
        hairs = hairs.where(self._grows(hairs.rest, 0.35))
        if not len(hairs.rest):
            return
        side = np.sign(hairs.rest[:, 0])
        sideways = 0.15 * side + np.where(hairs.rest[:, 1] > 6.66, 0.5 * side, 0)
        comb = np.stack([sideways, -np.ones(len(side)), np.zeros(len(side))], 1)
        comb = comb + 0.15 * hairs.normals + 0.25 * rng.standard_normal((len(side), 3))
        strands, color = hairs.lit(scene, comb, length, self.color * 0.8, turned, irradiance)
        hairs.draw(scene, strands, color, 0.014, np.ones(len(side), bool), NO_LABEL)

    def _grows(self, rest: np.ndarray, least: float) -> np.ndarray:
        return (self.cover(rest) > least) & (rest[:, 2] > 0.3) & (hairline(rest) < -0.02)


class Brows:
    """Both brows of a face: an arch of some thickness, of a colour no lighter than the skin."""

    def __init__(self, rng: np.random.Generator, hair: Hair, beard: Beard, skin: Complexion, female: bool) -> None:
        self._arch = rng.uniform(0.02, 0.085)
        self._thickness = rng.uniform(0.022, 0.055) * (0.8 if female else 1)
        self._inner, self._outer = rng.uniform(0.08, 0.15), rng.uniform(0.48, 0.58)
        self._height = rng.uniform(7.415, 7.475)
        self._inner_raised = rng.uniform(-0.03, 0.035)
        self._density = rng.uniform(0.35, 1.0)
        color = beard.color if hair.bald else hair.color * rng.uniform(0.4, 0.9)
        self._color = np.minimum(color, skin.color * 0.8)

    def inside(self, rest: np.ndarray) -> np.ndarray:
        """(N, 3) places at rest -> (N,): 1 along the middle of a brow, 0 at its edge, -1 or less far off."""
        along = (np.abs(rest[:, 0]) - self._inner) / (self._outer - self._inner)
        y = self._height + 0.025 + self._inner_raised * (1 - np.clip(along * 1.6, 0, 1))
        y = y + self._arch * 0.8 * np.sin(np.clip(along, 0, 1) * np.pi * 0.7) - 0.10 * np.clip(along - 0.5, 0, 1)
        thickness = self._thickness * np.interp(along, [0, 0.15, 0.6, 1.0], [0.75, 1.0, 0.9, 0.25])
        near = (along > 0) & (along < 1) & (rest[:, 2] > 0.8)
        return np.where(near, 1 - ((rest[:, 1] - y) / thickness) ** 2, -1)

    def paint(self, surface: Surface) -> None:
        inside = self.inside(surface.rest)
        weight = np.clip(inside * 1.6, 0, 1) * self._density * 0.75 * surface.body
        surface.blend(weight, self._color * 0.7 + surface.albedo * 0.12)
        brow, x = surface.body & (inside > 0), surface.rest[:, 0]
        surface.labels[brow & (x < 0)] = CLASS["l_brow"]
        surface.labels[brow & (x > 0)] = CLASS["r_brow"]

    def draw(self, scene: Scene, turned: np.ndarray, irradiance: np.ndarray) -> None:
        """Their hairs; see _ShortHairs for turned and irradiance."""
        length = scene.rng.uniform(0.05, 0.09)
        near = self.inside(scene.head.rest[scene.head.triangles].mean(1)) > -1
        hairs = _ShortHairs.grow(scene, near, int(_BROW_HAIRS * self._density))
        if hairs is None:
            return
        hairs = hairs.where(self.inside(hairs.rest) > 0.05)
        if not len(hairs.rest):
            return
        x = hairs.rest[:, 0]
        upwards = np.interp(np.abs(x), [0.1, 0.25, 0.5], [1.2, 0.5, -0.2])
        comb = np.stack([np.sign(x), upwards, np.zeros(len(x))], 1)
        comb = comb + 0.2 * scene.rng.standard_normal((len(x), 3)) + 0.2 * hairs.normals
        strands, color = hairs.lit(scene, comb, length, self._color * 0.6, turned, irradiance)
        hairs.draw(scene, strands, color, 0.010, x < 0, CLASS["l_brow"])
        hairs.draw(scene, strands, color, 0.010, x > 0, CLASS["r_brow"])


class _ShortHairs:
    """S hairs of a brow or a beard, straight, shaded like the skin that they stand on."""

    def __init__(self, roots: np.ndarray, normals: np.ndarray, rest: np.ndarray) -> None:
        self.roots, self.normals, self.rest = roots, normals, rest

    @classmethod
    def grow(cls, scene: Scene, triangles: np.ndarray, count: int) -> _ShortHairs | None:
        """`count` hairs on the skin among a mask of triangles (T,), None where there is none."""
        skin = (scene.head.part == BODY) & triangles
        found = roots(scene.rng, scene.head, scene.person, skin, count)
        return None if found is None else cls(*found)

    def where(self, kept: np.ndarray) -> _ShortHairs:
        return _ShortHairs(self.roots[kept], self.normals[kept], self.rest[kept])

    def lit(
        self,
        scene: Scene,
        comb: np.ndarray,
        length: float,
        color: np.ndarray,
        turned: np.ndarray,
        irradiance: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """(S, K, 3) strands in view and their colours, by where they are combed to (S, 3).

        turned (V, 3) are the head's vertices, irradiance (V, 3) the light on them: a hair takes the nearest one's.
        """
        count, skin = len(self.roots), scene.head.body
        lengths = column(length * scene.rng.uniform(0.6, 1.2, count))
        reach = unit(comb, 1e-6) * lengths
        points = [self.roots + self.normals * 0.006 + reach * t for t in np.linspace(0, 1, _POINTS)]
        strands = scene.camera.view(scene.pose(np.stack(points, 1)))
        nearest = skin[KDTree(turned[skin]).query(scene.pose(self.roots))[1]]
        shade = color * np.exp(scene.rng.normal(0, 0.25, (count, 1))) * irradiance[nearest]
        return strands, shade[:, None] * np.ones((1, _POINTS, 1))

    def draw(
        self, scene: Scene, strands: np.ndarray, color: np.ndarray, thickness: float, which: np.ndarray, label: int
    ) -> None:
        """Draws those of a mask (S,), thickness in dm at the root."""
        width = np.tile(np.linspace(1, 0.3, _POINTS) * thickness * scene.camera.pixels_per_dm, (which.sum(), 1))
        scene.strands(strands[which], color[which], width, label, 1.001)
