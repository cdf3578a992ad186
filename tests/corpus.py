"""A folder of good and broken images, the same bytes for the same seed, for tests and for proof runs.

    python -m tests.corpus FOLDER --good 1000 --seed 0

The good ones are drawn faces of 1x1 to 900x900 pixels in every format and mode that `decode` reads, in nested folders
with awkward names.  For each broken or odd one the reason to expect is known.  The reasons hold for every limit of
1 to 99 megapixels.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageDraw

LARGEST = 900  # pixels, longer side

FOLDERS = (
    "",
    "plain",
    "plain/deeper/and deeper",
    "spaces in  names",
    "Übergröße/日本語/🙂",
    "decomposed-e\u0301",
    'it\'s "quoted"',
    "100% #1 & more?",
    "%2F%20",
    "[glob]*{a,b}",
    "back\\slash",
    "x.png",
    "a" * 200,
)

PREFIXES = ("", "face ", "#", "é", "%41", "o'")

#: Orientation -> how an upright image is stored under it (6 and 8 undo each other, the others themselves).
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of Pillow's format `kind`."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def oriented(image: Image.Image, kind: str, orientation: int, **options: Any) -> bytes:
    """A file that shows the upright `image` once its EXIF orientation, 1 to 8, is applied."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored = image.transpose(STORED[orientation]) if orientation in STORED else image
    return encode(stored, kind, exif=exif.tobytes(), **options)


