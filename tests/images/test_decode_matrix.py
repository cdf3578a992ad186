"""Every format x mode x depth x layout x compression x byte order, against pixels known by construction.

The writers here are the test's own and know nothing of Pillow; where a format cannot be written in a few lines (JPEG,
lossy WebP) OpenCV decodes it too.  An image decodes to its pixels or is refused as unreadable: never to other pixels.
`REFUSED` names all that is.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest
from PIL import Image

from segface_batch.images.decode import DecodeError, decode
from tests.corpus import encode

W, H = 19, 18  # more than one tile of 16 each way, and no whole number of bytes at 1, 2 or 4 bits
RNG = np.random.default_rng(16)


def samples(bits: int, count: int) -> np.ndarray:
    """(H, W, count) whole numbers of `bits` bits, with both ends of the range."""
    values = RNG.integers(0, 2**bits, (H, W, count))
    values[0, 0], values[0, 1] = 0, 2**bits - 1
    return values


def eight(levels: np.ndarray, bits: int) -> np.ndarray:
    """Levels of `bits` bits -> of 8 bits."""
    return (levels * 255 + (2**bits - 1) // 2) // (2**bits - 1)


def rgb(levels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(levels, (*levels.shape[:2], 3))


def on_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(color * (alpha / 255) + 255 * (1 - alpha / 255))


def packed(rows: np.ndarray, bits: int, order: str = ">") -> list[bytes]:
    """(rows, samples) -> a whole number of bytes for each row."""
    if bits == 16:
        return [row.astype(order + "u2").tobytes() for row in rows]
    ones = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    return [np.packbits(row.reshape(-1)).tobytes() for row in ones.astype(np.uint8)]


def lzw(data: bytes) -> bytes:
    """TIFF's LZW with a table cleared so early that every code has 9 bits."""
    codes = [code for i in range(0, len(data), 200) for code in (256, *data[i : i + 200])]
    ones = [(code >> (8 - i)) & 1 for code in (*codes, 257) for i in range(9)]
    return np.packbits(ones).tobytes()


def packbits(data: bytes) -> bytes:
    pieces = [data[i : i + 100] for i in range(0, len(data), 100)]
    return b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)


TIFF_COMPRESSIONS = {"raw": (1, bytes), "lzw": (5, lzw), "deflate": (8, zlib.compress), "packbits": (32773, packbits)}


def tiff(
    levels: np.ndarray,
    bits: int,
    photometric: int,
    *,
    order: str = "<",
    planar: bool = False,
    tiled: bool = False,
    compression: str = "raw",
    predictor: bool = False,
    fill: int = 1,
    big: bool = False,
    more: dict[int, tuple[int, ...]] | None = None,
) -> bytes:
    """A TIFF of (H, W, samples) levels."""
    code, compress = TIFF_COMPRESSIONS[compression]
    count = levels.shape[2]
    height, width = (16, 16) if tiled else (7, W)
    planes = [levels[..., [c]] for c in range(count)] if planar else [levels]
    pieces = []
    for plane in planes:
        for y in range(0, H, height):
            for x in range(0, W, width):
                block = plane[y : y + height, x : x + width]
                if tiled:
                    block = np.pad(block, [(0, height - block.shape[0]), (0, width - block.shape[1]), (0, 0)])
                if predictor:
                    block = np.diff(block, axis=1, prepend=0) % 2**bits
                data = b"".join(packed(block.reshape(block.shape[0], -1), bits, order))
                data = compress(data)
                if fill == 2:
                    data = np.packbits(np.unpackbits(np.frombuffer(data, np.uint8)), bitorder="little").tobytes()
                pieces.append(data)
    tags: dict[int, tuple[int, ...]] = {256: (W,), 257: (H,), 258: (bits,) * count, 259: (code,), 262: (photometric,)}
    tags |= {277: (count,), 284: (1 + planar,), 266: (fill,), 317: (1 + predictor,), 279: tuple(map(len, pieces))}
    tags |= {322: (16,), 323: (16,)} if tiled else {278: (height,)}
    if tiled:
        tags[325] = tags.pop(279)
    tags |= more or {}
    offsets = 324 if tiled else 273
    long, entry, start = ("Q", "HHQ", 16) if big else ("I", "HHI", 8)
    room = struct.calcsize("<" + long)
    directory_bytes = (8 if big else 2) + (len(tags) + 1) * (4 + 2 * room) + room
    at = start + directory_bytes
    body, entries = b"", {}
    for tag, values in tags.items():
        kind, letter = (4, "I") if tag in (279, 325) else (3, "H")
        content = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(content) > room:
            entries[tag] = kind, len(values), struct.pack(order + long, at + len(body))
            body += content + bytes(len(content) % 2)
        else:
            entries[tag] = kind, len(values), content.ljust(room, b"\0")
    places = at + len(body) + np.cumsum([0, *map(len, pieces)])[:-1]
    table = struct.pack(f"{order}{len(pieces)}{long}", *(places + (room * len(pieces) if len(pieces) > 1 else 0)))
    kind = 16 if big else 4
    if len(pieces) > 1:
        entries[offsets] = kind, len(pieces), struct.pack(order + long, at + len(body))
        body += table
    else:
        entries[offsets] = kind, 1, table
    directory = b"".join(
        struct.pack(order + entry, tag, kind, length) + value for tag, (kind, length, value) in sorted(entries.items())
    )
    head = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("HHHQ" if big else "HI"), *((43, 8, 0) if big else (42,)), start
    )
    number = struct.pack(order + ("Q" if big else "H"), len(entries))
    return head + number + directory + bytes(room) + body + b"".join(pieces)


