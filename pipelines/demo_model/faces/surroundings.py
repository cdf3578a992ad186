"""What is behind a face, and what is held before it; both are labelled background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipelines.demo_model.faces.colors import HAIR_COLORS, linear
from pipelines.demo_model.faces.scene import CLASS, Scene

#: Rows and columns of the random numbers that bend a curtain's folds.
_FOLDS = (6, 24)


def _enlarged(table: np.ndarray, side: int) -> np.ndarray:
    """(h, w) -> (side, side) float32, smooth."""
    return np.asarray(Image.fromarray(table.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))


def random_background(rng: np.random.Generator, side: int, blur: float) -> np.ndarray:
    """(side, side, 3) linear light: a wall, shapes, at times a curtain, uneven light, mostly out of focus.

    `blur` is the widest blur's sigma in pixels.
    """
    busy = rng.random() < 0.75
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side
    grey = rng.random() < 0.55

    def color() -> np.ndarray:
        if grey:
            return linear(np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.05, 3), 0, 1))
        return linear(rng.uniform(0.0, 1, 3))

    image = np.ones((side, side, 3)) * color()
    slope = rng.uniform(-1, 1, 2)
    image = image * (1 + (0.6 * slope[0] * (x - 0.5) + 0.6 * slope[1] * (y - 0.5)))[:, :, None]
    if busy:
        for _ in range(rng.integers(2, 14)):
            _add_shape(rng, image, x, y, color)
        if rng.random() < 0.3:
            image = _with_curtain(rng, image, x, y, color)
        uneven = rng.standard_normal((rng.integers(3, 24), rng.integers(3, 24), 3))
        if grey:
            uneven = uneven * 0.25 + uneven[:, :, :1] * 0.75
        uneven = np.stack([_enlarged(uneven[:, :, channel], side) for channel in range(3)], 2)
        image = image * np.exp(rng.uniform(0, 0.5) * uneven)
        sigma = rng.uniform(0, 1) * blur if rng.random() < 0.8 else 0
        if sigma > 0.3:
            image = gaussian_filter(image, (sigma, sigma, 0))
    return image.clip(0, 2)


def _add_shape(
    rng: np.random.Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray, color: Callable[[], np.ndarray]
) -> None:
    """A rectangle, an ellipse, or stripes all over."""
    at_x, at_y, width, height = rng.random(), rng.random(), rng.uniform(0.03, 0.5), rng.uniform(0.03, 0.6)
    paint, opacity, kind = color(), rng.uniform(0.3, 1), rng.random()
    if kind < 0.45:
        inside = (np.abs(x - at_x) < width / 2) & (np.abs(y - at_y) < height)
    elif kind < 0.8:
        inside = ((x - at_x) / width) ** 2 + ((y - at_y) / height) ** 2 < 0.3
    else:
        inside = np.sin((x * np.cos(at_x * 6) + y * np.sin(at_x * 6)) * rng.uniform(10, 80)) > 0.2
    image[inside] = image[inside] * (1 - opacity) + paint * opacity


def _with_curtain(
    rng: np.random.Generator, image: np.ndarray, x: np.ndarray, y: np.ndarray, color: Callable[[], np.ndarray]
) -> np.ndarray:
    """A folded curtain at one side, at times of the colours of hair, from which it is to be told."""
    slanted = (x + rng.uniform(-0.25, 0.25) * y) * rng.uniform(4, 22)
    folds = np.sin(6.28 * slanted + 2.5 * _enlarged(rng.standard_normal(_FOLDS), len(image)))
    paint = HAIR_COLORS[rng.integers(len(HAIR_COLORS))] if rng.random() < 0.5 else color()
    inside = x < rng.uniform(0.2, 1.2) if rng.random() < 0.5 else x > rng.uniform(-0.2, 0.8)
    return np.where(inside[:, :, None], paint * np.exp(rng.uniform(0.15, 0.7) * folds)[:, :, None], image)


class _Front:
    """The canvas of a scene, for things in front of everything."""

    def __init__(self, scene: Scene) -> None:
        self._image, self._labels = scene.canvas.image, scene.canvas.labels
        self._light, self._key = scene.light.mean, scene.light.key
        self.height, self.width = self._labels.shape
        self.y, self.x = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32)

    def cover(self, where: np.ndarray, color: np.ndarray) -> None:
        """Paints a mask (H, W) with a colour (H, W, 3) or (3,)."""
        self._image[where] = np.broadcast_to(color * self._light, self._image.shape)[where]
        self._labels[where] = CLASS["background"]

    def capsule(
        self, start: np.ndarray, end: np.ndarray, radius: float, end_radius: float, color: np.ndarray, gloss: float
    ) -> None:
        """A round bar between two points (2,), pixels, shaded."""
        way = end - start
        x, y = self.x - start[0], self.y - start[1]
        t = np.clip((x * way[0] + y * way[1]) / (way @ way + 1e-6), 0, 1)
        x, y = x - t * way[0], y - t * way[1]
        r = radius + (end_radius - radius) * t
        square = (x * x + y * y) / (r * r)
        inside = square < 1
        z = np.sqrt(1 - square[inside])
        toward = x[inside] / r[inside] * self._key[0] + -y[inside] / r[inside] * self._key[1] + z * self._key[2]
        diffuse = 0.35 + 0.9 * np.clip(toward, 0, 1)
        self._image[inside] = color * self._light * 2 * diffuse[:, None] * 0.5 + gloss * z[:, None] ** 30 * self._light
        self._labels[inside] = CLASS["background"]


def draw_something_in_front(scene: Scene, skin: np.ndarray) -> None:
    """A hand of about the skin's colour (3,), a stick such as a microphone's, or a card."""
    kind = scene.rng.choice(["hand", "stick", "card"], p=[0.5, 0.25, 0.25])
    {"hand": _draw_hand, "stick": _draw_stick, "card": _draw_card}[str(kind)](scene, _Front(scene), skin)


def _near_eyes(scene: Scene, offset: list[float]) -> np.ndarray:
    """(2,) pixels of a point `offset` dm from the eyes."""
    eyes = scene.pose.skull(scene.person.eyes[None])[0]
    return scene.camera.project(scene.camera.view((eyes + offset)[None]))[0][0]


def _draw_hand(scene: Scene, front: _Front, skin: np.ndarray) -> None:
    """A forearm, a palm, four fingers and a thumb, from below or from the side."""
    rng = scene.rng
    color = skin * rng.uniform(0.8, 1.15)
    finger = rng.uniform(0.07, 0.1) * scene.camera.pixels_per_dm
    target = _near_eyes(scene, [rng.choice([-1, 1]) * rng.uniform(0.1, 0.8), rng.uniform(-1.2, 0.2), 0.4])
    turned = rng.uniform(-0.6, 0.6) + (0 if rng.random() < 0.7 else np.pi / 2 * rng.choice([-1, 1]))
    down = np.array([np.sin(turned), np.cos(turned)])
    across = np.array([down[1], -down[0]])
    palm = target + down * finger * 7
    wrist = palm + down * finger * 3
    front.capsule(palm + down * finger * 30, wrist, finger * 2.8, finger * 2.6, color * 0.95, 0.0)
    front.capsule(palm - across * finger * 1.6, palm + across * finger * 1.6, finger * 3, finger * 3, color, 0.02)
    for k, length in enumerate((6, 7.2, 6.8, 5)):
        offset = (k - 1.5) * finger * 2.1
        reach = finger * length * rng.uniform(0.8, 1.05)
        tip = palm + across * (offset * 1.15 + rng.normal(0, 0.3) * finger) - down * (finger * 2 + reach)
        shade = color * rng.uniform(0.9, 1.05)
        front.capsule(palm + across * offset, tip, finger * 1.05, finger * 0.8, shade, 0.03)
    thumb = across * rng.choice([-1, 1]) * finger
    front.capsule(palm + thumb * 3, palm + thumb * 6 - down * finger * 3, finger * 1.1, finger * 0.85, color, 0.03)


def _draw_stick(scene: Scene, front: _Front, _skin: np.ndarray) -> None:
    rng = scene.rng
    start = rng.random(2) * [front.width, front.height]
    start[1] = front.height * rng.uniform(0.75, 1.1)
    end = _near_eyes(scene, [rng.uniform(-0.7, 0.7), rng.uniform(-1.3, -0.3), 0.6])
    radius = rng.uniform(0.03, 0.14) * scene.camera.pixels_per_dm
    front.capsule(start, end, radius, radius, linear(rng.uniform(0.02, 0.9, 3)), 0.3)
    if rng.random() < 0.6:
        head, grey = radius * rng.uniform(1.6, 3.2), np.ones(3) * linear(rng.uniform(0.02, 0.5, 1))
        front.capsule(end, end + np.array([0, 0.01]), head, radius * 2, grey, 0.2)


def _draw_card(scene: Scene, front: _Front, _skin: np.ndarray) -> None:
    """A tilted rectangle at the lower or the upper edge, at times with lines."""
    rng = scene.rng
    center_x = rng.uniform(0.1, 0.9) * front.width
    center_y = rng.choice([rng.uniform(0.62, 1.0), rng.uniform(0, 0.15)]) * front.height
    tilt = rng.uniform(-0.5, 0.5)
    x = (front.x - center_x) * np.cos(tilt) + (front.y - center_y) * np.sin(tilt)
    y = -(front.x - center_x) * np.sin(tilt) + (front.y - center_y) * np.cos(tilt)
    inside = (np.abs(x) < rng.uniform(0.08, 0.3) * front.width) & (np.abs(y) < rng.uniform(0.06, 0.25) * front.height)
    color, ink = linear(rng.uniform(0.05, 0.95, 3)), linear(rng.uniform(0.05, 0.95, 3))
    lines = (np.sin(y * rng.uniform(0.1, 0.6)) > 0.3) & (rng.random() < 0.6)
    front.cover(inside, np.where(lines[:, :, None], ink, color))
