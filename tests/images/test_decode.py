"""Pixels of every mode, a reason for every broken file, in bounded memory and from many threads at once."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from segface_batch.images.decode import SUFFIXES, DecodeError, decode, to_rgb
from tests.corpus import ENCODERS, STORED, encode, face, oriented, png, png_bomb, png_chunk, write_broken, write_corpus

#: Pillow warns of malformed EXIF and TIFF directories; where pytest makes errors of warnings, it would fail instead.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

LIMIT = 1_000_000

#: 2 rows of 3: no two pixels alike, no symmetry.
COLORS = np.array([[(255, 0, 0), (0, 255, 0), (0, 0, 255)], [(10, 20, 30), (200, 100, 50), (0, 0, 0)]], np.uint8)
RGB = Image.fromarray(COLORS)
GREY = Image.fromarray(np.array([[0, 127, 255], [1, 128, 254]], np.uint8))


def outcome(data: bytes, max_pixels: int = LIMIT) -> str | tuple[tuple[int, int], bytes]:
    """The reason, or (width, height) and RGB bytes."""
    try:
        image = decode(data, max_pixels)
    except DecodeError as error:
        return str(error)
    assert image.mode == "RGB"
    return image.size, image.tobytes()


def plain(data: bytes) -> tuple[tuple[int, int], bytes]:
    """What Pillow alone makes of it."""
    with Image.open(io.BytesIO(data)) as image:
        image = image.convert("RGB")
    return image.size, image.tobytes()


def grey(*rows: list[int]) -> list[list[tuple[int, int, int]]]:
    return [[(level, level, level) for level in row] for row in rows]


def tiff(
    order: str, bits: tuple[int, ...], photometric: int, width: int, pixels: bytes, *more: tuple[int, int]
) -> bytes:
    """A raw TIFF of one row; `more` are further (tag, short value) fields."""
    fields = {256: width, 257: 1, 259: 1, 262: photometric, 273: 256, 277: len(bits), 278: 1, **dict(more)}
    entries = [(tag, struct.pack(order + "HHIH2x", tag, 3, 1, value)) for tag, value in fields.items()]
    entries.append((279, struct.pack(order + "HHII", 279, 4, 1, len(pixels))))
    packed = struct.pack(f"{order}{len(bits)}H", *bits)
    if len(bits) > 2:
        entries.append((258, struct.pack(order + "HHII", 258, 3, len(bits), 240)))
    else:
        entries.append((258, struct.pack(order + "HHI", 258, 3, len(bits)) + packed.ljust(4, b"\0")))
    directory = struct.pack(order + "H", len(entries)) + b"".join(entry for _, entry in sorted(entries)) + bytes(4)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    return (head + directory).ljust(240, b"\0") + packed.ljust(16, b"\0") + pixels


def palette() -> Image.Image:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def alpha(mode: str, *values: tuple[int, ...]) -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


#: What is under a transparent pixel must not show: alpha 0 gives white, 51 (a fifth) four fifths of white.
RGBA = alpha("RGBA", (200, 100, 0, 0), (200, 100, 0, 51), (200, 100, 0, 255))
RGBA_ON_WHITE = [[(255, 255, 255), (244, 224, 204), (200, 100, 0)]]

MODES = {
    "png rgb": (encode(RGB, "PNG"), COLORS),
    "bmp rgb": (encode(RGB, "BMP"), COLORS),
    "tiff rgb": (encode(RGB, "TIFF"), COLORS),
    "tiff rgb lzw": (encode(RGB, "TIFF", compression="tiff_lzw"), COLORS),
    "webp rgb": (encode(RGB, "WEBP", lossless=True), COLORS),
    "png grey": (encode(GREY, "PNG"), grey([0, 127, 255], [1, 128, 254])),
    "bmp grey": (encode(GREY, "BMP"), grey([0, 127, 255], [1, 128, 254])),
    "png 1 bit": (png(3, 1, 1, 0, b"\0\xa0"), grey([255, 0, 255])),
    "png 2 bit grey": (png(4, 1, 2, 0, b"\0\x1b"), grey([0, 85, 170, 255])),
    "tiff 1 bit, 0 is white": (tiff("<", (1,), 0, 3, b"\xa0"), grey([0, 255, 0])),
    "png palette": (encode(palette(), "PNG"), [[(255, 0, 0), (0, 255, 0), (0, 0, 255)]]),
    "png palette, one colour transparent": (
        encode(palette(), "PNG", transparency=1),
        [[(255, 0, 0), (255, 255, 255), (0, 0, 255)]],
    ),
    "png palette with alpha": (
        encode(palette(), "PNG", transparency=bytes([255, 0, 51])),
        [[(255, 0, 0), (255, 255, 255), (204, 204, 255)]],
    ),
    "png grey, one level transparent": (encode(GREY, "PNG", transparency=127), grey([0, 255, 255], [1, 128, 254])),
    "png rgb, one colour transparent": (
        encode(RGB, "PNG", transparency=(255, 0, 0)),
        [[(255, 255, 255), (0, 255, 0), (0, 0, 255)], COLORS[1].tolist()],
    ),
    "png rgba": (encode(RGBA, "PNG"), RGBA_ON_WHITE),
    "tiff rgba": (encode(RGBA, "TIFF"), RGBA_ON_WHITE),
    "webp rgba": (encode(RGBA, "WEBP", lossless=True, exact=True), RGBA_ON_WHITE),
    "png grey alpha": (encode(alpha("LA", (100, 0), (100, 51), (100, 255)), "PNG"), grey([255, 224, 100])),
    "tiff grey, premultiplied alpha": (tiff("<", (8, 8), 1, 2, bytes([20, 51, 100, 255]), (338, 1)), grey([224, 100])),
    "png 16 bit grey": (png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 0, 128, 129, 65535)), grey([0, 0, 1, 255])),
    "png 16 bit grey, one level transparent": (
        png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 1000, 25700), before=png_chunk(b"tRNS", struct.pack(">H", 1000))),
        grey([255, 100]),
    ),
    "png 16 bit rgb": (
        png(2, 1, 16, 2, b"\0" + struct.pack(">6H", 0, 0x01FF, 0xFFFF, 0x8000, 0x7FFF, 0x1234)),
        [[(0, 1, 255), (128, 127, 18)]],
    ),
    "png 16 bit rgba": (png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 0xC800, 0x6400, 0, 0x3300)), [[(244, 224, 204)]]),
    "tiff 16 bit grey, little-endian": (tiff("<", (16,), 1, 2, struct.pack("<2H", 25700, 65535)), grey([100, 255])),
    "tiff 16 bit grey, big-endian": (tiff(">", (16,), 1, 2, struct.pack(">2H", 25700, 65535)), grey([100, 255])),
    "tiff 16 bit grey, 0 is white": (tiff("<", (16,), 0, 2, struct.pack("<2H", 25700, 65535)), grey([155, 0])),
    "tiff 12 bit grey": (tiff("<", (12,), 1, 2, bytes([0xFF, 0xF8, 0x00])), grey([255, 128])),
    "tiff cmyk": (
        encode(alpha("CMYK", (0, 0, 0, 0), (255, 0, 0, 0), (0, 0, 0, 255)), "TIFF"),
        [[(255,) * 3, (0, 255, 255), (0,) * 3]],
    ),
    "jpeg cmyk, inverted as Adobe does": (
        encode(Image.new("CMYK", (1, 1), (0, 0, 255, 0)), "JPEG", quality=100),
        [[(255, 255, 0)]],
    ),
    "tiff ycbcr": (encode(Image.new("YCbCr", (1, 1), (76, 85, 255)), "TIFF"), [[(254, 0, 0)]]),
    "tiff lab": (tiff("<", (8, 8, 8), 8, 1, bytes([255, 0, 0])), [[(254, 255, 254)]]),
    "png animated": (encode(RGB, "PNG", save_all=True, append_images=[RGB.rotate(180)]), COLORS),
    "webp animated": (encode(RGB, "WEBP", save_all=True, append_images=[RGB.rotate(180)], lossless=True), COLORS),
    "tiff of two pages": (encode(RGB, "TIFF", save_all=True, append_images=[GREY.copy()]), COLORS),
    "png 1x1": (encode(RGB.crop((0, 0, 1, 1)), "PNG"), [[(255, 0, 0)]]),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_gives_its_pixels(name: str) -> None:
    data, expected = MODES[name]
    assert np.asarray(decode(data, LIMIT)).tolist() == np.asarray(expected).tolist()


@pytest.mark.parametrize("mode", ["F", "I"])
def test_pixels_without_an_agreed_white_are_refused(mode: str) -> None:
    assert outcome(encode(Image.new(mode, (2, 2)), "TIFF")) == "unreadable"


@pytest.mark.parametrize(
    "name", ["jpeg", "jpeg 4:4:4", "jpeg progressive", "jpeg grey", "jpeg cmyk", "mpo", "png", "webp", "tiff jpeg"]
)
def test_pixels_are_those_of_pillow_bit_for_bit(name: str) -> None:
    data = ENCODERS[name][1](face(203, 150, random.Random(0)))
    assert outcome(data) == plain(data)


#: What a viewer does with the stored image (EXIF 2.3, Orientation), in numpy and not by Pillow's table.
UPRIGHT = {
    1: COLORS,
    2: COLORS[:, ::-1],
    3: COLORS[::-1, ::-1],
    4: COLORS[::-1],
    5: COLORS.transpose(1, 0, 2),
    6: np.rot90(COLORS, -1),
    7: COLORS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(COLORS),
}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_is_applied_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.asarray(decode(data, LIMIT)).tolist() == UPRIGHT[orientation].tolist()


def test_a_jpeg_turned_by_exif_keeps_the_pixels_of_pillow() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(face(40, 30, random.Random(0)), "JPEG", exif=exif)
    (width, height), pixels = plain(data)
    stored = np.frombuffer(pixels, np.uint8).reshape(height, width, 3)
    assert np.array_equal(np.asarray(decode(data, LIMIT)), np.rot90(stored, -1))


def orientation_field(kind: int, count: int, value: bytes) -> bytes:
    return b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01" + struct.pack("<HI", kind, count) + value + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        orientation_field(3, 1, b"\x09\0\0\0"),
        orientation_field(3, 1, b"\0\0\0\0"),
        orientation_field(2, 4, b"six\0"),
        orientation_field(5, 1, b"\xff\xff\0\0"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_malformed_exif_does_not_cost_a_good_image(kind: str, exif: bytes) -> None:
    data = encode(RGB, kind, exif=exif)
    assert outcome(data) == plain(data)


def test_one_pixel_more_than_allowed_is_too_large() -> None:
    assert outcome(encode(RGB, "PNG"), max_pixels=6) == ((3, 2), COLORS.tobytes())
    assert outcome(encode(RGB, "PNG"), max_pixels=5) == "too_large"


def test_a_pillow_image_of_one_pixel_more_than_allowed_is_too_large() -> None:
    opened = Image.open(io.BytesIO(encode(RGB, "PNG")))
    assert to_rgb(RGB, 6).tobytes() == to_rgb(opened, 6).tobytes() == COLORS.tobytes()
    for image in (RGB, Image.open(io.BytesIO(encode(RGB, "PNG")))):
        with pytest.raises(DecodeError, match=r"\Atoo_large\Z"):
            to_rgb(image, 5)
    with pytest.raises(DecodeError, match=r"\Aempty\Z"):
        to_rgb(Image.new("RGB", (3, 0)), 5)


def test_the_limit_is_the_callers_and_not_pillows(recwarn: pytest.WarningsRecorder) -> None:
    """100 megapixels make `Image.open` warn, 200 make it fail."""
    assert outcome(png_bomb(10_000, 10_000), max_pixels=99_999_999) == "too_large"
    only_the_header = png(20_000, 10_000, 1, 0, b"")[:-12]
    assert outcome(only_the_header, max_pixels=199_999_999) == "too_large"
    assert outcome(only_the_header, max_pixels=200_000_000) == "truncated"
    assert list(recwarn) == []


def cuttable() -> dict[str, bytes]:
    """Small files whose every byte belongs to the first image, and a JPEG with a whole thumbnail in its EXIF."""
    image = face(24, 20, random.Random(0))
    names = ("jpeg", "jpeg progressive", "jpeg grey", "png", "png palette", "png 16 bit", "webp", "webp rgba")
    names += ("webp lossless", "webp animated", "bmp", "bmp palette", "tiff", "tiff lzw", "tiff jpeg", "tiff 16 bit")
    thumbnail = b"Exif\0\0" + encode(image.resize((8, 8)), "JPEG")
    return {name: ENCODERS[name][1](image) for name in names} | {
        "jpeg with a thumbnail": encode(image, "JPEG", exif=thumbnail),
        "tiff big-endian": tiff(">", (8, 8, 8), 2, 3, bytes(range(9))),
    }


@pytest.mark.parametrize("name", cuttable())
def test_an_image_cut_anywhere_is_truncated_or_whole(name: str) -> None:
    data = cuttable()[name]
    whole = outcome(data)
    assert not isinstance(whole, str)
    for length in range(12, len(data)):  # 12: every format shows by then
        assert outcome(data[:length]) in ("truncated", whole), length
    assert outcome(data[: len(data) * 3 // 4]) == "truncated"


def test_only_what_follows_the_pixels_may_be_missing() -> None:
    image = encode(face(24, 20, random.Random(0)), "PNG")
    jpeg = encode(face(24, 20, random.Random(0)), "JPEG")
    assert outcome(image[:-12]) == outcome(image)
    assert outcome(image[:-24]) == "truncated"
    assert outcome(jpeg[:-1]) == "truncated"
    assert outcome(jpeg + bytes(1000)) == outcome(jpeg)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\xff", "unreadable"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"RIFF\xff\0\0\0WEBP", "truncated"),
        (b"BM", "truncated"),
        (b"II*\0", "truncated"),
        (b"BMW is a maker of cars, and this is a text.", "unreadable"),
        (b"<html></html>", "unreadable"),
        (bytes(10_000), "unreadable"),
        (b"\xff\xd8\xff\xe0\0\x10" + bytes(40), "unreadable"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "unreadable"),
        (b"II+\0" + bytes(40), "unreadable"),
        (encode(RGB, "GIF"), "unreadable"),
        (encode(RGB, "PPM"), "unreadable"),
        (png(100_000, 100_000, 8, 2, b""), "too_large"),
        (png(0, 5, 8, 2, b""), "unreadable"),
        (png(3, 2, 8, 2, b"\0" * 5), "unreadable"),
    ],
)
def test_every_broken_file_has_its_reason(data: bytes, reason: str) -> None:
    assert outcome(data) == reason


def test_pillow_is_not_asked_while_it_passes_cut_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(RuntimeError, match="LOAD_TRUNCATED_IMAGES is set"):
        decode(encode(RGB, "PNG"), LIMIT)


def test_the_corpus_keeps_its_promises(tmp_path: Path) -> None:
    good = write_corpus(tmp_path, good=3 * len(ENCODERS), seed=7)
    assert len(set(good)) == 3 * len(ENCODERS)
    assert {path.suffix.lower() for path in good} == set(SUFFIXES)
    assert {str(path): outcome(path.read_bytes()) for path in good if isinstance(outcome(path.read_bytes()), str)} == {}
    expected = write_broken(tmp_path)
    decoded = {name: reason for name, reason in expected.items() if reason not in (None, "forbidden")}
    assert {name: outcome((tmp_path / name).read_bytes()) for name in decoded} == decoded
    again = write_corpus(tmp_path / "again", good=len(ENCODERS), seed=7)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in good[: len(again)]]


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def wrong_crc(name: bytes, content: bytes) -> bytes:
    chunk = png_chunk(name, content)
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


MB = bytes(1_400_000)

#: PNG chunks that cost no image: text and profiles over Pillow's limits, wrong checksums, contents that are none.
PNG_METADATA = {
    "iTXt": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(MB)),
    "zTXt": png_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(MB)),
    "zTXt, no zlib": png_chunk(b"zTXt", b"workflow\0\0" + b"abc"),
    "zTXt, no method": png_chunk(b"zTXt", b"workflow"),
    "zTXt, unknown method": png_chunk(b"zTXt", b"workflow\0\1abc"),
    "tEXt": png_chunk(b"tEXt", b"workflow\0" + MB),
    "100 MB of text in all": png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**20))) * 100,
    "iCCP": png_chunk(b"iCCP", b"x\0\0" + zlib.compress(MB)),
    "iCCP, unknown method": png_chunk(b"iCCP", b"x\0\1abc"),
    "iCCP, empty": png_chunk(b"iCCP", b""),
    **{
        f"{name.decode()}, {fault}": chunk
        for name in (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"eXIf", b"tIME", b"acTL")
        for fault, chunk in (("wrong CRC", wrong_crc(name, bytes(40))), ("short", png_chunk(name, b"")))
    },
    "fcTL beyond the image": png_chunk(b"fcTL", struct.pack(">7I", 0, 999, 999, 0, 0, 1, 0)),
    "private": wrong_crc(b"prVt", b"x"),
}


@pytest.mark.parametrize("name", PNG_METADATA)
def test_no_chunk_of_metadata_costs_a_png(name: str) -> None:
    whole, chunk = encode(RGB, "PNG"), PNG_METADATA[name]
    end = whole.index(b"IEND") - 4
    assert outcome(whole[:33] + chunk + whole[33:]) == plain(whole)
    assert outcome(whole[:end] + chunk + whole[end:]) == plain(whole)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS", b"IDAT"])
def test_a_wrong_checksum_of_what_pixels_depend_on_is_an_error(name: bytes) -> None:
    data = bytearray(encode(palette(), "PNG", transparency=bytes([255, 0, 51])))
    at = data.index(name)
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    assert outcome(bytes(data)) == "unreadable"


def test_no_bit_of_the_pixels_of_a_png_flips_unseen() -> None:
    data = encode(face(16, 12, random.Random(0)), "PNG")
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 4
    flipped = (
        data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :] for at in range(start, end) for bit in (0, 3, 7)
    )
    assert {outcome(each) for each in flipped} == {"unreadable"}


#: Segments that Pillow cannot parse or that are as long as can be.
JPEG_METADATA = {
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "short EXIF": segment(0xE1, b"Exif\0\0"),
    "short ICC": segment(0xE2, b"ICC_PROFILE\0"),
    "ICC of other numbers": segment(0xE2, b"ICC_PROFILE\0\7\2abc") * 3,
    "short MPF": segment(0xE2, b"MPF\0"),
    "short Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed"),
    "short resolution of Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\3\xed\0\0\0\0\0\1a"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "comments": segment(0xFE, bytes(65_533)) * 50,
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0\xff\xfe"),
    **{f"empty APP{number}": segment(0xE0 + number, b"") for number in range(16)},
}


@pytest.mark.parametrize("name", JPEG_METADATA)
def test_no_segment_of_metadata_costs_a_jpeg_or_its_orientation(name: str) -> None:
    for mode in ("RGB", "CMYK"):
        whole = oriented(RGB.convert(mode), "JPEG", 6)
        at = whole.index(b"\xff\xdb")
        assert outcome(whole[:at] + JPEG_METADATA[name] + whole[at:]) == outcome(whole)
        assert outcome(whole)[0] == (3, 2)


def test_no_segment_of_metadata_costs_a_jpeg_its_colours() -> None:
    """RGB that is stored as such, which only Adobe's segment tells once the components have the usual numbers."""
    whole = bytearray(encode(face(24, 20, random.Random(0)), "JPEG", keep_rgb=True))
    frame, scan = whole.index(b"\xff\xc0"), whole.index(b"\xff\xda")
    for number in range(3):
        whole[frame + 10 + 3 * number] = whole[scan + 5 + 2 * number] = number + 1
    at = whole.index(b"\xff\xdb")
    for name in ("short ICC", "short MPF", "short JFIF"):
        assert outcome(bytes(whole[:at] + JPEG_METADATA[name] + whole[at:])) == outcome(bytes(whole)), name


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def xmp_chunk(text: bytes, compressed: int) -> bytes:
    text = zlib.compress(text) if compressed else text
    return png_chunk(b"iTXt", b"XML:com.adobe.xmp\0" + bytes([compressed]) + b"\0\0\0" + text)


