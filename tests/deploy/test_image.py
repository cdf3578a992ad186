"""deploy/Dockerfile: no bad practice, all it copies is there, and every file of deploy/ means the same versions."""

from __future__ import annotations

import re
import shlex
import tomllib

from tests.deploy.files import DEPLOY, OVERLAYS, ROOT, locked, rayjob, run, templates, text, yaml_of

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[list[str]]:
    """The words of every instruction of the Dockerfile."""
    lines = [line for line in text("Dockerfile").splitlines() if not line.startswith("#")]
    return [shlex.split(line) for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line]


def test_hadolint_finds_nothing() -> None:
    assert run("hadolint", DEPLOY / "Dockerfile") == ""


def test_every_source_is_in_the_build_context() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = {
        source
        for name, *words in instructions()
        if name == "COPY" and not words[0].startswith("--from")
        for source in words[:-1]
    } | set(re.findall(r"type=bind,source=(\S+?),", text("Dockerfile")))
    assert sorted(sources) == kept
    assert all((ROOT / source).exists() for source in sources)


def test_the_wheel_has_all_files_that_it_is_built_of() -> None:
    files = [PROJECT["readme"], *PROJECT["license-files"], "segface_batch"]
    (copied,) = [words for words in instructions() if words[0] == "COPY" and "README.md" in words]
    assert all(file in copied or file.startswith("segface_batch") for file in files)


def test_every_way_to_install_takes_the_lock_and_extras_that_exist() -> None:
    programs = {name: text(name) for name in ("Dockerfile", "skypilot.yaml", "slurm.sh", "README.md")}
    for name, program in programs.items():
        for line in program.splitlines():
            if "uv sync" in line or "set -- " in line:
                assert "--locked" in line, name
                assert "--no-default-groups" in line, name
                assert "--extra cluster" in line, name
                assert set(re.findall(r"--extra (\S+)", line)) <= set(PROJECT["optional-dependencies"]), name


def test_the_extra_bounds_ray_as_the_package_does() -> None:
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["cluster"]]
    bounds = {found[1]: found[2] for line in requirements if (found := re.fullmatch(r"ray\[(\w+)\](.*)", line))}
    assert set(bounds) == {"data", "default"}
    assert bounds["data"] == bounds["default"]


def test_python_ray_and_uv_are_the_same_everywhere() -> None:
    pythons = set(re.findall(r"^FROM python:(\S+)", text("Dockerfile"), re.MULTILINE))
    assert pythons == {"3.11-slim-bookworm"}
    assert PROJECT["requires-python"] == ">=3.11"
    uvs = re.findall(r"\buv(?::|==)([\d.]+)", text("Dockerfile") + text("skypilot.yaml"))
    assert len(uvs) == 2
    assert len(set(uvs)) == 1
    assert {rayjob(overlay)["rayClusterSpec"]["rayVersion"] for overlay in OVERLAYS} == {locked("ray")}


def test_every_image_is_of_this_version() -> None:
    images = {overlay: templates(overlay)["head"]["spec"]["containers"][0]["image"] for overlay in OVERLAYS}
    images["launcher"] = yaml_of("aws/cluster.yaml")["docker"]["image"]
    registry, version = "111122223333.dkr.ecr.us-east-1.amazonaws.com", PROJECT["version"]
    tags = {"cpu": f"{version}-cpu", "gpu-spot": version, "launcher": f"{version}-launcher"}
    assert images == {name: f"{registry}/segface-batch:{tag}" for name, tag in tags.items()}
    assert f"R={registry}\n" in text("README.md")
    built = re.findall(r"^docker build .* -t \$R/segface-batch:(\S+)", text("README.md"), re.MULTILINE)
    assert sorted(built) == sorted(tags.values())


def test_nobody_is_root_at_run_time() -> None:
    users = [words[1] for words in instructions() if words[0] == "USER"]
    assert users == ["1000:1000", "0", "1000:1000"]
    assert instructions()[-1] == ["FROM", "runtime"]
    environment = {word for words in instructions() if words[0] == "ENV" for word in words[1:]}
    assert {"HOME=/home/segface", "RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"} <= environment
