"""The demo, end to end as a newcomer runs it, and what its model's file says of itself."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open

from segface_batch import catalog, demo
from segface_batch.curate.evaluate import ClassScores, evaluate
from segface_batch.model import weights

CHECKPOINT = catalog.find(catalog.DEMO_CHECKPOINT)
CARD = (demo.ASSETS / "demo-synthetic.md").read_text()

#: What another processor's rounding may take from the mean F1: borders of rare classes on 24 faces.
NOISE = 0.01


@pytest.fixture(scope="module")
def notes() -> dict[str, str]:
    with safe_open(weights.locate(CHECKPOINT), framework="pt") as file:
        return file.metadata()


def test_the_demo_shows_masks_answers_questions_and_scores_itself(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = command("demo", HF_HOME=str(tmp_path / "no_hub"))
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == f"demo-synthetic: {CHECKPOINT.note}"
    assert "26 images: 26 with faces; 26 faces" in lines
    answers = done.stdout.strip().split("\n\n")
    asked = len(demo.QUERIES)
    assert [answer.splitlines()[0] for answer in answers[:asked]] == [question for question, _ in demo.QUERIES]
    assert re.search(r"^ok +null +26$", answers[asked - 1], re.MULTILINE)
    score = re.fullmatch(r"mean F1 (0\.\d\d) over 19 classes on 24 rendered faces .*", answers[asked].splitlines()[0])
    assert score
    assert answers[asked].splitlines()[1] == f"  this is demo-synthetic: {CHECKPOINT.note}"
    assert answers[asked + 1] == "look at segface-demo/sheet.png"
    with Image.open(tmp_path / "segface-demo" / "sheet.png") as page:
        assert (page.format, page.width) == ("PNG", 4 * 370)
    shown = command("show", "segface-demo")
    assert (shown.stdout, shown.stderr) == ("sheet.png\n", "")
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "segface-demo" / "sheet.png").read_bytes()
    scores = evaluate(str(tmp_path / "segface-demo"), demo.TRUTH)
    assert float(score[1]) == round(scores.mean_f1, 2)
    said = re.search(r"24 faces in the package: mean F1 \*\*(0\.\d\d)\*\*", CARD)
    assert said
    assert scores.mean_f1 > float(said[1]) - NOISE
    run = json.loads((tmp_path / "segface-demo" / "_segface" / "run.json").read_text())
    assert run["settings"]["checkpoint"] == "demo-synthetic"
    assert run["settings"]["weights_sha256"] == weights.sha256(weights.locate(CHECKPOINT))
    masks = pq.read_table(tmp_path / "segface-demo" / "masks")
    assert masks.num_rows == 26


def test_the_score_names_the_best_and_the_worst(monkeypatch: pytest.MonkeyPatch) -> None:
    f1 = {f"class_{number}": number / 10 for number in range(11)}
    scores = ClassScores(f1, {"a.jpg": 0.9, "b.jpg": 0.7, "c.jpg": 0.8})
    monkeypatch.setattr("segface_batch.curate.evaluate.evaluate", lambda *_: scores)
    assert demo.score("out").splitlines() == [
        "mean F1 0.50 over 11 classes on 3 rendered faces (against the renderer's truth)",
        f"  this is demo-synthetic: {CHECKPOINT.note}",
        "  best:  class_10 1.00, class_9 0.90, class_8 0.80, class_7 0.70, class_6 0.60",
        "  worst: class_0 0.00, class_1 0.10, class_2 0.20, class_3 0.30, class_4 0.40",
        "  the image with the most wrong pixels: b.jpg (30%)",
    ]


def test_the_file_says_what_it_is(notes: dict[str, str]) -> None:
    names = CHECKPOINT.dataset.class_names
    assert (notes["checkpoint"], notes["dataset"], notes["resolution"]) == ("demo-synthetic", "CelebAMask-HQ", "192")
    assert json.loads(notes["classes"]) == list(names)
    scores = json.loads(notes["f1"])
    assert list(scores) == list(names)
    assert min(scores.values()) > 0.45
    assert {"licence", "data", "generator"} <= notes.keys()
    for name, score in scores.items():
        assert f"| `{name}` | {score:.2f} |" in CARD, name
    assert f"500 held-out renders: mean F1 **{np.mean(list(scores.values())):.2f}**" in CARD


def test_model_and_faces_are_small_enough_for_a_wheel() -> None:
    assert weights.locate(CHECKPOINT).stat().st_size <= 8e6
    others = [path for path in demo.ASSETS.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    faces = [path for path in others if {"faces", "truth"} & set(path.parts)]
    assert sum(path.stat().st_size for path in faces) <= 1.5e6
    assert len(list(demo.FACES.rglob("*.jpg"))) == 26
    assert [path.stem for path in sorted((demo.FACES / "rendered").iterdir())] == [
        path.stem for path in sorted((demo.TRUTH / "rendered").iterdir())
    ]
