"""Encoded bytes -> an upright RGB image, or a `DecodeError` with a word of `errors.ERRORS`.

The result depends on the bytes and `max_pixels` alone, in every thread and whatever the process has set.  Hence
Pillow's plugins are called directly: `Image.open` would only add its own pixel limit, which is a global setting, and a
warning, which a filter may turn into an error.

How pixels become RGB, 8 bits each:

- 8-bit RGB stays as it is, bit for bit what `Image.open(...).convert("RGB")` gives.  Colour profiles are ignored, as
  the official preprocessing ignores them.
- Grey, 1-bit, palette, CMYK (JPEG: inverted, as Adobe writes it), YCbCr and LAB pixels go through Pillow's `convert`.
  Colours that a palette lacks are black.  A TIFF's colour map with no level over 255 has levels of 8 bits.
- Transparent pixels are composited on white.  A BMP with no alpha but 0 is opaque: its writer knew of no alpha.  A
  PNG's transparent colour is compared in all its bits.
- 16-bit grey is divided by 257 and rounded (12-bit TIFF: by 4095 / 255); 16-bit colour keeps the high byte, as
  Pillow gives it.
- Floating-point, 32-bit and signed pixels are refused as `unreadable`: there is no convention which level is white.
  So is what Pillow would get wrong (tests/images/test_decode_matrix.py lists all).
- Of an animation, several pages or a motion photo the first image is taken.
- EXIF orientation (1 to 8) is applied; where EXIF has none or cannot be read, that of XMP.  So does Pillow's
  `exif_transpose`, hence most code that trained on such images; browsers and OpenCV look at EXIF alone.

Broken metadata never cost an image.  What Pillow refuses is tried once more without its metadata (containers.py).

- A JPEG whose scan ends early is `truncated`, also if an end marker closes it.  libjpeg draws the rest grey and Pillow
  does not pass its warning on; but grey in the last corner tells where to look.  Two losses cannot be seen: some of the
  last 16 x 16 pixels, and a part of the last of several scans, which brings the last bit of detail.
- A PNG with a wrong CRC of a critical chunk or of tRNS is `unreadable`.

`decode_reduced` is faster for large JPEGs: libjpeg decodes them at a half, a quarter or an eighth of their width and
height.  The image is near the exact one, and so are the masks (pipelines/benchmarks/host.py).
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import (
    BmpImagePlugin,
    ExifTags,
    Image,
    ImageFile,
    ImagePalette,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from segface_batch.errors import ImageError
from segface_batch.images.containers import (
    Bare,
    bare_jpeg,
    bare_png,
    bare_tiff,
    bare_webp,
    jpeg_lacks_scans,
    jpeg_scans,
    jpeg_without_end,
    png_is_damaged,
)

#: Suffixes of the files that a folder listing takes for images, lower case.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff")

#: The most scans of a progressive JPEG; a usual one has ten.  A scan of 100 bytes makes the decoder go over every
#: pixel: 1 MB of 49 megapixels took minutes.  The limit is that of libjpeg-turbo's own fuzzers (fuzz/decompress.cc).
MAX_SCANS = 500


class DecodeError(ImageError):
    """The bytes cannot be decoded."""


def decode(data: bytes, max_pixels: int) -> Image.Image:
    """Encoded image -> upright image, mode RGB; DecodeError if it has none.

    An image of more than `max_pixels` pixels is refused by its header, before any pixel is decoded (for TIFF and WebP
    Pillow's own limit, 2 * PIL.Image.MAX_IMAGE_PIXELS, holds too).  An image that decodes is never `truncated`, so a
    PNG may lack what follows its pixels.  One that does not decode is `truncated` if it is shorter than its own headers
    say: a JPEG without end marker (even if only the marker is missing: libjpeg does not tell), a PNG without IEND, a
    WebP or BMP shorter than the length in its header, a TIFF with a directory or pixels beyond its end.  An image cut
    within its first bytes, which do not show its format, is `unreadable`.
    """
    return _decoded(data, max_pixels, None)[0]


def decode_reduced(data: bytes, max_pixels: int, side: int) -> tuple[Image.Image, int, int]:
    """As `decode`, and the upright image's true width and height; a JPEG whose width and height are at least twice
    `side` comes as a square of `side` pixels, resized from libjpeg's smallest reduction that is no smaller."""
    return _decoded(data, max_pixels, side)


def to_rgb(image: Image.Image, max_pixels: int) -> Image.Image:
    """A Pillow image -> upright image, mode RGB, as `decode` gives it; DecodeError if it has none.

    One that is opened and not loaded is decoded from its file, because Pillow alone shows some files wrongly.  It is
    loaded too, which closes the file.
    """
    pixels = image.width * image.height
    if not pixels or pixels > max_pixels:
        raise DecodeError("too_large" if pixels else "empty")
    data = _unloaded(image)
    try:
        image.load()
        if data is None:
            return _turned(_rgb(image, None), _turn(image))
    except Exception as error:  # no documented list, as in `_decoded`
        if data is None:
            raise DecodeError("too_large" if isinstance(error, MemoryError) else "unreadable") from error
    return decode(data, max_pixels)


def _unloaded(image: Image.Image) -> bytes | None:
    """The file of an image that is opened at its first frame and not loaded, in one of FORMATS; else None."""
    file = getattr(image, "fp", None)
    if file is None or file.closed or not getattr(image, "tile", None) or image.tell():
        return None
    at = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(at)  # PNG is read on from here
    return data if any(kind.magic.match(data) for kind in FORMATS.values()) else None


def _decoded(data: bytes, max_pixels: int, side: int | None) -> tuple[Image.Image, int, int]:
    if not data:
        raise DecodeError("empty")
    kind = next((kind for kind in FORMATS.values() if kind.magic.match(data)), None)
    if kind is None:
        raise DecodeError("unreadable")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set: a cut image would pass for a whole one; unset it"
        )
    try:
        try:
            return _upright(kind, Bare(data, {}), max_pixels, side)
        except (DecodeError, MemoryError, Image.DecompressionBombError):
            raise
        except Exception:  # no documented list; seen: OSError, SyntaxError, EOFError, struct.error, ...
            return _upright(kind, kind.bare(data), max_pixels, side)  # the metadata may be all that is wrong
    except DecodeError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        raise DecodeError("too_large") from error
    except Exception as error:
        raise DecodeError("truncated" if kind.is_cut(data) else "unreadable") from error


