"""What a file's bytes tell without a pixel decoded: where its metadata are, whether its pixels are all there.

Pillow refuses a whole image for a broken comment: text beyond its limits, a wrong checksum, a segment too short.  It
accepts a JPEG whose end was cut off, and a PNG with a wrong checksum of its pixels.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple


class Bare(NamedTuple):
    """A file without metadata, and those that may say which way is up, as `Image.getexif` finds them in `info`."""

    data: bytes
    info: dict[str, bytes | str]


#: Bytes of compressed metadata that are expanded at most; the orientation is near their beginning.
MAX_TEXT = 2**20


def png_chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """(name, chunk with length and CRC) up to IEND; the last one may be cut."""
    view, at = memoryview(data), 8
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if name == b"IEND" or not name.isalpha():
            return
        yield name, view[at : at + 12 + length]
        at += 12 + length


def png_is_damaged(data: bytes) -> bool:
    """True for a wrong CRC of the pixels, which Pillow does not look at (only at zlib's own checksum, mostly)."""
    return not all(_crc_is_right(chunk) for name, chunk in png_chunks(data) if name == b"IDAT")


def _crc_is_right(chunk: memoryview) -> bool:
    """False for a wrong CRC; one that is cut is not looked at."""
    length = int.from_bytes(chunk[:4], "big")
    return len(chunk) < 12 + length or zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def bare_png(data: bytes) -> Bare:
    """Critical chunks and tRNS up to the pixels, the pixels, and no more."""
    pieces: list[bytes | memoryview] = [data[:8]]
    info: dict[str, bytes | str] = {}
    pixels = False
    for name, chunk in png_chunks(data):
        pixels |= name == b"IDAT"
        if name == b"IDAT" or (not pixels and (name == b"tRNS" or name[:1].isupper())):
            pieces.append(chunk)
        elif _crc_is_right(chunk):
            info |= _orientation_in(name, bytes(chunk[8:-4]))
    return Bare(b"".join((*pieces, b"\0\0\0\0IEND\xaeB`\x82")), info)


def _orientation_in(name: bytes, content: bytes) -> dict[str, bytes | str]:
    """EXIF or XMP of a PNG chunk."""
    keyword, _, text = content.partition(b"\0")
    if name == b"eXIf":
        return {"exif": content}
    if keyword == b"Raw profile type exif" and name in (b"tEXt", b"zTXt"):  # by ImageMagick and ExifTool
        return {keyword.decode(): (text if name == b"tEXt" else _expanded(text[1:])).decode("latin-1")}
    if keyword == b"XML:com.adobe.xmp" and name == b"iTXt" and text.count(b"\0", 2) >= 2:
        words = text[2:].split(b"\0", 2)[2]
        return {"xmp": _expanded(words) if text[0] else words}
    return {}


def _expanded(text: bytes) -> bytes:
    """The beginning of zlib-compressed text; nothing of what is no such text."""
    try:
        return zlib.decompressobj().decompress(text, MAX_TEXT)
    except zlib.error:
        return b""


#: A JPEG marker, after whatever libjpeg skips on its way to one, and one that ends a scan.
_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")

_SOF, _DHT, _SOI, _EOI, _SOS, _COM = 0xC0, 0xC4, 0xD8, 0xD9, 0xDA, 0xFE

#: Markers without a length: TEM and the restarts.
_ALONE = (0x01, *range(0xD0, 0xD8))

#: Segments by which libjpeg knows the colours.
_COLORS = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start, end) of the first image up to its end marker, or to where no segment can be."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        start, marker = found.start(), found[0][1]
        length = 0 if marker in (*_ALONE, _EOI) else int.from_bytes(data[start + 2 : start + 4], "big")
        at = start + 2 + length
        if at > len(data) or marker in (_SOI, *range(0x02, _SOF)) or (length < 2 and marker not in (*_ALONE, _EOI)):
            return
        yield marker, start, at
        if marker == _EOI:
            return
        if marker == _SOS:
            end = _SCAN_END.search(data, at)
            at = len(data) if end is None else end.start()


def bare_jpeg(data: bytes) -> Bare:
    """The file without its comments and application segments, except those that tell the colours."""
    view = memoryview(data)
    pieces: list[bytes | memoryview] = [data[:2]]
    exif, xmp = [], []
    at = 2
    for marker, start, at in jpeg_segments(data):
        if marker == _SOS:
            at = start
            break
        content = view[start + 4 : at]
        if marker == 0xE1 and content[:6] == b"Exif\0\0":
            exif.append(content[6:])
        elif marker == 0xE1 and content[:29] == b"http://ns.adobe.com/xap/1.0/\0":
            xmp.append(content[29:])
        if not (0xE0 <= marker <= 0xEF or marker == _COM) or (
            marker in _COLORS and content[:5] == _COLORS[marker] and len(content) >= 12
        ):
            pieces.append(view[start:at])
    info: dict[str, bytes | str] = {"exif": b"".join((b"Exif\0\0", *exif))} if exif else {}
    return Bare(b"".join((*pieces, view[at:])), info | ({"xmp": bytes(xmp[-1])} if xmp else {}))


