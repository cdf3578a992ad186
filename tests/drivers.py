"""Runs of `segface-batch annotate` in processes of their own, which tests may kill, on small images and with a network
that costs nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from segface_batch import Job, storage
from segface_batch.output import schema
from tests import s3_server

#: Small masks.
CHECKPOINT = "demo-synthetic"

#: Three parts of units of eight images.
IMAGES, PART_ROWS = 60, 24


def write_images(folder: Path, count: int = IMAGES, marks: dict[int, tuple[int, int, int]] | None = None) -> None:
    """Noise of its own in every image; `marks` tell the network what to do at some of them."""
    folder.mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(8, 256, (192, 192, 3), dtype=np.uint8)
        pixels[:2, :2] = (marks or {}).get(number, (100, 100, 100))
        Image.fromarray(pixels).save(folder / f"{number:04d}.png", compress_level=0)


def job(source: object, out: object, **settings: Any) -> Job:
    settings = {"network": "tests.stand_in:Quick", "part_rows": PART_ROWS, **settings}
    return Job(source if isinstance(source, tuple) else str(source), str(out), **settings)


def start(source: object, out: object, *options: object, **environment: str) -> subprocess.Popen[str]:
    """The same job as a command."""
    command = [sys.executable, "-m", "segface_batch.cli", "annotate", source, out]
    command += ["--network", "tests.stand_in:Quick", "--part-rows", PART_ROWS, *options]
    return subprocess.Popen(
        [str(word) for word in command],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def parts(out: object) -> dict[str, bytes]:
    """The content of all parts, by name."""
    out = storage.absolute(str(out))
    names = [f"{folder}/{name}" for folder in schema.TABLES for name in storage.list_names(f"{out}/{folder}", "")]
    return {name: storage.read(f"{out}/{name}") for name in names}


def staged_units(out: Path) -> int:
    return len(list(out.glob("_segface/staging/**/unit-*.arrow")))


def workers(name: str) -> list[psutil.Process]:
    """Ray's worker processes of this machine whose title has a word in it; not its own agents and actors, without which
    a node ends or a later run waits."""
    titles = [(process, (process.info["cmdline"] or [""])[0]) for process in psutil.process_iter(["cmdline"])]
    return [process for process, title in titles if name in title and title.startswith(("ray::Map", "ray::IDLE"))]


def storage_options(endpoint: str, file: Path, access_key: str = "ci-admin") -> Path:
    """A file with the options for the tests' S3 server behind an endpoint, a user's secret in it."""
    secret = {"key": access_key, "secret": s3_server.secret_of(access_key), "endpoint_url": endpoint}
    file.write_text(json.dumps(secret | {"client_kwargs": {"region_name": s3_server.REGION}}))
    return file
