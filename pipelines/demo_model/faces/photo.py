"""From linear light on a large canvas to a photo: exposure, tone, colour, blur, sensor noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipelines.demo_model.faces.colors import srgb
from pipelines.demo_model.faces.scene import CLASS, Canvas

#: Weights of red, green and blue in the brightness that the exposure goes by.
_BRIGHTNESS = [0.3, 0.6, 0.1]

#: Brightness of a skin's own colour, and the brightness that a photo shows it with.
_SKIN_BRIGHTNESS, _SHOWN_BRIGHTNESS = [0.02, 0.08, 0.3, 0.75], [0.06, 0.13, 0.27, 0.42]

#: Side of the images that the widths of the blur are meant for.
_BLUR_SIDE = 192


def develop(rng: np.random.Generator, canvas: Canvas, skin: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) uint8 sRGB from the canvas, exposed for skin of a colour (3,)."""
    exposed = np.isin(canvas.labels, [CLASS["skin"], CLASS["nose"], CLASS["neck"]])
    brightness = np.median(canvas.image[exposed] @ _BRIGHTNESS) if exposed.any() else 0.3
    shown = np.interp(skin @ _BRIGHTNESS, _SKIN_BRIGHTNESS, _SHOWN_BRIGHTNESS) * np.exp(rng.normal(0, 0.25))
    light = canvas.image * (shown / max(brightness, 1e-3))
    if rng.random() < 0.6:
        light = 1 - np.exp(-np.maximum(light, 0) * 1.25)  # highlights roll off, as on film
    scale = len(light) // side
    light = light.reshape(side, scale, side, scale, 3).mean((1, 3))

    light = light * np.exp(rng.normal(0, 0.06, 3))
    photo = srgb(light.clip(0, 1))
    photo = (photo - 0.5) * rng.uniform(0.85, 1.15) + 0.5 + rng.normal(0, 0.02)
    grey = photo.mean(2, keepdims=True)
    photo = grey + (photo - grey) * rng.uniform(0.75, 1.35)
    if rng.random() < 0.05:
        photo = np.repeat(grey, 3, 2)
    blur = rng.choice([0, rng.uniform(0.3, 0.9), rng.uniform(0.9, 1.7)], p=[0.35, 0.5, 0.15]) * side / _BLUR_SIDE
    if blur > 0.2:
        photo = gaussian_filter(photo, (blur, blur, 0))
    photo = photo + rng.normal(0, 1, photo.shape) * rng.uniform(0, 0.025)
    pixels = (photo.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.6:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(35, 95)))
        pixels = np.asarray(Image.open(file).convert("RGB"))
    return pixels


def most_frequent(labels: np.ndarray, side: int) -> np.ndarray:
    """(H, W) uint8 labels of the canvas -> (side, side): the one most frequent in each pixel, of equals the lowest."""
    scale = len(labels) // side
    blocks = labels.reshape(side, scale, side, scale).transpose(0, 2, 1, 3).reshape(side, side, -1)
    counts = np.stack([(blocks == index).sum(2) for index in CLASS.values()], 2)
    return counts.argmax(2).astype(np.uint8)