def jpeg_scans(data: bytes) -> int:
    """Scans of the first image."""
    return sum(marker == _SOS for marker, _, _ in jpeg_segments(data))


def jpeg_lacks_scans(data: bytes, head: int, components: list[int]) -> bool:
    """True if not every bit of every coefficient of a JPEG's components has its scan.

    `head` is where the first scan's head ends.  Scans are looked for to the end of the file, which is quicker than to
    look for the image's end.
    """
    missing = dict.fromkeys(components, 2**64 - 1)  # component -> a bit for each coefficient
    for found in _SCAN.finditer(data, head - 16):
        end = found.end() + 2 * found[1][0]
        first, last, bits = data[end : end + 3].ljust(3, b"\xff")
        for component in data[found.end() : end : 2] if not bits & 15 else b"":
            missing[component] = missing.get(component, 0) & ~(2 ** (last + 1) - 2**first)
    return any(missing.values())


#: The beginning of a scan of one to four components.
_SCAN = re.compile(rb"\xff\xda\0[\x08\x0a\x0c\x0e]([\1-\4])")


#: What a decoder finds behind a scan in place of a marker: as much as libjpeg's buffer of 64 bits looks ahead, all
#: ones, which no code has.  A whole scan needs none of it; one that lacks more than a block of 8 x 8 needs more.
_LOOK_AHEAD = b"\xff\0" * 8


def jpeg_without_end(data: bytes) -> bytes:
    """The file up to the end of its first scan, so that a decoder asks for more if pixels are missing.

    At an end marker libjpeg draws them grey with a warning, which Pillow does not pass on.
    """
    end = next((end for marker, _, end in jpeg_segments(data) if marker == _SOS), len(data))
    found = _SCAN_END.search(data, end)
    return data if found is None else data[: found.start()] + _LOOK_AHEAD


_WEBP_PIXELS = (b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"VP8 ", b"VP8L")

#: The bit of VP8X that announces EXIF.
_WEBP_EXIF = 0x08


def bare_webp(data: bytes) -> Bare:
    """The chunks of the canvas and of pixels; the file as it is if the EXIF that it announces is beyond its end."""
    view, at = memoryview(data), 12
    pieces: list[bytes | memoryview] = []
    info: dict[str, bytes | str] = {}
    while at + 8 <= len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        end = at + 8 + length
        if name in _WEBP_PIXELS:
            pieces.append(view[at : end + length % 2])
        elif name == b"EXIF":
            info["exif"] = data[at + 8 : end]
        elif name == b"XMP ":
            info["xmp"] = data[at + 8 : end]
        at = end + length % 2
    if data[12:16] == b"VP8X" and data[20] & _WEBP_EXIF and "exif" not in info:
        return Bare(data, {})
    size = struct.pack("<I", 4 + sum(map(len, pieces)))
    return Bare(b"".join((b"RIFF", size, b"WEBP", *pieces)), info)


#: TIFF tags that pixels depend on, by TIFF 6.0: size, samples, compression, strips, tiles, colours, orientation, the
#: old and the new JPEG.
_TIFF_PIXELS = {*range(254, 260), 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326)}
_TIFF_PIXELS |= {332, 338, 339, 347, *range(512, 522), *range(529, 533)}


def bare_tiff(data: bytes) -> Bare:
    """The file with tags of pixels only in its first directory, and no other; as it is if its directory is cut."""
    order = "<" if data.startswith(b"II") else ">"
    long, number, entry = ("Q", "Q", "HHQ8s") if 43 in data[2:4] else ("I", "H", "HHI4s")  # BigTIFF, TIFF
    try:
        (start,) = struct.unpack_from(order + long, data, 8 if long == "Q" else 4)
        (count,) = struct.unpack_from(order + number, data, start)
    except struct.error:
        return Bare(data, {})
    at, size = start + struct.calcsize(order + number), struct.calcsize(order + entry)
    end = at + count * size
    if end > len(data):
        return Bare(data, {})
    entries = [data[i : i + size] for i in range(at, end, size)]
    kept = [each for each in entries if struct.unpack_from(order + "H", each)[0] in _TIFF_PIXELS]
    directory = struct.pack(order + number, len(kept)) + b"".join(kept) + bytes(struct.calcsize(order + long))
    if start + len(directory) > end:  # every tag is kept
        return Bare(data, {})
    return Bare(data[:start] + directory + data[start + len(directory) :], {})