@pytest.mark.parametrize("broken", [False, True])
def test_orientation_comes_from_xmp_where_exif_has_none(broken: bool) -> None:
    """As Pillow's `exif_transpose` has it, which datasets and training code use; also of a file that it refuses."""
    turned = plain(encode(RGB.transpose(Image.Transpose.ROTATE_270), "PNG"))
    image = encode(RGB, "PNG")
    for chunk in (
        xmp_chunk(XMP, 0),
        xmp_chunk(XMP, 1),
        xmp_chunk(XMP + MB, 1),
        png_chunk(
            b"tEXt", b"Raw profile type exif\0\nexif\n26\n" + orientation_field(3, 1, b"\6\0\0\0").hex().encode()
        ),
    ):
        more = PNG_METADATA["zTXt"] if broken else b""
        assert outcome(image[:33] + more + chunk + image[33:]) == turned
    exif = png_chunk(b"eXIf", orientation_field(3, 1, b"\3\0\0\0")[6:])
    assert outcome(image[:33] + xmp_chunk(XMP, 0) + exif + image[33:]) == (RGB.size, COLORS[::-1, ::-1].tobytes())
    jpeg = encode(RGB, "JPEG", xmp=XMP)
    more = JPEG_METADATA["short ICC"] if broken else b""
    assert outcome(jpeg[:2] + more + jpeg[2:]) == outcome(oriented(RGB.transpose(STORED[6].ROTATE_270), "JPEG", 6))
    webp = encode(RGB, "WEBP", lossless=True, xmp=XMP)
    assert outcome(webp + b"EXIF" * broken) == turned
    assert outcome(encode(RGB, "WEBP", lossless=True)) == plain(image)


