"""One face stored in many ways, which a decoder that is not careful sees differently."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

import segface_batch

FACES = Path(segface_batch.__file__).parent / "assets" / "faces" / "rendered"

#: A photograph that lies on its side, and is shown upright.
SIDEWAYS = Image.Exif()
SIDEWAYS[0x112] = 6


def face(number: int = 0, size: tuple[int, int] = (96, 128)) -> Image.Image:
    with Image.open(FACES / f"{2000000 + number}.jpg") as image:
        return image.convert("RGB").resize(size)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def storings() -> dict[str, bytes]:
    """Names of files and their bytes; all of them decode."""
    rgb = face()
    grey, lying = rgb.convert("L"), rgb.transpose(Image.Transpose.ROTATE_90)
    alpha = Image.new("L", rgb.size, 0)
    alpha.paste(255, (32, 0, 80, 128))
    rgba = Image.merge("RGBA", (*rgb.split(), alpha))
    black_under = np.array(rgba)
    black_under[black_under[..., 3] == 0] = 0
    clear = rgb.quantize(64)
    return {
        "upright.png": encoded(rgb, "PNG"),
        "exif6.png": encoded(lying, "PNG", exif=SIDEWAYS),
        "exif6.jpg": encoded(lying, "JPEG", exif=SIDEWAYS, quality=95),
        "exif6.webp": encoded(lying, "WEBP", exif=SIDEWAYS),
        "exif6.tif": encoded(lying, "TIFF", exif=SIDEWAYS),
        "rgba.png": encoded(rgba, "PNG"),
        "rgba.webp": encoded(rgba, "WEBP"),
        "rgba_black_under.png": encoded(Image.fromarray(black_under), "PNG"),
        "grey8.png": encoded(grey, "PNG"),
        "grey8.jpg": encoded(grey, "JPEG"),
        "grey16.png": encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "PNG"),
        "grey16.tif": encoded(Image.fromarray(np.asarray(grey).astype(np.uint16) * 257), "TIFF"),
        "la.png": encoded(Image.merge("LA", (grey, alpha)), "PNG"),
        "palette.png": encoded(clear, "PNG"),
        "palette_clear.png": encoded(clear, "PNG", transparency=3),
        "bit.png": encoded(rgb.convert("1"), "PNG"),
        "cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG", quality=95),
        "cmyk.tif": encoded(rgb.convert("CMYK"), "TIFF"),
        "rgb.jpg": encoded(face(1), "JPEG"),
        "rgb.bmp": encoded(face(2), "BMP"),
        "other_size.jpg": encoded(face(3, (160, 96)), "JPEG"),
        "animation.webp": encoded(rgb, "WEBP", save_all=True, append_images=[face(1)], lossless=True),
    }


def broken() -> dict[str, tuple[bytes, str]]:
    """Names of files, their bytes and the word of their error."""
    jpeg, png = encoded(face(), "JPEG"), encoded(face(), "PNG")
    return {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "cut.png": (png[: len(png) // 2], "truncated"),
        "empty.jpg": (b"", "empty"),
        "float.tif": (encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "unreadable"),
        "text.jpg": (b"this is no image", "unreadable"),
    }