def png(width: int, height: int, bits: int, color: int, rows: bytes, *, before: bytes = b"") -> bytes:
    """A PNG of any bit depth and colour type; `rows` with their filter bytes, `before` whole chunks before them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0))
    chunks = before + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + chunks


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_bomb(width: int, height: int) -> bytes:
    """A whole and valid black PNG of 1 bit a pixel: 100 megapixels take 12 kB."""
    return png(width, height, 1, 0, bytes((1 + (width + 7) // 8) * height))


def _alpha(image: Image.Image) -> Image.Image:
    """The image with an ellipse around its middle opaque, the rest transparent."""
    mask = Image.new("L", image.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, image.width - 1, image.height - 1), fill=255)
    return Image.merge("RGBA", (*image.split(), mask))


def _grey_16(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)


def _animated(image: Image.Image, kind: str) -> bytes:
    return encode(image, kind, save_all=True, append_images=[Image.new(image.mode, image.size, "red")])


#: (suffix, encoder) for every way a good image is stored.
ENCODERS: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "jpeg": (".jpg", lambda image: encode(image, "JPEG", quality=88)),
    "jpeg 4:4:4": (".JPG", lambda image: encode(image, "JPEG", quality=95, subsampling=0)),
    "jpeg progressive": (".jpeg", lambda image: encode(image, "JPEG", progressive=True)),
    "jpeg grey": (".jpe", lambda image: encode(image.convert("L"), "JPEG")),
    "jpeg cmyk": (".jfif", lambda image: encode(image.convert("CMYK"), "JPEG")),
    **{
        f"jpeg exif {orientation}": (
            ".jpg",
            lambda image, orientation=orientation: oriented(image, "JPEG", orientation),
        )
        for orientation in range(1, 9)
    },
    "mpo": (".jpg", lambda image: _animated(image, "MPO")),
    "png": (".png", lambda image: encode(image, "PNG", compress_level=1)),
    "png exif": (".png", lambda image: oriented(image, "PNG", 6, compress_level=1)),
    "png rgba": (".PNG", lambda image: encode(_alpha(image), "PNG", compress_level=1)),
    "png palette": (".png", lambda image: encode(image.quantize(64, dither=Image.Dither.NONE), "PNG")),
    "png transparent palette": (
        ".png",
        lambda image: encode(image.quantize(64, dither=Image.Dither.NONE), "PNG", transparency=0),
    ),
    "png 16 bit": (".png", lambda image: encode(_grey_16(image), "PNG", compress_level=1)),
    "png 1 bit": (".png", lambda image: encode(image.convert("1"), "PNG")),
    "png animated": (".png", lambda image: _animated(image, "PNG")),
    "webp": (".webp", lambda image: encode(image, "WEBP", method=0)),
    "webp rgba": (".webp", lambda image: encode(_alpha(image), "WEBP", method=0)),
    "webp lossless": (".webp", lambda image: encode(image, "WEBP", lossless=True, quality=0, method=0)),
    "webp animated": (".webp", lambda image: _animated(image, "WEBP")),
    "bmp": (".bmp", lambda image: encode(image, "BMP")),
    "bmp palette": (".bmp", lambda image: encode(image.quantize(64, dither=Image.Dither.NONE), "BMP")),
    "tiff": (".tif", lambda image: encode(image, "TIFF")),
    "tiff lzw": (".tiff", lambda image: encode(image, "TIFF", compression="tiff_lzw")),
    "tiff jpeg": (".tiff", lambda image: encode(image, "TIFF", compression="jpeg")),
    "tiff 16 bit": (".tif", lambda image: encode(_grey_16(image), "TIFF")),
}


def face(width: int, height: int, rng: random.Random) -> Image.Image:
    """A drawn face, mode RGB, on a smooth background; any size from 1x1."""

    def tint(low: int, high: int) -> tuple[int, int, int]:
        return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)

    corners = Image.new("RGB", (2, 2))
    for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
        corners.putpixel((x, y), tint(40, 220))
    image = corners.resize((width, height), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(image)

    def ellipse(x: float, y: float, across: float, down: float, fill: tuple[int, int, int]) -> None:
        box = ((x - across) * width, (y - down) * height, (x + across) * width, (y + down) * height)
        draw.ellipse(box, fill=fill)

    x, y = rng.uniform(0.45, 0.55), rng.uniform(0.48, 0.56)
    skin = rng.choice(((255, 224, 196), (224, 172, 128), (166, 112, 74), (92, 60, 42)))
    ellipse(x, y - 0.1, 0.32, 0.34, tint(10, 120))  # hair
    ellipse(x, y, 0.25, 0.34, skin)
    for side in (-0.1, 0.1):
        ellipse(x + side, y - 0.07, 0.05, 0.028, (250, 250, 250))
        ellipse(x + side, y - 0.07, 0.02, 0.024, tint(20, 110))
        ellipse(x + side, y - 0.13, 0.06, 0.012, tint(10, 90))
    ellipse(x, y + 0.03, 0.03, 0.07, (skin[0] - 40, skin[1] - 30, skin[2] - 25))
    ellipse(x, y + 0.18, 0.09, 0.03, (190, 60, 80))
    return image


def write_corpus(folder: Path, good: int, seed: int = 0) -> list[Path]:
    """Writes `good` readable images, each with its own name; image number i is the same for every `good`."""
    names = list(ENCODERS)
    paths = []
    for number in range(good):
        rng = random.Random(f"{seed} {number}")
        suffix, encoder = ENCODERS[names[number % len(names)]]
        path = folder / rng.choice(FOLDERS) / f"{rng.choice(PREFIXES)}{number:06d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoder(face(*_size(number, rng), rng)))
        paths.append(path)
    return paths


def _size(number: int, rng: random.Random) -> tuple[int, int]:
    """(width, height): as many small as large ones, and a few slivers."""
    sliver = number // len(ENCODERS) % 20  # 0: one round of every format at 1x1
    if sliver == 0:
        return 1, 1
    width, height = (round(LARGEST ** rng.uniform(0.4, 1)) for _ in range(2))
    return {1: (1, height), 2: (width, 1)}.get(sliver, (width, height))


def write_broken(folder: Path) -> dict[str, str | None]:
    """Writes some forty broken and odd things; relative path -> the reason expected, None where a listing skips it.

    `forbidden` comes from fetching, all other reasons from `decode`.  Root may read everything, so for root the
    forbidden file, which has no bytes, is `empty`.
    """
    image = face(120, 90, random.Random(0))
    whole = {name: encoder(image) for name, (_, encoder) in ENCODERS.items()}
    jpeg, photo, webp, bmp, tiff = (whole[name] for name in ("jpeg", "png", "webp", "bmp", "tiff"))
    noise = random.Random(1).randbytes(5000)
    tables = jpeg.index(b"\xff\xc4")

    files: dict[str, tuple[bytes, str]] = {
        "broken/zero bytes.jpg": (b"", "empty"),
        "broken/zero bytes.png": (b"", "empty"),
        "broken/page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "unreadable"),
        "broken/text.png": (b"This is not an image.\n", "unreadable"),
        "broken/BMW.bmp": (b"BMW is a maker of cars, and this is a text.\n", "unreadable"),
        "broken/noise.webp": (noise, "unreadable"),
        "broken/animation.jpg": (encode(image, "GIF"), "unreadable"),
        "broken/drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', "unreadable"),
        "broken/paper.jpg": (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n", "unreadable"),
        "broken/script.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "unreadable"),
        "broken/archive.jpg": (b"PK\x05\x06" + bytes(18), "unreadable"),
        "broken/one byte.jpg": (jpeg[:1], "unreadable"),
        "broken/header only.jpg": (jpeg[:20], "truncated"),
        "broken/header only.png": (photo[:33], "truncated"),
        "broken/header only.webp": (webp[:12], "truncated"),
        "broken/header only.bmp": (bmp[:54], "truncated"),
        "broken/header only.tif": (tiff[:8], "truncated"),
        "broken/wrong crc.png": (photo[:29] + bytes(4) + photo[33:], "unreadable"),
        "broken/damaged middle.png": (_overwritten(photo, len(photo) // 2), "unreadable"),
        "broken/damaged tables.jpg": (_overwritten(jpeg, tables + 5), "unreadable"),
        "broken/damaged middle.webp": (_overwritten(webp, 20, 3), "unreadable"),
        "broken/float.tif": (encode(Image.new("F", (9, 9), 0.5), "TIFF"), "unreadable"),
        "bombs/100 megapixels.png": (png_bomb(10_000, 10_000), "too_large"),
        "bombs/huge header.png": (png(100_000, 100_000, 8, 2, b""), "too_large"),
        "bombs/huge header.bmp": (
            struct.pack("<2sIIIIiiHHIIiiII", b"BM", 54, 0, 54, 40, 65_000, 65_000, 1, 24, *[0] * 6),
            "too_large",
        ),
    }
    for name in ("jpeg", "jpeg progressive", "jpeg exif 6", "png", "webp", "bmp", "tiff", "tiff lzw"):
        for percent in (40, 90):
            cut = whole[name][: len(whole[name]) * percent // 100]
            files[f"cut short/{name} {percent}%{ENCODERS[name][0]}"] = cut, "truncated"

    expected: dict[str, str | None] = {}
    for name, (content, reason) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        expected[name] = reason

    odd = folder / "odd"
    odd.mkdir()
    (odd / "forbidden.jpg").touch(mode=0o000)
    expected["odd/forbidden.jpg"] = "forbidden" if os.geteuid() else "empty"

    (odd / "image.txt").write_bytes(jpeg)
    (odd / "no suffix").write_bytes(jpeg)
    (odd / "half.jpg.part").write_bytes(jpeg)
    (odd / ".hidden.jpg").write_bytes(jpeg)
    (odd / "target.dat").write_bytes(jpeg)
    (odd / "link.jpg").symlink_to("target.dat")
    (odd / "dangling.jpg").symlink_to("nowhere.jpg")
    (odd / "itself.jpg").symlink_to("itself.jpg")
    (odd / "loop").symlink_to("..")
    (odd / "folder.jpg").mkdir()
    os.mkfifo(odd / "pipe.jpg")
    expected |= {f"odd/{path.name}": None for path in sorted(odd.iterdir()) if path.name != "forbidden.jpg"}
    return expected


def _overwritten(data: bytes, at: int, length: int = 24) -> bytes:
    return data[:at] + b"\xaa" * length + data[at + length :]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if absent; must hold no corpus yet")
    parser.add_argument("--good", type=int, default=1000, help="readable images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the readable images (default: %(default)s)")
    options = parser.parse_args()
    good = write_corpus(options.folder, options.good, options.seed)
    expected = write_broken(options.folder)
    print(f"good {len(good)}")
    for reason, count in sorted(Counter(reason or "skipped" for reason in expected.values()).items()):
        print(f"{reason} {count}")


if __name__ == "__main__":
    main()