def test_no_chunk_of_metadata_costs_a_webp_or_its_orientation() -> None:
    exif = orientation_field(3, 1, b"\6\0\0\0") + b"x"  # of odd length
    webp = encode(RGB, "WEBP", lossless=True, exif=exif)
    turned = plain(encode(RGB.transpose(Image.Transpose.ROTATE_270), "PNG"))
    at = webp.index(b"EXIF")
    for data in (
        webp[:-1],  # without padding
        webp[:4] + bytes(4) + webp[8:],
        webp[: at + 4] + b"\xff\xff\0\0" + webp[at + 8 :],
        webp[:4] + bytes(4) + webp[8:30] + b"odd \1\0\0\0x\0" + webp[30:],  # before the pixels
        webp + b"XMP \xff\xff",
    ):
        assert outcome(data) == turned
    assert outcome(webp[:at]) == "truncated"  # the orientation is missing


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_no_tag_of_metadata_costs_a_tiff_or_its_orientation(compression: str) -> None:
    for tag, kind, count, value in (
        (282, 2, 4, 0x61626364),  # a resolution in letters
        (700, 2, 9, 8),
        (33723, 4, 2**31, 0),
        (34377, 7, 10**6, 8),
        (34665, 4, 1, 10**8),
        (34675, 7, 10**6, 10**8),
        (65000, 99, 2**31, 1),
    ):
        cm = {"x_resolution": 72, "y_resolution": 72, "resolution_unit": "cm"}
        data = bytearray(encode(RGB.transpose(STORED[6]), "TIFF", compression=compression, tiffinfo={274: 6}, **cm))
        (at,) = struct.unpack_from("<I", data, 4)
        (entries,) = struct.unpack_from("<H", data, at)
        directory = data[at + 2 : at + 2 + 12 * entries]
        fields = [bytes(directory[i : i + 12]) for i in range(0, len(directory), 12)]
        fields = [field for field in fields if field[:2] != struct.pack("<H", tag)]
        fields.append(struct.pack("<HHII", tag, kind, count, value))
        data[4:8] = struct.pack("<I", len(data))
        fields.sort(key=lambda field: int.from_bytes(field[:2], "little"))
        data += struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)
        assert outcome(bytes(data)) == (RGB.size, COLORS.tobytes()), tag


