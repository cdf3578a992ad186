"""An image stretched to a square by Pillow's bicubic filter, as in the official loaders, or nearly so in a third of the
time.

`near_bicubic` is torch's kernel for uint8, whose weights have 16 bits where Pillow's have 32: mostly one value in some
thousands is off by a level, from 512 to 192 pixels one in forty; hardly any by two, none by more
(tests/images/test_resize.py).
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def bicubic(image: Image.Image, side: int) -> np.ndarray:
    """RGB image -> (side, side, 3) uint8."""
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def near_bicubic(image: Image.Image, side: int) -> np.ndarray:
    """RGB image -> (side, side, 3) uint8, nearly that of `bicubic`."""
    if image.height > max(image.width, side):
        # Pillow may then resize columns before rows, and each pass rounds and clips other values.
        return bicubic(image, side)
    import torch  # here, because the driver does not need it

    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]  # the memory stays (height, width, 3)
    near = torch.nn.functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True)
    return near[0].permute(1, 2, 0).contiguous().numpy()
