"""Which library runs the network, chosen before any of them is imported (standard library only)."""

from __future__ import annotations

import importlib.util
import os
import shutil
from functools import cache
from glob import glob
from pathlib import Path

ENGINES = ("auto", "torch", "openvino")

#: Instructions for bfloat16, by their names in /proc/cpuinfo.
_BF16_FLAGS = frozenset(("amx_bf16", "avx512_bf16"))


def choose(engine: str, device: str) -> str:
    """torch or openvino, for `engine` and `device` as FaceParser has them.

    auto is OpenVINO where it is installed and there is no GPU: it gives the same masks but for rounding, starts sooner,
    and on a CPU with bfloat16 is several times faster in bf16 (pipelines/benchmarks/network.py).
    """
    if engine != "auto":
        return engine
    on_gpu = device == "cuda" or (device == "auto" and has_gpu())
    return "openvino" if has_openvino() and not on_gpu else "torch"


def check_openvino(device: str, compile: bool) -> None:
    """ValueError, with a hint, where OpenVINO cannot run these settings."""
    if not has_openvino():
        raise ValueError("--engine openvino needs its package: pip install 'segface-batch[openvino]'")
    if device == "cuda":
        raise ValueError("--engine openvino is for CPUs: leave out --engine openvino, or --device cuda and --num-gpus")
    if compile:
        raise ValueError("--compile is for torch: leave out --compile or --engine openvino")


def has_openvino() -> bool:
    return importlib.util.find_spec("openvino") is not None


def has_gpu() -> bool:
    """Whether this machine has an Nvidia GPU that this process may use."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1") and bool(glob("/dev/nvidia[0-9]*"))


def no_compiler() -> str | None:
    """Why torch.compile cannot work here, None where it can."""
    if any(map(shutil.which, ("g++", "clang++", "gcc", "clang"))):
        return None
    return "it needs a C++ compiler, g++ or clang++"


@cache
def cpu_has_bf16() -> bool:
    """Whether this CPU has instructions for bfloat16; without them bf16 is no faster than fp32."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and not _BF16_FLAGS.isdisjoint(cpuinfo.read_text().split())