def _upright(kind: _Format, bare: Bare, max_pixels: int, side: int | None) -> tuple[Image.Image, int, int]:
    image = kind.open(bare.data)
    image.info |= bare.info
    if _is_too_large(image, bare.data, max_pixels):
        raise DecodeError("too_large")
    size = image.size
    drafted = image.draft(None, (side, side)) if side is not None else None
    image.load()
    if kind.lacks_pixels(image, bare.data):
        raise DecodeError("truncated")
    rgb = _rgb(image, bare.data)
    if side is not None and drafted is not None and image.size != size:
        # The box leaves out what the reduction's last column and row have beyond the image.
        rgb = rgb.resize((side, side), Image.Resampling.BICUBIC, drafted[1])
    else:
        size = rgb.size  # Pillow has turned a TIFF
    turn = _turn(image)
    width, height = size[::-1] if turn in _SIDEWAYS else size
    return _turned(rgb, turn), width, height


def _is_too_large(image: ImageFile.ImageFile, data: bytes, max_pixels: int) -> bool:
    """True for too many pixels in the image or in one tile of a TIFF, or too many scans."""
    pixels = image.width * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        tile = tags.get(TiffImagePlugin.TILEWIDTH, 0) * tags.get(TiffImagePlugin.TILELENGTH, 0)
        return max(pixels, tile) > max_pixels
    if pixels > max_pixels:
        return True
    return "progressive" in image.info and data.count(b"\xff\xda") > MAX_SCANS and jpeg_scans(data) > MAX_SCANS


