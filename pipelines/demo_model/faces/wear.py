"""Earrings, a necklace and glasses, drawn over the face."""

from __future__ import annotations

import numpy as np

from pipelines.demo_model.faces import kernels
from pipelines.demo_model.faces.colors import linear, random_jewel
from pipelines.demo_model.faces.head import AXIS_Z, Person
from pipelines.demo_model.faces.scene import CLASS, Scene

#: Points of a hoop, of a chain, and of the rim of a lens.
_HOOP, _CHAIN, _RIM = 40, 160, 56


def draw_earrings(scene: Scene) -> None:
    """A pair of studs, hoops or drops at the lowest points of the ears."""
    rng, person, label = scene.rng, scene.person, CLASS["ear_r"]
    color = random_jewel(rng)
    kind = str(rng.choice(["stud", "hoop", "drop"]))
    size = rng.uniform(0.03, 0.07)
    for side in (-1, 1):
        ear = scene.head.ear_vertices(side)
        lowest = ear[np.argmin(person.vertices[ear, 1])]
        lobe = scene.pose.skull((person.vertices[lowest] + person.normals[lowest] * 0.01)[None])[0]
        if kind == "stud":
            scene.ball(lobe + np.array([side * 0.02, 0.06, 0.02]), size, color, label)
        elif kind == "hoop":
            angle, radius = np.linspace(0, 2 * np.pi, _HOOP), rng.uniform(0.1, 0.32)
            x = side * (0.03 + 0.05 * np.sin(angle))
            hoop = np.stack([x, -radius + radius * np.cos(angle) + 0.04, radius * np.sin(angle)], 1)
            scene.wire(lobe + hoop, rng.uniform(0.015, 0.04), color, label)
        else:
            for k in range(rng.integers(2, 6)):
                bead = lobe + np.array([side * 0.02, -k * size * 1.7, 0.02])
                scene.ball(bead, size * rng.uniform(0.7, 1.2), color, label)