#: (name, bits, photometric, samples, more tags)
TIFF_MODES = [
    *((f"grey {bits}", bits, 1, 1, {}) for bits in (1, 2, 4, 8, 12, 16)),
    *((f"white-is-0 {bits}", bits, 0, 1, {}) for bits in (1, 2, 4, 8, 16)),
    *((f"palette {bits}", bits, 3, 1, {}) for bits in (1, 2, 4, 8)),
    *((f"palette {bits}, 8-bit map", bits, 3, 1, {}) for bits in (2, 4, 8)),
    *((f"rgb {bits}", bits, 2, 3, {}) for bits in (8, 16)),
    *((f"rgbx {bits}", bits, 2, 4, {338: (0,)}) for bits in (8, 16)),
    *((f"rgba {bits}", bits, 2, 4, {338: (2,)}) for bits in (8, 16)),
    *((f"grey alpha {bits}", bits, 1, 2, {338: (2,)}) for bits in (8, 16)),
    *((f"cmyk {bits}", bits, 5, 4, {}) for bits in (8, 16)),
    ("signed 8", 8, 1, 1, {339: (2,)}),
]


def tiff_truth(name: str, levels: np.ndarray, bits: int, map_: np.ndarray) -> np.ndarray:
    if name.startswith("palette"):
        return map_[levels[..., 0]]
    if bits == 16 and not name.startswith(("grey 16", "white")):
        levels, bits = levels >> 8, 8  # colour keeps the high byte
    full = eight(levels, bits)
    if name.startswith("white"):
        return rgb(255 - full)
    if name.startswith("cmyk"):
        return (255 - full[..., :3]) * (255 - full[..., 3:]) / 255
    if name.startswith("rgba") or "alpha" in name:
        return on_white(rgb(full[..., :-1]), full[..., -1:])
    return rgb(full[..., :3])


def tiffs() -> Iterator[tuple[str, bytes, np.ndarray]]:
    for name, bits, photometric, count, more in TIFF_MODES:
        levels = samples(bits, count)
        map_ = RNG.integers(0, 256, (2**bits, 3))
        if photometric == 3:
            more = {320: tuple((map_.T.reshape(-1) * (1 if "8-bit" in name else 257)).tolist())}
        truth = tiff_truth(name, levels, bits, map_)
        for compression, order, tiled, planar, predictor, big, fill in itertools.product(
            TIFF_COMPRESSIONS, "<>", (False, True), (False, True), (False, True), (False, True), (1, 2)
        ):
            if (planar and count == 1) or (
                predictor and (compression not in ("lzw", "deflate") or bits < 8 or photometric == 3 or bits == 12)
            ):
                continue
            if fill == 2 and (compression not in ("raw", "packbits") or bits > 8 or big or planar):
                continue
            if big and (tiled or planar):
                continue
            layout = [compression, {"<": "II", ">": "MM"}[order], "tiles" if tiled else "strips"]
            layout += (
                ["planar"] * planar + ["predictor"] * predictor + ["BigTIFF"] * big + ["fill order 2"] * (fill == 2)
            )
            options = {"order": order, "planar": planar, "tiled": tiled, "compression": compression}
            data = tiff(levels, bits, photometric, predictor=predictor, fill=fill, big=big, more=more, **options)
            yield f"tiff {name}: {' '.join(layout)}", data, truth