def _rgb(image: Image.Image, data: bytes | None) -> Image.Image:
    """A loaded image of any mode -> mode RGB by the rules of the module; the same object if nothing changes."""
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode} has no agreed white")
    if image.mode.startswith("I;16"):
        return _rgb_of_16_bit_grey(image)
    if image.format == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        return image.convert("RGB")  # a writer that did not know of the alpha channel: all others show it opaque
    if image.has_transparency_data:
        white = Image.new("RGB", image.size, "white")
        if isinstance(image.info.get("transparency"), tuple):
            white.paste(image, mask=_opaque(image, data))
            return white
        colors = image.convert("LA") if image.mode == "La" else image  # Pillow would drop the alpha of La
        colors = colors if colors.mode == "RGBA" else colors.convert("RGBA")
        white.paste(colors, mask=colors)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _opaque(image: Image.Image, data: bytes | None) -> Image.Image:
    """The mask of a PNG's pixels that are not of its one transparent colour, in all bits that the file has."""
    levels = np.asarray(image).astype(np.uint16)
    if data is not None and data[_PNG_BITS] == 16:
        low = PngImagePlugin.PngImageFile(io.BytesIO(data), "")
        low.tile = [low.tile[0]._replace(args="RGB;16L")]  # the other byte of each sample
        levels = levels << 8 | np.asarray(low)
    return Image.fromarray((levels != np.array(image.info["transparency"])).any(axis=2))


