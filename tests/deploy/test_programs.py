"""deploy/slurm.sh, deploy/skypilot.yaml and the README: scripts without faults, commands that exist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from segface_batch.command_line import command_line, job
from segface_batch.output import verify
from tests.conftest import PORTRAITS
from tests.deploy.files import DEPLOY, PROGRAMS, ROOT, commands, run, text, yaml_of

#: Slurm on one node: the environment of a job, and stand-ins for its two programs.
SLURM = {"SLURM_JOB_NODELIST": "node", "SLURM_JOB_NUM_NODES": "1", "SLURM_CPUS_ON_NODE": "2"}
SRUN = '#!/bin/bash\nwhile [ "$1" != ray ]; do shift; done\nexec "$@"\n'
SCONTROL = "#!/bin/bash\necho 127.0.0.1\n"

#: A machine of its own, whose Ray the script may end.
ISOLATED = ["unshare", "--net", "--pid", "--mount", "--fork", "--mount-proc", "--kill-child", "bash", "-ec"]
SET_UP = "ip link set lo up; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /tmp; exec bash deploy/slurm.sh "


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    sky = yaml_of("skypilot.yaml")
    (tmp_path / "setup.sh").write_text(sky["setup"])
    (tmp_path / "run.sh").write_text(sky["run"].replace("source .venv", ". .venv"))
    run("shellcheck", "--shell=bash", DEPLOY / "slurm.sh")
    run("shellcheck", "--shell=bash", "--exclude=SC1091", tmp_path / "setup.sh", tmp_path / "run.sh")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    chosen, unknown = command_line().parse_known_args(words)
    assert unknown == []
    if words[0] == "annotate" and "://" in words[1]:
        assert job(chosen).inputs == (words[1],)


def test_programs_have_a_command_each() -> None:
    for name in PROGRAMS:
        assert "segface-batch annotate" in text(name), name


def test_every_ray_of_a_program_asks_for_its_token() -> None:
    assert yaml_of("skypilot.yaml")["envs"]["RAY_AUTH_MODE"] == "token"
    assert yaml_of("skypilot.yaml")["secrets"] == {"RAY_AUTH_TOKEN": None}  # to be given at the launch
    assert re.search(r"^export RAY_AUTH_TOKEN RAY_AUTH_MODE=token ", text("slurm.sh"), re.MULTILINE)


def script(text: str, folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a folder whose `bin` comes first on its PATH."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    path = os.pathsep.join([str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", text, "script", *words],
        env={**os.environ, "HOME": str(folder), "PATH": path, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def test_a_batch_job_whose_ray_did_not_start_fails(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "srun", "#!/bin/bash\nexit 0\n")
    program(tmp_path / "bin" / "scontrol", SCONTROL)
    done = script(text("slurm.sh"), tmp_path, **SLURM, INPUT=str(PORTRAITS), OUTPUT=str(tmp_path / "out"))
    assert (done.returncode, done.stderr) == (
        2, f"segface-batch: '{tmp_path}/out' is no output: it has no _segface/run.json\n"
    )  # fmt: skip


@pytest.mark.parametrize(("rank", "starts"), [("0", 1), ("1", 0)])
def test_of_several_spot_nodes_the_first_starts_the_run(rank: str, starts: int, tmp_path: Path) -> None:
    program(tmp_path / "sky_templates" / "ray" / "start_cluster", "#!/bin/bash\n")
    program(tmp_path / "bin" / "segface-batch", '#!/bin/bash\necho "$RAY_ADDRESS" "$1"\n')
    done = script(yaml_of("skypilot.yaml")["run"], tmp_path, SKYPILOT_NODE_RANK=rank)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["127.0.0.1:6379 annotate"] * starts


def test_the_readme_names_every_file() -> None:
    for path in DEPLOY.rglob("*"):
        if path.is_file() and "kuberay" not in path.parts and path.name != "README.md":
            assert path.relative_to(DEPLOY).as_posix() in text("README.md"), path


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="needs namespaces: root and iproute2")
def test_the_batch_job_runs_on_one_node() -> None:
    # Not below /tmp: the job has its own.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        for name, script in (("srun", SRUN), ("scontrol", SCONTROL)):
            (Path(place) / name).write_text(script)
            (Path(place) / name).chmod(0o755)
        out = f"{place}/out"
        environment = SLURM | {"INPUT": str(PORTRAITS), "OUTPUT": out, "HOME": place, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*ISOLATED, SET_UP + "--network tests.stand_in:Quick --actors 1"],
            env={**os.environ, **environment, "PATH": f"{place}:{os.environ['PATH']}"},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert verify.verify(out, quick=False).complete
