"""Paint and labels of clothes, which are the skin of the chest painted over, and of the hat."""

from __future__ import annotations

import numpy as np

from pipelines.demo_model.faces.colors import linear
from pipelines.demo_model.faces.fields import column, smoothstep
from pipelines.demo_model.faces.hat import HAT
from pipelines.demo_model.faces.scene import CLASS
from pipelines.demo_model.faces.surface import Surface

#: No collar rises above this height at rest, dm.
_HIGHEST_COLLAR = 6.1

#: How much of light clothes and hats mirror.
_CLOTH_SHINE = 0.01


def paint_clothes(rng: np.random.Generator, surface: Surface, key: np.ndarray) -> np.ndarray:
    """A neckline, a pattern, a rim and folds lit from `key` (3,); where clothes are, (N,) bool."""
    x, y, z = surface.rest.T
    height, slope, width = rng.uniform(5.68, 6.10), rng.uniform(0.1, 0.4), rng.uniform(0.2, 0.8)
    depth = rng.choice([0, rng.uniform(0.1, 0.9)])
    without = rng.random() < 0.04
    neckline = height - slope * (z - 0.1) - depth * np.clip(1 - np.abs(x) / width, 0, 1) * (z > 0.3)
    cloth = surface.body & (y < neckline) & (y < _HIGHEST_COLLAR) & (not without)

    channels = 3 if rng.random() < 0.6 else 1  # a colour or a grey
    color = np.ones(3) * linear(rng.uniform(0.02, 0.98, channels))
    second = linear(rng.uniform(0.02, 0.98, 3))
    pattern = _pattern(rng, surface)
    mixed = color * (1 - column(pattern)) + second * column(pattern)
    surface.albedo[cloth] = (mixed * column(np.exp(0.06 * surface.grain)))[cloth]
    surface.labels[cloth], surface.shine[cloth] = CLASS["cloth"], _CLOTH_SHINE

    rim = cloth & (np.abs(y - neckline) < rng.uniform(0.02, 0.12))
    surface.albedo[rim] = (surface.albedo * rng.uniform(0.5, 1.3))[rim] if rng.random() < 0.6 else second
    folds = np.stack([surface.noise(1.6, 3, shift) for shift in (0, 7, 13)], 1) * rng.uniform(0.05, 0.22)
    surface.bend(cloth, folds)
    surface.irradiance[cloth] *= column(np.clip(1 + (folds @ key) * 0.9, 0.4, 1.6))[cloth]
    return cloth


def _pattern(rng: np.random.Generator, surface: Surface) -> np.ndarray:
    """(N,) 0 to 1, the share of the second colour: plain, stripes, checks or blotches."""
    x, y, _ = surface.rest.T
    kind = rng.choice(["plain", "stripe", "check", "noise"], p=[0.55, 0.17, 0.12, 0.16])
    frequency = rng.uniform(6, 40)
    across = y if rng.random() < 0.5 else x
    if kind == "stripe":
        return (np.sin(across * frequency) > 0) * 1.0
    if kind == "check":
        return ((np.sin(x * frequency) > 0) ^ (np.sin(y * frequency) > 0)) * 1.0
    if kind == "noise":
        return smoothstep(-0.2, 0.2, surface.noise(frequency * 0.15, 2))
    return np.zeros(len(x))


def paint_hat(rng: np.random.Generator, surface: Surface) -> None:
    """A colour, dark and grey half of the time, with stripes at times; nothing where no hat is seen."""
    hat = surface.part == HAT
    if not hat.any():
        return
    if rng.random() < 0.5:
        color = linear(rng.uniform(0.02, 0.95, 3))
    else:
        color = linear(rng.uniform(0.02, 0.22) + rng.uniform(0, 0.06, 3))
    if rng.random() < 0.3:
        stripes = column(np.sin(surface.rest[:, 1] * rng.uniform(8, 30)) > 0)
        color = np.where(stripes, color, linear(rng.uniform(0.02, 0.95, 3)))
    worn = column(np.exp(0.08 * surface.grain + 0.04 * surface.blotches))
    surface.albedo[hat] = (color * worn)[hat]
    surface.labels[hat], surface.shine[hat] = CLASS["hat"], _CLOTH_SHINE
