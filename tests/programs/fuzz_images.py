"""Decode many mutated images, in this process: an image or a known word each time, in bounded memory and time.

    python -m tests.programs.fuzz_images --count 20000 --seed 0

Images of every format of `tests.corpus.ENCODERS` are cut, their bits are flipped, and lengths, sizes and tags in their
chunks, segments and directories are overwritten, pieces doubled, dropped and exchanged.  Prints how many images gave
which word.  An image that gives another exception, another image the second time, or needs more time or memory than
allowed is written to the folder `--keep`, and the exit code is 1.  A crash ends the program with the image in
`--keep`/last.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import random
import re
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from segface_batch.errors import ERRORS
from segface_batch.images.decode import DecodeError, decode
from tests.corpus import ENCODERS, face

#: The limit that every image is decoded under, and what it may cost: 1 megapixel takes 4 MB, and Pillow, libtiff and
#: the steps to RGB need a few of these at a time.
MAX_PIXELS = 1_000_000
MAX_MEGABYTES = 64
MAX_SECONDS = 2.0

#: What stands before lengths, sizes and tags: PNG chunks, RIFF chunks, JPEG markers, and TIFF's directory entries.
PLACES = re.compile(
    rb"(?s)IHDR|PLTE|tRNS|IDAT|IEND|eXIf|acTL|fcTL|fdAT|VP8[ LX]|ALPH|ANIM|ANMF|EXIF|\xff[\xc0-\xfe]|"
    rb"[\x00-\x1f]\x01[\x03\x04]\0|\x01[\x00-\x1f]\0[\x03\x04]"
)

#: Numbers that lengths and sizes are overwritten with.
NUMBERS = (0, 1, 2, 7, 8, 16, 255, 256, 1000, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to three changes, each in a place that matters half of the time; pieces come from `other` too."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = [found.start() for found in PLACES.finditer(data, 0, 4096)]
        near = rng.random() < 0.5 and places
        at = rng.choice(places) + rng.randint(-8, 12) if near else int(len(data) * rng.random() ** 2)
        at = min(max(at, 0), len(data))
        length = rng.choice((1, 2, 4, 8, 12, rng.randint(1, 200)))
        match rng.randrange(8):
            case 0:
                changed = bytearray(data)
                for bit in (rng.randrange(8) for _ in range(rng.choice((1, 1, 4, 16)) if data else 0)):
                    changed[min(at + rng.randint(0, 3), len(data) - 1)] ^= 1 << bit
                data = bytes(changed)
            case 1:
                number, size = rng.choice(NUMBERS), rng.choice((1, 2, 4))
                order = rng.choice(("little", "big"))
                data = data[:at] + (number % 256**size).to_bytes(size, order) + data[at + size :]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[:at] + data[at : at + length] * 2 + data[at + length :]
            case 4:
                data = data[:at] + rng.randbytes(length) + data[at + length :]
            case 5:
                start = rng.randrange(len(other))
                data = data[:at] + other[start : start + length] + data[at:]
            case 6 if len(data) > 100:
                data = data[:at] + rng.choice((b"", b"\xff\xd9", b"\0\0\0\0IEND\xaeB`\x82"))
            case _:
                data = data[: at // 2] + rng.choice((b"\0", b"\xff")) * length + data[at // 2 + length :]
    return data


def megabytes() -> int:
    """The most memory that this process has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def outcome(data: bytes) -> tuple[str, object]:
    try:
        image = decode(data, MAX_PIXELS)
    except DecodeError as error:
        return str(error), None
    assert image.mode == "RGB"
    return "ok", (image.size, hash(image.tobytes()))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=20_000, help="images (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="where images go that show a fault (default: a new folder)")
    options = parser.parse_args()
    keep = options.keep or Path(tempfile.mkdtemp(prefix="fuzz"))
    keep.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore")
    logging.disable()  # Pillow logs what it finds odd in a TIFF
    faulthandler.enable()
    faulthandler.dump_traceback_later(300, repeat=True)  # a hang shows where

    rng = random.Random(options.seed)
    originals = [
        (name, encoder(face(*size, rng))) for size in ((31, 27), (160, 120)) for name, (_, encoder) in ENCODERS.items()
    ]
    words, faults = Counter[str](), Counter[str]()
    for name, data in originals:
        assert outcome(data)[0] == "ok", name
    slowest, start = 0.0, megabytes()
    for number in range(options.count):
        rng = random.Random(f"{options.seed} {number}")
        name, original = originals[number % len(originals)]
        data = mutated(original, rng.choice(originals)[1], rng)
        (keep / "last").write_bytes(data)
        before, clock = megabytes(), time.perf_counter()
        try:
            word, result = outcome(data)
            fault = "" if word in ERRORS or word == "ok" else f"unknown word {word}"
        except Exception as error:
            word, result, fault = "another exception", None, f"{type(error).__name__}: {error}"
        seconds, grown = time.perf_counter() - clock, megabytes() - before
        words[word] += 1
        slowest = max(slowest, seconds)
        if seconds > MAX_SECONDS:
            fault = fault or "slow"
        if grown > MAX_MEGABYTES:
            fault = fault or "memory"
        if not fault and number % 10 == 0 and outcome(data) != (word, result):
            fault = "another result the second time"
        if fault:
            faults[fault] += 1
            (keep / f"{options.seed}-{number} {name}").write_bytes(data)
            print(f"{number} {name}: {fault} ({seconds:.1f} s, {grown} MB)", file=sys.stderr)
    (keep / "last").unlink(missing_ok=True)
    for word, count in words.most_common():
        print(f"{word} {count}")
    print(f"slowest {slowest:.2f} s, memory {start} to {megabytes()} MB, faults {faults.total()}")
    if faults:
        print(f"see {keep}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