def draw_necklace(scene: Scene) -> None:
    """A chain or a string of beads around the neck, at times with a pendant."""
    rng, label = scene.rng, CLASS["neck_l"]
    color = random_jewel(rng)
    around = np.linspace(-np.pi, np.pi, _CHAIN)
    behind, before = 5.95 + scene.pose.raised, rng.uniform(5.35, 5.85) + scene.pose.raised
    y = behind + (before - behind) * ((np.cos(around) + 1) / 2) ** 1.2
    distance = scene.reach.of_trunk(y, around) + 0.035
    chain = scene.pose(np.stack([np.sin(around) * distance, y, AXIS_Z + np.cos(around) * distance], 1))
    thickness = rng.uniform(0.02, 0.07)
    if rng.random() < 0.6:
        scene.wire(chain, thickness, color, label)
    else:
        for bead in chain[:: max(1, round(thickness * 40))]:
            scene.ball(bead, thickness * 0.9, color, label)
    if rng.random() < 0.5:
        size = rng.uniform(0.05, 0.12)
        scene.ball(chain[_CHAIN // 2] + np.array([0, -0.08, 0.03]), size, random_jewel(rng), label)


class _Glasses:
    """Two lenses between circle and rectangle, their frame and temples; dark glass or clear."""

    def __init__(self, rng: np.random.Generator, person: Person) -> None:
        z = max(person.eye_right[2], person.eye_left[2]) + rng.uniform(0.20, 0.28)
        self.half_width, half_height = rng.uniform(0.22, 0.33), rng.uniform(0.15, 0.27)
        squareness = rng.uniform(2, 5)
        dark = rng.random() < 0.3
        self.color = linear(rng.uniform(0, 0.35, 3)) if rng.random() < 0.75 else random_jewel(rng)
        self.thickness = rng.uniform(0.018, 0.06)
        self.glass = linear(rng.uniform(0.0, 0.35, 3)) if dark else np.array([0.6, 0.65, 0.7])
        self.opacity = rng.uniform(0.7, 0.98) if dark else rng.uniform(0, 0.12)
        lower = rng.uniform(-0.08, 0.02)
        angle = np.linspace(0, 2 * np.pi, _RIM)
        cos, sin = np.cos(angle), np.sin(angle)
        x = np.sign(cos) * np.abs(cos) ** (2 / squareness) * self.half_width
        y = np.sign(sin) * np.abs(sin) ** (2 / squareness) * half_height
        self.lenses = []  # center (3,) and rim (_RIM, 3), first at x > 0
        for side, eye in ((1, person.eye_right), (-1, person.eye_left)):
            center = np.array([eye[0] + side * 0.01, eye[1] + lower, z])
            bent_back = 0.25 * (np.abs(center[0] + x) - 0.3).clip(0) ** 1.2
            self.lenses.append((center, np.stack([center[0] + x, center[1] + y, center[2] - bent_back], 1)))

    def bridge(self) -> np.ndarray:
        (right, _), (left, _) = self.lenses
        t = np.linspace(0, 1, 12)[:, None]
        arch = np.sin(np.pi * t[:, 0])
        inwards = np.array([-self.half_width, 0.04, 0])
        points = (right + inwards) * (1 - t) + (left + inwards * [-1, 1, 1]) * t
        points[:, 1] += 0.06 * arch
        points[:, 2] += 0.03 * arch
        return points

    def temple(self, side: int, rim: np.ndarray, ear_top: np.ndarray) -> np.ndarray:
        """From the outer edge of a rim to the top of the ear (3,), as a curve outside of the head."""
        start = rim[np.argmax(side * rim[:, 0])] + [0, 0.05, 0]
        end = np.array([ear_top[0] * 0.97, ear_top[1] - 0.02, ear_top[2]])
        x = side * max(abs(start[0]) + 0.06, abs(ear_top[0]) * 0.9)
        middle = np.array([x, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2])
        t = np.linspace(0, 1, 30)[:, None]
        return (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end


def draw_glasses(scene: Scene) -> None:
    """Lenses, which are labelled as glasses whole, rims, bridge and temples."""
    label = CLASS["eye_g"]
    glasses = _Glasses(scene.rng, scene.person)
    for center, rim in glasses.lenses:
        _draw_lens(scene, glasses, np.concatenate([center[None], rim]))
    for _, rim in glasses.lenses:
        scene.wire(scene.pose.skull(rim), glasses.thickness, glasses.color, label)
    scene.wire(scene.pose.skull(glasses.bridge()), glasses.thickness, glasses.color, label)
    for side, (_, rim) in zip((1, -1), glasses.lenses, strict=True):
        ear = scene.person.vertices[scene.head.ear_vertices(side)]
        temple = glasses.temple(side, rim, ear[np.argmax(ear[:, 1])])
        scene.wire(scene.pose.skull(temple), glasses.thickness * 1.1, glasses.color, label)


def _draw_lens(scene: Scene, glasses: _Glasses, fan: np.ndarray) -> None:
    """Glass over what is behind it, with a reflection at times; `fan` is the lens's centre and its rim."""
    rng, canvas, light = scene.rng, scene.canvas, scene.light.mean
    follows = np.roll(np.arange(1, _RIM + 1), -1)
    triangles = np.stack([np.zeros(_RIM, int), np.arange(1, _RIM + 1), follows], 1)
    xy, inverse_depth = scene.camera.project(scene.camera.view(scene.pose.skull(fan)).astype(np.float32))
    hit = np.full(canvas.labels.shape, -1, np.int64)
    weights = np.zeros((*hit.shape, 3), np.float32)
    kernels.triangles(xy, inverse_depth, triangles, canvas.depth.copy(), hit, weights)
    lens = hit >= 0
    canvas.labels[lens] = CLASS["eye_g"]
    canvas.image[lens] = canvas.image[lens] * (1 - glasses.opacity) + glasses.glass * light * glasses.opacity
    rng.random()  # decides nothing; kept, so that a seed keeps its image
    if rng.random() < 0.5:
        y, x = np.nonzero(lens)
        slanted = (x + y * rng.uniform(0.3, 1.2)) / scene.camera.pixels_per_dm * 3
        stripe = np.abs((slanted + rng.random() * 2) % 2 - 1) < 0.3
        canvas.image[y[stripe], x[stripe]] += rng.uniform(0.05, 0.35) * light
