"""Rendered faces: a seed keeps its face, and the command leaves finished pairs alone.

tests/data/render holds three faces at 64 pixels, drawn by the program that rendered the training
set of the embedded model, from which this one was rewritten: glasses, jewels and curls (3028), a hat and hair tied
back (3032), a beard (3066).
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.demo_model.faces.face import Face, render
from segface_batch.catalog import CELEBAMASK_HQ

ROOT = Path(__file__).parent.parent.parent
RECORDED = ROOT / "tests" / "data" / "render"
SIDE = 64

#: Eyes, nose tip and mouth corners, x and y in pixels, as recorded.
LANDMARKS = {
    3028: [[21.63, 29.74], [36.13, 30.1], [27.64, 39.88], [23.4, 44.52], [33.65, 45.31]],
    3032: [[23.17, 29.37], [35.45, 29.3], [28.08, 38.03], [24.44, 43.22], [34.18, 43.41]],
    3066: [[27.96, 35.88], [41.28, 35.7], [31.47, 47.47], [28.98, 54.8], [40.29, 55.69]],
}

USAGE = """\
usage: python -m pipelines.demo_model.render [-h] [--faces N]
                                             [--first-seed SEED]
                                             [--size PIXELS] [--processes N]
                                             OUT
"""


@functools.cache
def face(seed: int) -> Face:
    return render(seed, SIDE)


def recorded(seed: int, kind: str) -> np.ndarray:
    return np.asarray(Image.open(RECORDED / f"{seed:07d}_{kind}.png"))


def run(*arguments: str | Path, python: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The command, in the repository's root."""
    command = [sys.executable, *python, "-m", "pipelines.demo_model.render", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("seed", LANDMARKS)
def test_a_seed_draws_the_face_that_was_recorded(seed: int):
    """Other versions of numpy, and other processors, may round otherwise: a few pixels change, a draw changes all."""
    drawn = face(seed)
    assert (drawn.image.dtype, drawn.image.shape) == (np.uint8, (SIDE, SIDE, 3))
    assert (drawn.labels.dtype, drawn.labels.shape) == (np.uint8, (SIDE, SIDE))
    labels = recorded(seed, "labels")
    assert np.mean(drawn.labels == labels) >= 0.995
    for index in np.unique(labels):  # brows are too small to count in the mean
        either, both = (drawn.labels == index) | (labels == index), (drawn.labels == index) & (labels == index)
        assert either.sum() - both.sum() <= 2 + 0.1 * both.sum(), CELEBAMASK_HQ.class_names[index]
    assert np.abs(drawn.image - recorded(seed, "image").astype(float)).mean() < 2
    np.testing.assert_allclose(drawn.landmarks, LANDMARKS[seed], atol=0.02)


def test_the_recorded_faces_show_every_class():
    seen = np.unique([face(seed).labels for seed in LANDMARKS])
    assert [CELEBAMASK_HQ.class_names[index] for index in seen] == list(CELEBAMASK_HQ.class_names)


def test_left_in_the_name_of_a_class_is_the_left_of_the_image():
    labels = face(3032).labels
    columns = {name: np.nonzero(labels == index)[1] for index, name in enumerate(CELEBAMASK_HQ.class_names)}
    for part in ("ear", "brow", "eye"):
        assert columns[f"l_{part}"].mean() < columns[f"r_{part}"].mean(), part


def test_the_same_seed_is_the_same_face_and_another_is_not():
    first, again, other = face(3032), render(3032, SIDE), face(3028)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    np.testing.assert_array_equal(first.landmarks, again.landmarks)
    assert not np.array_equal(first.image, other.image)


def test_a_larger_image_shows_the_same_face():
    small, large = face(3032), render(3032, 2 * SIDE)
    np.testing.assert_allclose(large.landmarks, 2 * small.landmarks, atol=0.01)
    assert np.mean(large.labels[::2, ::2] == small.labels) > 0.9


def test_the_command_writes_missing_pairs_and_leaves_finished_ones_alone(tmp_path: Path):
    out = tmp_path / "out"
    for existing in ("images/0003031.png", "labels/0003031.png", "images/0003032.png"):
        (out / existing).parent.mkdir(parents=True, exist_ok=True)
        (out / existing).write_text("made before")
    result = run(out, "--faces", "2", "--first-seed", "3031", "--size", str(SIDE), "--processes", "1")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert re.sub(r"[\d.]+ faces/s", "... faces/s", result.stderr).splitlines() == [
        f"1 of 2 faces exist in {out}",
        "1 of 1 rendered, ... faces/s",
    ]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == [
        "images/0003031.png",
        "images/0003032.png",
        "labels/0003031.png",
        "labels/0003032.png",
    ]
    assert (out / "images" / "0003031.png").read_text() == "made before"
    assert (out / "labels" / "0003031.png").read_text() == "made before"
    with Image.open(out / "images" / "0003032.png") as image, Image.open(out / "labels" / "0003032.png") as labels:
        assert (image.mode, labels.mode) == ("RGB", "L")
        np.testing.assert_array_equal(image, face(3032).image)
        np.testing.assert_array_equal(labels, face(3032).labels)


def test_help_answers_without_loading_numpy():
    result = run("--help", python=("-X", "importtime"))
    assert result.returncode == 0
    assert result.stdout.startswith(USAGE)
    assert "python -m pipelines.demo_model.render faces/train --faces 5000" in result.stdout
    loaded = {line.rpartition("|")[2].strip() for line in result.stderr.splitlines()}
    assert "argparse" in loaded
    assert loaded.isdisjoint({"numpy", "numba", "scipy", "PIL"})


def test_missing_packages_are_named_with_their_cure(tmp_path: Path):
    result = run(tmp_path, python=("-S",))  # -S: without the installed packages
    assert result.returncode == 1
    assert result.stderr == "rendering needs numba and scipy: pip install 'segface-batch[train]'\n"


def test_no_faces_of_no_pixels(tmp_path: Path):
    result = run(tmp_path, "--size", "0")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].endswith("render: error: argument --size: 0 is less than 1")