#: x and y of the first pixel and the steps of each pass of a PNG with interlace (PNG 1.2, section 2.6).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))

#: Samples of each PNG colour type.
PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def filtered(rows: list[bytes], step: int, kind: int) -> bytes:
    """Scanlines under one of PNG's filters 0 to 4, `step` bytes a pixel."""
    out, above = b"", np.zeros(len(rows[0]) if rows else 0, int)
    for row in rows:
        here = np.frombuffer(row, np.uint8).astype(int)
        left = np.concatenate([np.zeros(step, int), here])[: len(here)]
        corner = np.concatenate([np.zeros(step, int), above])[: len(here)]
        near = np.stack([left, above, corner])
        paeth = np.take_along_axis(near, abs(near - (left + above - corner)).argmin(0)[None], 0)[0]
        out += (
            bytes([kind])
            + ((here - [0 * here, left, above, (left + above) // 2, paeth][kind]) % 256).astype(np.uint8).tobytes()
        )
        above = here
    return out


def png(levels: np.ndarray, bits: int, color: int, *, interlaced: bool, kind: int, before: bytes = b"") -> bytes:
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    data = b""
    for x, y, across, down in passes:
        part = levels[y::down, x::across]
        rows = packed(part.reshape(part.shape[0], -1), bits) if part.size else []
        data += filtered(rows, max(1, bits * levels.shape[2] // 8), kind)
    compressed = zlib.compress(data)
    idat = chunk(b"IDAT", compressed[:50]) + chunk(b"IDAT", compressed[50:])
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, bits, color, 0, 0, interlaced))
    return b"\x89PNG\r\n\x1a\n" + header + before + idat + chunk(b"IEND", b"")


def pngs() -> Iterator[tuple[str, bytes, np.ndarray]]:
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for color, bits in ((color, bits) for color, each in depths.items() for bits in each):
        for keyed in (False, True) if color in (0, 2, 3) else (False,):
            levels, before = samples(bits, PNG_SAMPLES[color]), b""
            map_ = RNG.integers(0, 256, (2**bits, 3))
            alpha = np.full((H, W, 1), 255)
            if color == 3:
                before = chunk(b"PLTE", map_.astype(np.uint8).tobytes())
                if keyed:
                    alphas = RNG.integers(0, 256, 2**bits)
                    before += chunk(b"tRNS", alphas.astype(np.uint8).tobytes())
                    alpha = alphas[levels]
            elif keyed:
                key = levels[3, 3]
                levels[5, 5], levels[6, 6] = key, key ^ 1  # the lowest bit alone tells the second from it
                before = chunk(b"tRNS", key.astype(">u2").tobytes())
                alpha = np.where((levels == key).all(-1, keepdims=True), 0, 255)
            elif color in (4, 6):
                alpha = levels[..., -1:] >> (bits - 8)
            full = levels >> 8 if bits == 16 and color else eight(levels, bits)
            full = map_[levels[..., 0]] if color == 3 else full[..., : 3 if color & 2 else 1]
            for interlaced, kind in itertools.product((False, True), range(5)):
                name = f"png colour type {color}, {bits} bits{', tRNS' * keyed}: filter {kind}{', Adam7' * interlaced}"
                yield (
                    name,
                    png(levels, bits, color, interlaced=interlaced, kind=kind, before=before),
                    on_white(rgb(full), alpha),
                )


#: Masks of red, green, blue and alpha in 16 or 32 bits.
BMP_MASKS = {
    "565": (16, (0xF800, 0x7E0, 0x1F, 0)),
    "555": (16, (0x7C00, 0x3E0, 0x1F, 0)),
    "BGRX": (32, (0xFF0000, 0xFF00, 0xFF, 0)),
    "BGRA": (32, (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
    "RGBA": (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
    "ABGR": (32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
    "10 bits": (32, (0x3FF00000, 0xFFC00, 0x3FF, 0)),
}


def bmp(
    rows: list[bytes],
    bits: int,
    header: int,
    *,
    compression: int = 0,
    down: bool = False,
    masks: bytes = b"",
    colors: bytes = b"",
    number: int = 0,
) -> bytes:
    """A BMP of whole rows, the upper one first."""
    data = (
        b"".join(row + bytes(-len(row) % 4) for row in (rows if down else rows[::-1]))
        if compression in (0, 3)
        else rows[0]
    )
    if header == 12:
        info = struct.pack("<IHHHH", 12, W, H, 1, bits)
    else:
        info = struct.pack(
            "<IiiHHIIiiII", header, W, -H if down else H, 1, bits, compression, len(data), 0, 0, number, 0
        )
        info = info + masks[:12] if header == 40 else (info + masks)[:header].ljust(header, b"\0")
    offset = 14 + len(info) + len(colors)
    return struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset) + info + colors + data


def rle(levels: np.ndarray, bits: int) -> bytes:
    """RLE8 or RLE4 of (H, W) indices: an absolute run, then runs of one, each row ended."""
    out = b""
    for row in levels[::-1]:
        first = row[:6]
        content = bytes(first.tolist()) if bits == 8 else bytes((first[0::2] << 4 | first[1::2]).tolist())
        out += b"\0\6" + content + bytes(len(content) % 2)
        out += b"".join(bytes([1, level if bits == 8 else level << 4]) for level in row[6:].tolist()) + b"\0\0"
    return out + b"\0\1"


def bmps() -> Iterator[tuple[str, bytes, np.ndarray]]:
    headers = (12, 40, 52, 56, 64, 108, 124)
    palettes = {"colours": RNG.integers(0, 256, (256, 3)), "identity": np.repeat(np.arange(256)[:, None], 3, 1)}
    palettes["black and white"] = np.array([[0] * 3, [255] * 3])
    for header, down in itertools.product(headers, (False, True)):
        if header == 12 and down:
            continue
        way = f"header {header}{', top-down' * down}"
        for (name, map_), bits in itertools.product(palettes.items(), (1, 4, 8)):
            number = min(len(map_), 2**bits) if header > 12 else 2**bits
            map_ = np.resize(map_, (2**bits, 3)) if len(map_) < number else map_[:number]
            levels = RNG.integers(0, min(number, len(map_)), (H, W))
            colors = b"".join(bytes(color[::-1].tolist()) + bytes(header > 12) for color in map_)
            yield (
                f"bmp {bits} bits, {name}: {way}",
                bmp(packed(levels, bits), bits, header, down=down, colors=colors, number=number),
                map_[levels],
            )
            if bits > 1 and header > 12 and not down:
                yield (
                    f"bmp RLE{bits}, {name}: {way}",
                    bmp(
                        [rle(levels, bits)], bits, header, compression={8: 1, 4: 2}[bits], colors=colors, number=number
                    ),
                    map_[levels],
                )
        levels = samples(8, 3)
        yield f"bmp 24 bits: {way}", bmp(packed(levels[..., ::-1].reshape(H, -1), 8), 24, header, down=down), levels
        if header == 12:
            continue
        pixels = np.concatenate([levels[..., ::-1], samples(8, 1)], -1)
        yield f"bmp 32 bits: {way}", bmp(packed(pixels.reshape(H, -1), 8), 32, header, down=down), levels
        for (name, (bits, masks)), filler in itertools.product(BMP_MASKS.items(), (None, 0, 255)):
            if (masks[3] and header < 56) or header == 64:
                continue
            widths = [mask.bit_count() for mask in masks]
            shifts = [(mask & -mask).bit_length() - 1 if mask else 0 for mask in masks]
            parts = [samples(width, 1)[..., 0] if width else np.zeros((H, W), int) for width in widths]
            if masks[3] and filler is not None:
                parts[3] = np.full((H, W), filler)
            elif filler is not None:
                continue
            words = np.sum([part << shift for part, shift in zip(parts, shifts, strict=True)], 0)
            rows = [row.astype(f"<u{bits // 8}").tobytes() for row in words]
            full = np.stack([eight(part, width) for part, width in zip(parts[:3], widths[:3], strict=True)], -1)
            alpha = parts[3][..., None] if masks[3] and parts[3].any() else np.full((H, W, 1), 255)
            data = bmp(rows, bits, header, compression=3, down=down, masks=struct.pack("<4I", *masks))
            yield f"bmp masks {name}, alpha {filler}: {way}", data, on_white(full, alpha)


def smooth(channels: int) -> np.ndarray:
    """A ramp with some noise, that JPEG keeps."""
    y, x = np.mgrid[:H, :W]
    ramp = np.stack([8 * x + 3 * y, 200 - 6 * x, 5 * x + 7 * y, 255 - 3 * y][:channels], -1)
    return (ramp + RNG.integers(-9, 10, ramp.shape)).clip(0, 255).astype(np.uint8)


def opencv(data: bytes) -> np.ndarray:
    """What OpenCV makes of it, on white."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    image = image.reshape(*image.shape[:2], -1)
    colors = rgb(image[..., 2::-1])
    return on_white(colors, image[..., 3:]) if image.shape[2] == 4 else colors


def jpegs() -> Iterator[tuple[str, bytes, np.ndarray]]:
    samplings = {
        name: getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}") for name in ("411", "420", "422", "440", "444")
    }
    for channels, (sampling, factor), progressive, optimized, restart, quality in itertools.product(
        (1, 3), samplings.items(), (0, 1), (0, 1), (0, 1), (30, 100)
    ):
        options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
        options += [cv2.IMWRITE_JPEG_OPTIMIZE, optimized, cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
        data = cv2.imencode(".jpg", smooth(channels), [*options, cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        name = f"jpeg {channels} samples: {sampling}{', progressive' * progressive}{', optimized' * optimized}"
        yield f"{name}{', restarts' * restart}, quality {quality}", data, opencv(data)
    for progressive, quality in itertools.product((False, True), (30, 100)):
        data = encode(Image.fromarray(smooth(4), "CMYK"), "JPEG", quality=quality, progressive=progressive)
        yield f"jpeg cmyk: quality {quality}{', progressive' * progressive}", data, opencv(data)


def webps() -> Iterator[tuple[str, bytes, np.ndarray]]:
    for channels, quality in itertools.product((3, 4), (10, 90, 101)):
        pixels = smooth(channels)
        data = cv2.imencode(".webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
        truth = (
            opencv(data)
            if quality < 101
            else on_white(pixels[..., 2::-1], pixels[..., 3:] if channels == 4 else np.full((H, W, 1), 255))
        )
        yield f"webp {channels} samples: {'lossless' if quality > 100 else f'quality {quality}'}", data, truth


#: All that is refused: what Pillow has no mode for, or was found here to get wrong.
REFUSED = re.compile(
    r"tiff .*MM .*BigTIFF"
    r"|tiff (cmyk|rgba|rgbx|grey alpha) 8: .*fill order 2"
    r"|tiff (palette [124]|white-is-0 8).*: raw .*fill order 2"
    r"|tiff (grey 12|white-is-0 16): .*MM"
    r"|tiff grey alpha 16|tiff grey alpha 8: .*planar"
    r"|tiff rgbx 8: raw .*planar"
    r"|tiff signed"
    r"|bmp masks 10 bits"
    r"|bmp 4 bits, identity: header 12$"
)

CASES = {tiffs: 1284, pngs: 260, bmps: 272, jpegs: 164, webps: 6}


@pytest.mark.parametrize("cases", CASES)
def test_every_image_has_its_pixels_or_is_refused(cases: Callable[[], Iterator[tuple[str, bytes, np.ndarray]]]) -> None:
    """Within 1 of 255, where alpha, CMYK or few bits are rounded."""
    wrong, everything = [], list(cases())
    for name, data, truth in everything:
        try:
            image = decode(data, W * H)
        except DecodeError as error:
            right = str(error) == "unreadable" and REFUSED.match(name)
        else:
            right = image.size == (W, H) and np.abs(np.asarray(image, float) - truth).max() <= 1
            right = right and not REFUSED.match(name)
        if not right:
            wrong.append(name)
    assert wrong == []
    assert len(everything) == CASES[cases]
