"""Which engine a run takes: the one asked for, the one of run.json, or the best here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segface_batch.job import Job
from segface_batch.model import engine
from segface_batch.pipeline import prepare
from segface_batch.progress import Silence
from tests.conftest import PORTRAITS


class Notes(Silence):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return Notes()


def job(tmp_path: Path, **settings: object) -> Job:
    return Job(str(PORTRAITS), str(tmp_path / "out"), checkpoint="demo-synthetic", **settings)  # pyright: ignore


def test_left_to_us_it_is_openvino_on_a_cpu_and_torch_on_a_gpu(tmp_path: Path, notes: Notes) -> None:
    assert prepare.with_engine(job(tmp_path, device="cpu"), None, notes).engine == "openvino"
    assert prepare.with_engine(job(tmp_path, device="cuda"), None, notes).engine == "torch"
    assert notes.lines == [
        "the network is run by openvino, fp32; --engine chooses another",
        "the network is run by torch, fp32; --engine chooses another",
    ]


def test_of_a_cluster_and_for_a_compiled_network_it_is_torch(
    tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepare.with_engine(job(tmp_path, device="cpu", compile=True), None, notes).engine == "torch"
    assert prepare.with_engine(job(tmp_path, num_gpus=0.5), None, notes).engine == "torch"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert prepare.with_engine(job(tmp_path, device="cpu"), None, notes).engine == "torch"
    assert prepare.with_engine(job(tmp_path, engine="openvino"), None, notes).engine == "openvino"


def test_a_resume_takes_what_the_run_has(tmp_path: Path, notes: Notes) -> None:
    run = {"settings": {"engine": "torch", "compile": False}}
    again = prepare.with_engine(job(tmp_path, device="cpu", compile=True), run, notes)
    assert (again.engine, again.compile) == ("torch", False)
    # What is asked for stays, to be refused where it differs.
    assert prepare.with_engine(job(tmp_path, engine="openvino"), run, notes).engine == "openvino"
    assert notes.lines == []


def test_a_short_job_is_not_compiled_and_says_so(tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = job(tmp_path, compile=True)
    assert not prepare.with_compiler(compiled, 100, notes).compile
    assert not prepare.with_compiler(compiled, 1_999, notes).compile
    assert prepare.with_compiler(compiled, 2_000, notes).compile == (engine.no_compiler() is None)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not prepare.with_compiler(compiled, 2_000, notes).compile
    assert notes.lines[0] == (
        "the network is not compiled: 100 images take less time than compiling, which pays from about 2,000 on"
    )
    assert notes.lines[-1] == "the network is not compiled: it needs a C++ compiler, g++ or clang++"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")  # whose nodes may have what this machine lacks
    assert prepare.with_compiler(compiled, 2_000, notes).compile


@pytest.mark.parametrize(
    ("visible", "devices", "found"),
    [(None, ["/dev/nvidia0"], True), (None, [], False), ("", ["/dev/nvidia0"], False), ("-1", ["/dev/nvidia0"], False),
     ("0", ["/dev/nvidia0"], True)],
)  # fmt: skip
def test_a_gpu_counts_where_this_process_may_use_it(
    visible: str | None, devices: list[str], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(engine, "glob", lambda pattern: devices)
    assert engine.has_gpu() == found
    assert engine.choose("auto", "auto") == ("torch" if found else "openvino")
    assert engine.choose("auto", "cpu") == "openvino"


@pytest.mark.slow
def test_timm_comes_without_torchs_compiler_which_still_works() -> None:
    code = (
        "import sys, segface_batch.model.backbones, segface_batch.model.mtcnn\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "import torch; from torchvision.ops import roi_align\n"
        "box = [torch.tensor([[0.0, 0.0, 4.0, 4.0]])]\n"
        "assert roi_align(torch.ones(1, 1, 8, 8), box, 2).shape == (1, 1, 2, 2)\n"
        "assert torch.compile(lambda x: x + 1, backend='eager')(torch.ones(1)).item() == 2\n"
        "assert sys.modules['torch._dynamo.utils'].__file__\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