def _rgb_of_16_bit_grey(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.uint32)
    tags = getattr(image, "tag_v2", {})
    white = 2 ** tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0] - 1
    if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:  # a TIFF where 0 is white; Pillow leaves it negative
        levels = white - levels
    if "transparency" in image.info:
        levels[levels == image.info["transparency"]] = white
    return Image.fromarray(((levels * 255 + white // 2) // white).astype(np.uint8)).convert("RGB")


#: EXIF orientation -> the transpose that makes the stored image upright (EXIF 2.3, section 4.6.4 A).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

#: Transposes that swap width and height.
_SIDEWAYS = tuple(_UPRIGHT[orientation] for orientation in (5, 6, 7, 8))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The transpose that makes the image upright, by its EXIF.  None for a TIFF, which Pillow turns itself.

    `ImageOps.exif_transpose` would also rewrite the EXIF, and fail where it is malformed.
    """
    if image.info.keys().isdisjoint(("exif", "xmp", "Raw profile type exif")):
        return None
    try:
        return _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # no documented list, as above; malformed EXIF must not cost a good image
        return None


def _turned(image: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    """The upright image, without the EXIF by which `to_rgb` would turn it again."""
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info = {}
    return upright


def _jpeg_is_cut(data: bytes) -> bool:
    """True if no end marker follows the start of the first scan; one before it is an embedded thumbnail's."""
    at = 2
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker < 0xFF00:
            return False
        if marker == 0xFFDA:
            return data.find(b"\xff\xd9", at) < 0
        at += 2 + length
    return True


def _png_is_cut(data: bytes) -> bool:
    """True if the chain of chunks leads beyond the end before IEND."""
    at = 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IEND" or not name.isalpha():
            return False
        at += 12 + length
    return True


def _webp_is_cut(data: bytes) -> bool:
    return 8 + struct.unpack_from("<I", data, 4)[0] > len(data)


def _bmp_is_cut(data: bytes) -> bool:
    """True if shorter than the length in its header; False where the header is none (text may start with BM)."""
    if len(data) < 18:
        return True
    length, header = struct.unpack_from("<I8xI", data, 2)
    return header in (12, 40, 52, 56, 64, 108, 124) and length > len(data)


#: Bytes of one value of each TIFF field type (TIFF 6.0, section 2).
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}

#: Fields with the offsets and lengths of a TIFF's pixels, in strips or tiles.
_TIFF_PIXELS = (
    (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.STRIPBYTECOUNTS),
    (TiffImagePlugin.TILEOFFSETS, TiffImagePlugin.TILEBYTECOUNTS),
)


def _tiff_is_cut(data: bytes) -> bool:
    """True if the first directory, a value it points to, or a strip or tile of pixels is beyond the end.

    False for a BigTIFF, which has another layout.
    """
    order = "<" if data.startswith(b"II") else ">"
    values: dict[int, tuple[int, ...]] = {}
    try:
        version, directory = struct.unpack_from(order + "HI", data, 2)
        if version != 42:
            return False
        (entries,) = struct.unpack_from(order + "H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", data, entry)
            at = entry + 8
            size = count * _TIFF_BYTES.get(kind, 0)
            if size > 4:
                (at,) = struct.unpack_from(order + "I", data, at)
            if at + size > len(data):
                return True
            if kind in (3, 4):
                values[tag] = struct.unpack_from(f"{order}{count}{'H' if kind == 3 else 'I'}", data, at)
    except struct.error:
        return True
    return any(
        offset + length > len(data)
        for offsets, lengths in _TIFF_PIXELS
        for offset, length in zip(values.get(offsets, ()), values.get(lengths, ()), strict=False)
    )


#: Where a PNG has its bits per sample, in IHDR.
_PNG_BITS = 24


def _open_png(data: bytes) -> ImageFile.ImageFile:
    """With the transparent level in the scale of Pillow's pixels: 0 to 255 for up to 8 bits."""
    image = PngImagePlugin.PngImageFile(io.BytesIO(data), "")
    transparent, bits = image.info.get("transparency"), data[_PNG_BITS]
    if image.mode == "P":
        _pad_palette(image)
    if image.mode == "L" and isinstance(transparent, int):
        image.info["transparency"] = (transparent & 2**bits - 1) * 255 // (2**bits - 1)
    elif isinstance(transparent, tuple):
        image.info["transparency"] = tuple(level & 2**bits - 1 for level in transparent)
    return image


def _pad_palette(image: ImageFile.ImageFile) -> None:
    """Colours that the palette lacks are black, as other decoders have them; Pillow makes them grey."""
    palette = image.palette
    if palette is None:
        raise ValueError("no palette")
    palette.palette = bytes(palette.palette).ljust(256 * len(palette.rawmode or "RGB"), b"\0")


def _png_is_damaged(image: ImageFile.ImageFile, data: bytes) -> bool:
    if png_is_damaged(data):
        raise ValueError("wrong CRC of pixels")
    return False


def _open_jpeg(data: bytes) -> ImageFile.ImageFile:
    file = io.BytesIO(data)
    image = JpegImagePlugin.JpegImageFile(file, "")
    image.info[_FIRST_SCAN] = file.tell()  # Pillow has read its head
    return image


#: The place in a JPEG where the first scan's head ends, in `Image.info`.
_FIRST_SCAN = "end of the first scan's head"


def _jpeg_lacks_pixels(image: JpegImagePlugin.JpegImageFile, data: bytes) -> bool:
    """True if a scan or a part of one is missing before the end marker.

    To look for it costs as much as the decoding, so that it is done only where it may be: libjpeg leaves the rest grey.
    """
    head = image.info[_FIRST_SCAN]
    if "progressive" in image.info or not data.startswith(b"\xff\xda", head - 8 - 2 * image.layers):  # several scans
        return jpeg_lacks_scans(data, head, [component[0] for component in image.layer])
    corner = image.getpixel((image.width - 1, image.height - 1))
    if not {127, 128}.issuperset(corner if isinstance(corner, tuple) else (corner,)):
        return False
    try:
        JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg_without_end(data)), "").load()
    except OSError:
        return True
    return False


