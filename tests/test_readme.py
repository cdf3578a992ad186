"""README.md says what is: its commands run, its tables are those of the code."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from pipelines.demo_model import train
from segface_batch import catalog, cli
from segface_batch.command_line import command_line
from segface_batch.images import crop as crop, decode
from segface_batch.output import schema as records
from segface_batch.pipeline import fetch, parse
from tests.conftest import PORTRAITS

TEXT = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    """The words behind `segface-batch` of every command in the README."""
    lines = "\n".join(blocks("sh")).splitlines()
    return [
        shlex.split(line.split("segface-batch ", 1)[1], comments=True) for line in lines if "segface-batch " in line
    ]


def trainings() -> list[list[str]]:
    """The words behind the training program of every such command in the README."""
    lines = "\n".join(blocks("sh")).splitlines()
    program = "-m pipelines.demo_model.train "
    return [shlex.split(line.split(program, 1)[1]) for line in lines if program in line]


@pytest.mark.parametrize("words", trainings(), ids=" ".join)
def test_every_training_is_one_that_the_program_takes(words: list[str]) -> None:
    assert catalog.find(train.command_line().parse_args(words).checkpoint)


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    chosen, unknown = command_line().parse_known_args(words)
    assert unknown == []
    assert callable(cli.COMMANDS[chosen.command])


def test_the_first_command_is_the_demo() -> None:
    """tests/test_demo.py runs it."""
    assert commands()[0] == ["demo"]


@pytest.mark.slow
def test_the_first_real_commands_do_what_they_say(
    command: Callable[..., subprocess.CompletedProcess[str]], hub: Path, tmp_path: Path
) -> None:
    shutil.copytree(PORTRAITS, tmp_path / PORTRAITS.relative_to(Path(__file__).parents[1]))
    done = command(*commands()[1], HF_HOME=str(hub))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    told = done.stderr.splitlines()
    assert told[0] == "getting the weights of mobilenet_celeba_512 ..."
    assert "2 images: 2 ok" in told
    assert told[-1] == "      segface-batch show out IMAGE_ID"
    assert not [line for line in told if "ray" in line.lower() and line != "starting Ray ..."]
    query = next(words for words in commands() if words[0] == "query")
    answer = command(*query)
    assert answer.stdout.splitlines()[0].split() == ["image_id", "frac_hair"]
    assert len(answer.stdout.splitlines()) == 4
    shown = command("show", "out", "grace_hopper.jpg")
    assert shown.stdout == "grace_hopper-overlay.png\n", shown.stderr


@pytest.mark.slow
def test_the_python_example_runs(hub: Path, tmp_path: Path) -> None:
    shutil.copytree(PORTRAITS, tmp_path / "faces", ignore=shutil.ignore_patterns("*.md"))
    (program,) = blocks("python")
    environment = {**os.environ, "HF_HOME": str(hub), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "{'ok': 2} {}" in done.stdout
    assert done.stdout.count("'frac_hair'") == 2


def test_the_sql_examples_run(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(output.parent)
    (statements,) = blocks("sql")
    connection = duckdb.connect()
    counts = [len(connection.execute(statement).fetchall()) for statement in statements.strip().splitlines()]
    assert counts == [2, 0, 2]


def test_the_tables_are_those_of_the_code() -> None:
    columns = [f"| `{name}` | {kind} | {meaning} |" for name, kind, _, meaning in records.COLUMNS]
    reasons = decode.REASONS | fetch.REASONS | crop.REASONS | parse.REASONS
    for line in columns + [f"| `{reason}` | {meaning} |" for reason, meaning in sorted(reasons.items())]:
        assert line in TEXT, line
    for dataset in (catalog.CELEBAMASK_HQ, catalog.LAPA, catalog.HELEN):
        assert f"`{' '.join(dataset.class_names)}`" in TEXT.replace("\n", " ")
