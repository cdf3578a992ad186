"""The lashes and the hair of the head, lit and drawn.  S strands of K points, D directions of light."""

from __future__ import annotations

import numpy as np

from pipelines.demo_model.faces import kernels
from pipelines.demo_model.faces.fields import unit
from pipelines.demo_model.faces.head import LASHES
from pipelines.demo_model.faces.light import COUNT, TO_CAMERA
from pipelines.demo_model.faces.scene import CLASS, Scene

#: The shadow of every third point of a strand is known.
SHADOW_STEP = 3

#: How many of the brightest directions make highlights on hair.
_HIGHLIGHTS = 3


def draw_lashes(scene: Scene, vertices: np.ndarray) -> None:
    """Darkens what lies under the lashes; `vertices` (V, 3) of the head are in view.  They have no label."""
    head, canvas = scene.head, scene.canvas
    lashes = np.isin(head.part, LASHES)
    xy, inverse_depth = scene.camera.project(vertices)
    hit = np.full(canvas.labels.shape, -1, np.int64)
    weights = np.zeros((*hit.shape, 3), np.float32)
    kernels.triangles(xy, inverse_depth * 1.0005, head.triangles[lashes], canvas.depth.copy(), hit, weights)
    covered = hit >= 0
    opacity = scene.rng.uniform(0.35, 0.85) if scene.person.female else scene.rng.uniform(0.1, 0.45)
    uv = (head.uv[head.uv_triangles[lashes][hit[covered]]] * weights[covered][:, :, None]).sum(1)
    combed = np.clip(0.55 + 0.45 * np.sin(uv[:, 0] * 2200), 0, 1)
    canvas.image[covered] *= (1 - opacity * combed)[:, None]


def draw_hair(scene: Scene, in_view: np.ndarray, visible: np.ndarray, hidden: np.ndarray | None, gloss: float) -> None:
    """Draws the strands (S, K, 3) float32 in view, except points (S, K) that a hat hides.

    visible (S * ceil(K / SHADOW_STEP), D) is the light that reaches every third point.
    """
    rng, hair = scene.rng, scene.hair
    count, points = in_view.shape[:2]
    by_strand = visible.reshape(count, -1, COUNT)
    known = np.minimum(np.arange(points) // SHADOW_STEP, by_strand.shape[1] - 1)
    own = np.exp(0.12 * hair.clump[:, 2:3] + 0.12 * rng.standard_normal((count, 1)))[:, :, None]
    at_root, at_tip = rng.uniform(0.5, 1), 1 + rng.choice([0, rng.uniform(0, 0.9)])
    base = hair.color * own * np.linspace(at_root, at_tip, points)[None, :, None]
    color = _lit(scene, in_view, base, by_strand[:, known], gloss)

    taper = np.interp(np.linspace(0, 1, points), [0, 0.1, 0.8, 1], [0.8, 1, 1, 0.25])
    width = np.tile(taper, (count, 1)) * rng.uniform(0.018, 0.034) * scene.camera.pixels_per_dm
    width = width * np.exp(0.25 * rng.standard_normal((count, 1)))
    if hair.style == "buzz":
        width *= 0.45
    if hidden is not None:
        width = np.where(hidden, 0, width)
    scene.canvas.coverage[:] = 0
    scene.strands(in_view, color, width, CLASS["hair"])


def _lit(scene: Scene, in_view: np.ndarray, base: np.ndarray, visible: np.ndarray, gloss: float) -> np.ndarray:
    """(S, K, 3) light from strands of color `base`, by its angle to them: Kajiya and Kay's model, SIGGRAPH 1989."""
    light = scene.light
    along = np.gradient(in_view, axis=1).astype(np.float32)
    along = unit(along, 1e-9)
    cosine = along.reshape(-1, 3) @ light.directions.astype(np.float32).T
    sine = np.sqrt(np.maximum(1 - cosine * cosine, 0)).reshape(visible.shape) * visible
    color = (sine.reshape(-1, COUNT) @ light.energy.astype(np.float32)).reshape(base.shape) / COUNT * 1.5 * base
    for t in light.brightest[:_HIGHLIGHTS]:
        halfway = unit(light.directions[t] + TO_CAMERA)
        lobe = np.sqrt(np.clip(1 - (along @ halfway) ** 2, 0, 1)) ** scene.rng.uniform(30, 90)
        color += (lobe * visible[:, :, t])[:, :, None] * light.energy[t] * (0.25 * base + 0.02) * gloss
    return color