CLOSED = {
    "baseline": {},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "restarts": {"restart_marker_blocks": 3},
    "progressive": {"progressive": True},
    "progressive grey": {"progressive": True, "mode": "L"},
}


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("tail", [b"\xff\xd9", b"\xff\xd9" + bytes(99), b"\xff\xd8\xff\xe0\xff\xd9"])
def test_a_jpeg_cut_and_closed_again_is_truncated(name: str, tail: bytes) -> None:
    """Also by another image's start.  It may lose some of its last 16 x 16 pixels, or of the last of several scans."""
    options = dict(CLOSED[name])
    data = encode(
        face(100, 80, random.Random(0)).convert(str(options.pop("mode", "RGB"))), "JPEG", quality=85, **options
    )
    scan = data.index(b"\xff\xda") + 14
    end = data.rindex(b"\xff\xda") if "progressive" in name else len(data) - 14
    assert not isinstance(outcome(data), str)
    assert {outcome(data[:at] + tail) for at in range(scan, end, 7)} <= {"truncated", "unreadable"}
    assert outcome(data[: len(data) // 2] + b"\xff\xd9") == "truncated"


def test_a_jpeg_without_one_of_its_scans_is_truncated() -> None:
    """Baseline, a scan for each component; each block is the codes 00 (no difference) and 1010 (no more)."""
    data = encode(Image.new("RGB", (8, 8)), "JPEG", subsampling=0)
    head = data[: data.index(b"\xff\xda")]
    scans = [segment(0xDA, bytes([1, component, 0, 0, 63, 0])) + b"\x2b" for component in (1, 2, 3)]
    grey_image = Image.new("RGB", (8, 8), (128, 128, 128))
    assert outcome(head + b"".join(scans) + b"\xff\xd9") == (grey_image.size, grey_image.tobytes())
    assert outcome(head + b"".join(scans[:2]) + b"\xff\xd9") == "truncated"


def test_a_grey_corner_is_no_cut() -> None:
    for mode in ("RGB", "L"):
        data = encode(Image.new("RGB", (40, 40), (128, 128, 128)).convert(mode), "JPEG", quality=95)
        assert outcome(data) == plain(data)


def test_only_the_first_image_of_a_file_counts() -> None:
    """A motion photo has a video behind its end marker, a MPO further images."""
    for progressive in (False, True):
        data = encode(face(40, 30, random.Random(0)), "JPEG", progressive=progressive)
        assert outcome(data + b"\xff\xda\0\x08\1" * 1000) == plain(data)
        assert outcome(data + many_scans(600)) == plain(data)


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    data = encode(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_of_more_than_500_scans_is_too_large() -> None:
    assert not isinstance(outcome(many_scans(500)), str)
    assert outcome(many_scans(501)) == "too_large"


HOSTILE = """
import resource, sys
from pathlib import Path
from segface_batch.images.decode import DecodeError, decode

def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

for path in sys.argv[1:]:
    data = Path(path).read_bytes()
    before = peak()
    try:
        decode(data, 1_000_000)
        outcome = "ok"
    except DecodeError as error:
        outcome = str(error)
    print(Path(path).stem, outcome, peak() - before)
"""


def test_hostile_files_cost_less_than_32_mb(tmp_path: Path) -> None:
    """In a process of its own, for its peak of memory; one that decoded the 144 megapixels would need 144 MB."""
    zeros = bytes(80 * 2**20)
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(zeros))
    text = png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(zeros))
    xmp = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(zeros))
    tile = zlib.compress(bytes(9360 * 9360))
    canvas = bytearray(encode(RGBA, "WEBP", save_all=True, append_images=[RGBA.transpose(Image.Transpose.ROTATE_180)]))
    canvas[24:30] = (12_999).to_bytes(3, "little") * 2  # fields of the VP8X chunk: width - 1, height - 1
    fields = ((322, 9360), (323, 9360), (324, 256), (259, 8))
    files = {
        "pixels": (png(12_000, 12_000, 8, 0, bytes(12_001 * 12_000)), "too_large"),
        "header": (png(100_000, 100_000, 8, 2, b""), "too_large"),
        "canvas": (bytes(canvas), "too_large"),
        "tile": (tiff("<", (8,), 1, 100, tile, *fields), "too_large"),
        "scans": (many_scans(20_000), "too_large"),
        "text": (png(1, 1, 8, 0, b"\0\0", before=text), "ok"),
        "profile": (png(1, 1, 8, 0, b"\0\0", before=profile), "ok"),
        "xmp": (png(1, 1, 8, 0, b"\0\0", before=xmp), "ok"),
    }
    for name, (data, _) in files.items():
        (tmp_path / name).write_bytes(data)
    paths = [str(tmp_path / name) for name in files]
    child = subprocess.run([sys.executable, "-c", HOSTILE, *paths], capture_output=True, text=True, check=True)
    lines = [line.split() for line in child.stdout.splitlines()]
    assert [(name, reason) for name, reason, _ in lines] == [(name, reason) for name, (_, reason) in files.items()]
    assert {name: int(megabytes) for name, _, megabytes in lines if int(megabytes) >= 32} == {}


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, a piece cut out, doubled or set to one value, or the end lost; rather near the start."""
    at = int(len(data) * rng.random() ** 2)
    length = rng.randint(1, 40)
    match rng.randrange(5):
        case 0:
            changed = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                changed[int(len(data) * rng.random() ** 2)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            return bytes(changed)
        case 1:
            return data[:at] + data[at + length :]
        case 2:
            return data[:at] + data[at : at + length] * 2 + data[at + length :]
        case 3:
            return data[:at] + rng.choice((b"\0", b"\xff")) * length + data[at + length :]
        case _:
            return data[:at]


def test_2000_mutated_files_give_an_image_or_a_reason_and_the_same_one_again() -> None:
    rng = random.Random(20)
    originals = [encoder(face(31, 27, rng)) for _, encoder in ENCODERS.values()] + [data for data, _ in MODES.values()]
    outcomes = []
    for number in range(2000):
        data = mutated(originals[number % len(originals)], rng)
        outcomes.append(outcome(data))
        assert outcome(data) == outcomes[-1]
    reasons = {result for result in outcomes if isinstance(result, str)}
    assert {"unreadable", "truncated", "too_large"} <= reasons <= {"empty", "unreadable", "truncated", "too_large"}


def test_eight_threads_decode_what_one_does() -> None:
    rng = random.Random(3)
    files = [encoder(face(97, 81, rng)) for _, encoder in ENCODERS.values()]
    files += [mutated(data, rng) for data in files]
    alone = [outcome(data) for data in files]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(outcome, files * 8)) == alone * 8
