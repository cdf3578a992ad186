"""Linear light, and the palettes that skin, hair, eyes and jewels are drawn from.

Colours are (..., 3) red, green, blue of linear light, 0 to 1; palettes are written in sRGB, 0 to 255.
"""

from __future__ import annotations

import numpy as np


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB 0 to 1 -> linear light (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def srgb(light: np.ndarray) -> np.ndarray:
    """Linear light -> sRGB 0 to 1 (IEC 61966-2-1)."""
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * np.maximum(light, 1e-8) ** (1 / 2.4) - 0.055)


def _palette(*rows: tuple[int, int, int]) -> np.ndarray:
    return linear(np.array(rows) / 255.0)


#: Skin from the lightest to the darkest.
SKIN_TONES = _palette(
    (246, 228, 214),
    (240, 208, 186),
    (232, 190, 160),
    (222, 172, 136),
    (205, 150, 112),
    (182, 125, 88),
    (150, 98, 66),
    (118, 74, 50),
    (88, 55, 38),
    (62, 40, 30),
)

#: Hair from black to blond, red, and at the end two greys.
HAIR_COLORS = _palette(
    (20, 16, 14),
    (34, 24, 19),
    (52, 36, 26),
    (78, 52, 34),
    (110, 76, 46),
    (150, 110, 66),
    (190, 152, 98),
    (222, 196, 146),
    (120, 56, 30),
    (150, 146, 142),
    (215, 213, 210),
)

#: Irises: three browns, green, two blues.
IRIS_COLORS = _palette((74, 48, 28), (52, 34, 22), (96, 70, 40), (92, 104, 70), (88, 118, 140), (70, 95, 125))

#: Gold, silver, rose gold, black, pearl, red stone.
JEWELS = _palette((230, 190, 90), (215, 215, 220), (235, 180, 160), (40, 40, 45), (240, 240, 235), (150, 30, 60))


def random_jewel(rng: np.random.Generator) -> np.ndarray:
    return JEWELS[rng.integers(len(JEWELS))]