def _open_webp(data: bytes) -> ImageFile.ImageFile:
    return WebPImagePlugin.WebPImageFile(io.BytesIO(data), "")


def _open_bmp(data: bytes) -> ImageFile.ImageFile:
    """With its palette: where that has but greys, Pillow 13 takes more bits a pixel for other modes than they are."""
    image = BmpImagePlugin.BmpImageFile(io.BytesIO(data), "")
    if (image.mode, data[28]) in (("1", 4), ("1", 8), ("L", 4)) and data[14] >= 40:  # bits a pixel, bytes of the header
        colors = int.from_bytes(data[46:50], "little") or 2 ** data[28]
        data = data[:46] + struct.pack("<I", colors + 1) + data[50:]  # one too many, so that they are no row of greys
        image = BmpImagePlugin.BmpImageFile(io.BytesIO(data), "")
    if image.mode == "P":
        _pad_palette(image)
    return image


def _open_tiff(data: bytes) -> ImageFile.ImageFile:
    """Right also where Pillow, as of version 13, is not; ValueError for what neither it nor libtiff gets right."""
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(data), "")
    tags = image.tag_v2
    if set(tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))) != {1}:
        raise ValueError("signed or floating-point samples have no agreed white")
    if image.palette is not None and max(colors := tags[TiffImagePlugin.COLORMAP]) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colors))  # 8-bit levels: libtiff's rule (tif_getimage.c)
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == 2:
        if image.mode not in ("1", "L", "P", "I;16", "I;16B", "RGB", "RGBA", "CMYK"):
            raise ValueError(f"planes of mode {image.mode}")
        if not image.use_load_libtiff and set(tags[TiffImagePlugin.BITSPERSAMPLE]) != {8}:
            image.use_load_libtiff = True
            mode = {"RGB": "RGB;16N", "RGBA": "RGBA;16N", "CMYK": "CMYK;16N"}[image.mode]
            size = tags[TiffImagePlugin.IMAGEWIDTH], tags[TiffImagePlugin.IMAGELENGTH]
            image.tile = [image.tile[0]._replace(codec_name="libtiff", extents=(0, 0, *size), offset=0)]
            image.tile = [image.tile[0]._replace(args=(mode, False, tags.offset))]
    elif image.mode == "YCbCr" and tags.get(TiffImagePlugin.YCBCRSUBSAMPLING, (2, 2)) != (1, 1):
        raise ValueError("uncompressed and subsampled")
    return image


def _whole(image: ImageFile.ImageFile, data: bytes) -> bool:
    return False


def _as_it_is(data: bytes) -> Bare:
    return Bare(data, {})


class _Format(NamedTuple):
    magic: re.Pattern[bytes]
    open: Callable[[bytes], ImageFile.ImageFile]
    lacks_pixels: Callable[[Any, bytes], bool]  # of an image of its plugin, loaded, and its bytes
    bare: Callable[[bytes], Bare]
    is_cut: Callable[[bytes], bool]


#: The formats that are read, told by their first bytes; no other plugin of Pillow ever runs.
FORMATS = {
    "JPEG": _Format(re.compile(rb"\xff\xd8\xff"), _open_jpeg, _jpeg_lacks_pixels, bare_jpeg, _jpeg_is_cut),
    "PNG": _Format(re.compile(rb"\x89PNG\r\n\x1a\n"), _open_png, _png_is_damaged, bare_png, _png_is_cut),
    "WEBP": _Format(re.compile(rb"(?s)RIFF....WEBP"), _open_webp, _whole, bare_webp, _webp_is_cut),
    "BMP": _Format(re.compile(rb"BM"), _open_bmp, _whole, _as_it_is, _bmp_is_cut),
    "TIFF": _Format(re.compile(rb"II[*+]\0|MM\0[*+]"), _open_tiff, _whole, bare_tiff, _tiff_is_cut),
}
