"""Renders labelled synthetic faces, to train a small model on.

Writes OUT/images/NAME.png, RGB, and OUT/labels/NAME.png, 8-bit grey, whose levels are the class ids of CelebAMask-HQ;
NAME is the seed in seven digits.  A seed is the same face in every run.  A pair that exists is left alone, so that the
command may be stopped and started again, or run with other seeds into the same folder.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

EXAMPLES = """\
examples:
  the faces that the embedded model has learned from (0.6 s a face and core):
    python -m pipelines.demo_model.render faces/train --faces 5000
  other faces, to measure it with:
    python -m pipelines.demo_model.render faces/check --faces 500 --first-seed 1000000
"""

#: Faces between two lines of progress.
PROGRESS = 50


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if not all(importlib.util.find_spec(package) for package in ("numba", "scipy")):
        sys.exit("rendering needs numba and scipy: pip install 'segface-batch[train]'")
    for folder in ("images", "labels"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    seeds = range(options.first_seed, options.first_seed + options.faces)
    missing = [seed for seed in seeds if not all(path.exists() for path in pair(options.out, seed))]
    print(f"{len(seeds) - len(missing)} of {len(seeds)} faces exist in {options.out}", file=sys.stderr)
    started = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, spawn, _use_one_thread) as pool:
        write = functools.partial(write_pair, options.out, options.size)
        for done, _ in enumerate(pool.map(write, missing), start=1):
            if done % PROGRESS == 0 or done == len(missing):
                rate = done / (time.monotonic() - started)
                print(f"{done} of {len(missing)} rendered, {rate:.1f} faces/s", file=sys.stderr, flush=True)


def pair(out: Path, seed: int) -> tuple[Path, Path]:
    """Where the image and the labels of a seed are written."""
    return out / "images" / f"{seed:07d}.png", out / "labels" / f"{seed:07d}.png"


def write_pair(out: Path, size: int, seed: int) -> None:
    """Renders a seed; its labels are written last and appear whole, so that they tell a finished pair."""
    from PIL import Image

    from pipelines.demo_model.faces.face import render

    image, labels = pair(out, seed)
    face = render(seed, size)
    Image.fromarray(face.image).save(image)
    unfinished = labels.with_suffix(".unfinished")
    Image.fromarray(face.labels).save(unfinished, "PNG")
    unfinished.replace(labels)


def _use_one_thread() -> None:
    """For a process that has not loaded numpy yet: the processes share the cores already."""
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"


def _at_least(least: int, text: str) -> int:
    number = int(text)
    if number < least:
        raise argparse.ArgumentTypeError(f"{number} is less than {least}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.demo_model.render",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    count, seed = functools.partial(_at_least, 1), functools.partial(_at_least, 0)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("out", metavar="OUT", type=Path, help="folder; made if it does not exist")
    parser.add_argument("--faces", metavar="N", type=count, default=5000, help="how many (default: 5000)")
    parser.add_argument("--first-seed", metavar="SEED", type=seed, default=0, help="seed of the first (default: 0)")
    parser.add_argument("--size", metavar="PIXELS", type=count, default=192, help="side of an image (default: 192)")
    parser.add_argument("--processes", metavar="N", type=count, default=cores, help="default: one for each core")
    return parser


if __name__ == "__main__":
    main()
