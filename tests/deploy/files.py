"""The files of deploy/ as their tools read them, and the words of every `segface-batch` in them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

OVERLAYS = sorted(path.name for path in (DEPLOY / "kuberay" / "overlays").iterdir())

#: Everything that a person or a program runs.
PROGRAMS = ["README.md", "skypilot.yaml", "slurm.sh"]


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def yaml_of(name: str) -> Any:
    return yaml.safe_load(text(name))


def run(program: str, *arguments: object) -> str:
    """What a program of this environment prints; AssertionError, with its messages, where it finds fault."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"
    return done.stdout


@cache
def rendered(overlay: str) -> dict[str, dict[str, Any]]:
    """The objects of an overlay as kustomize makes them, by kind and name."""
    objects = yaml.safe_load_all(run("kubectl", "kustomize", DEPLOY / "kuberay" / "overlays" / overlay))
    return {f"{found['kind']}/{found['metadata']['name']}": found for found in objects}


def rayjob(overlay: str) -> dict[str, Any]:
    return rendered(overlay)["RayJob/segface"]["spec"]


def templates(overlay: str) -> dict[str, dict[str, Any]]:
    """The pod templates of an overlay's RayJob by what runs in them."""
    job = rayjob(overlay)
    cluster = job["rayClusterSpec"]
    (workers,) = cluster["workerGroupSpecs"]
    return {
        "submitter": job["submitterPodTemplate"],
        "head": cluster["headGroupSpec"]["template"],
        "worker": workers["template"],
    }


def locked(package: str) -> str:
    """The version of a package in uv.lock."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    (version,) = {found["version"] for found in packages if found["name"] == package}
    return version


def commands() -> list[list[str]]:
    """The words behind every `segface-batch`: of the manifests, the scripts and the README."""
    lines = [rayjob(overlay)["entrypoint"] for overlay in OVERLAYS]
    for name in PROGRAMS:
        lines += text(name).replace("\\\n", " ").splitlines()
    found = (re.search(r"\bsegface-batch ((?:annotate|verify|checkpoints|query) .*)", line) for line in lines)
    # Quotes that a command around it closes, and what its shell makes of it, do not belong to the command.
    return [shlex.split(hit[1].replace('"$@"', "").rstrip("'`"), comments=True) for hit in found if hit]
