"""deploy/slurm.sh, deploy/skypilot.yaml and the README: scripts without faults, commands that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segface_batch import Job, cli
from tests.deploy.files import DEPLOY, PROGRAMS, commands, run, text, yaml_of


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    sky = yaml_of("skypilot.yaml")
    (tmp_path / "setup.sh").write_text(sky["setup"])
    (tmp_path / "run.sh").write_text(sky["run"].replace("source .venv", ". .venv"))
    run("shellcheck", "--shell=bash", DEPLOY / "slurm.sh")
    run("shellcheck", "--shell=bash", "--exclude=SC1091", tmp_path / "setup.sh", tmp_path / "run.sh")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    chosen, unknown = cli.command_line().parse_known_args(words)
    assert unknown == []
    if words[0] == "annotate" and "://" in words[1]:
        chosen.input = tuple(chosen.input)  # as cli._annotate does
        assert Job(**{name: getattr(chosen, name) for name in Job.__dataclass_fields__}).inputs == (words[1],)


def test_programs_have_a_command_each() -> None:
    for name in PROGRAMS:
        assert "segface-batch annotate" in text(name), name


def test_every_ray_of_a_program_asks_for_its_token() -> None:
    assert yaml_of("skypilot.yaml")["envs"]["RAY_AUTH_MODE"] == "token"
    assert yaml_of("skypilot.yaml")["secrets"] == {"RAY_AUTH_TOKEN": None}  # to be given at the launch
    assert re.search(r"^export RAY_AUTH_TOKEN RAY_AUTH_MODE=token ", text("slurm.sh"), re.MULTILINE)


def test_the_readme_names_every_file() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "kuberay" not in path.parts and path.name != "README.md":
            assert path.relative_to(DEPLOY).as_posix() in text("README.md"), path
