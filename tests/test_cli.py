from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segface_batch import catalog
from segface_batch.job import Job, flag
from tests.conftest import PORTRAITS

Command = Callable[..., "subprocess.CompletedProcess[str]"]

#: What must not be loaded before a command runs.
HEAVY = ("torch", "timm", "ray", "pyarrow", "numpy", "PIL", "duckdb", "fsspec", "huggingface_hub")


def test_help_and_mistakes_load_no_heavy_package(tmp_path: Path) -> None:
    program = (
        "import sys; from segface_batch import cli\n"
        "for words in (['plan', '--help'], ['annotate', '--help'], ['annotate', '.', 'out', '--checkpoint', 'swin']):\n"
        "    try: print(cli.main(words), file=sys.stderr)\n"
        "    except SystemExit as end: print(end.code, file=sys.stderr)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr.splitlines()[0] == "0"
    assert done.stderr.splitlines()[-1] == "2"


@pytest.mark.parametrize("arguments", [(), ("annotate",), ("plan",)], ids=str)
def test_help_answers_at_once(command: Command, arguments: tuple[str, ...]) -> None:
    before = os.times()
    assert command(*arguments, "--help").returncode == 0
    after = os.times()
    # CPU seconds, which depend little on what else the machine does.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.3


def test_the_help_of_annotate_shows_every_setting_its_default_and_its_choices(command: Command) -> None:
    text = " ".join(command("annotate", "--help", COLUMNS="200").stdout.split())
    for each in dataclasses.fields(Job):
        assert each.metadata["help"] in text, each.name
        if "group" not in each.metadata:
            continue
        assert f"{each.metadata['group']}: --" in text
        assert flag(each.name) in text
        if each.metadata["choices"] is not None:
            assert f"{flag(each.name)} {{{','.join(each.metadata['choices'])}}}" in text
        if each.default not in (None, ()) and not isinstance(each.default, bool):
            assert f"{each.metadata['help']} (default: {each.default})" in text


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["anotate"], "argument VERB: invalid choice: 'anotate'"),
        (["annotate", "a"], "the following arguments are required: output"),
        (["annotate", "a", "b", "--chekpoint", "c"], "unknown argument '--chekpoint'; did you mean --checkpoint?"),
        (["annotate", "a", "b", "--actors", "two"], "argument --actors: 'two' is not MIN:MAX, like 2:8"),
        (["annotate", "nowhere", "out"], "segface-batch: no folder or manifest 'nowhere'; check the path"),
        (["plan", "nowhere"], "segface-batch: no folder or manifest 'nowhere'; check the path"),
        (["plan", ".", "--sample", "0"], "segface-batch: --sample 0: give a whole number from 1 up"),
        (["plan", ".", "--prices", "nowhere.toml"], "segface-batch: no prices file 'nowhere.toml'"),
        (["annotate", "a", "b", "--threads", "many"], "argument --threads: invalid int value: 'many'"),
        (["query", "nowhere", "select 1"], "nowhere"),
        (["query", "out", "select 1", "--format", "csv", "--to", "out/stats/a.csv"], "lies inside the output"),
        (["show", "nowhere", "a.jpg"], "nowhere"),
        (["show", "nowhere", "--face", "1"], "segface-batch: --face 1 is for one image: give its IMAGE_ID too"),
        (["checkpoints", "fetch", "swinb"], "unknown checkpoint 'swinb'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(command: Command, words: list[str], answer: str) -> None:
    done = command(*words)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert answer in done.stderr


def test_without_internet_the_hint_names_the_weights(command: Command, tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    done = command("annotate", "faces", "out", HF_HOME=str(tmp_path / "empty"))
    assert done.returncode == 1
    assert "--weights FILE" in done.stderr.splitlines()[-1]
    assert "--checkpoint demo-synthetic comes with the package" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_checkpoints_are_a_table(command: Command) -> None:
    done = command("checkpoints")
    lines = done.stdout.splitlines()
    header = ("name", "backbone", "pixels", "data set", "classes", "mean F1", "landmarks", "weights")
    assert lines[0].split() == " ".join(header).split()
    assert [line.split()[0] for line in lines[1:]] == list(catalog.CHECKPOINTS)
    assert lines[1].split()[1:] == ["convnext_base", "512", "CelebAMask-HQ", "19", "89.22", "-", "hub"]
    assert lines[-1].split()[1:] == ["mobilenet_small", "192", "CelebAMask-HQ", "19", "-", "-", "in", "the", "package"]


@pytest.mark.slow
def test_a_published_file_becomes_safetensors(command: Command, weights: Path, tmp_path: Path) -> None:
    done = command("checkpoints", "convert", weights, "small.safetensors", "--checkpoint", "mobilenet_celeba_512")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("small.safetensors: 27 MB")
    wrong = command("checkpoints", "convert", weights, "x.safetensors", "--checkpoint", "swinb_celeba_224")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "x.safetensors").exists()


def test_a_run_that_fails_says_why_in_one_line(command: Command, weights: Path) -> None:
    done = command("annotate", PORTRAITS, "out", "--checkpoint", "resnet_celeba_512", "--weights", weights)
    assert (done.returncode, done.stdout) == (1, "")
    *told, last = done.stderr.splitlines()
    assert told[-1] == "loading the model ...", done.stderr
    assert last.startswith(f"segface-batch: a worker failed: ValueError: {weights} does not fit resnet_celeba_512: ")
