"""The ways to run a SegFace network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segface_batch.model import engine
from segface_batch.model.segface_network import SegFaceNetwork


@dataclass(frozen=True)
class Mode:
    """A way to run a network, in the words of SegFaceNetwork."""

    engine: str
    precision: str
    compile: bool = False

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}" + (" compiled" if self.compile else "")

    def network(self, checkpoint: str, weights: str | None = None, **settings: Any) -> SegFaceNetwork:
        return SegFaceNetwork(checkpoint, weights=weights, **vars(self), **settings)


EXACT = Mode("torch", "fp32")

#: All others on a CPU; compiling takes minutes.
FASTER = (Mode("openvino", "fp32"), Mode("torch", "bf16"), Mode("openvino", "bf16"), Mode("torch", "fp32", True))


def on_cpu(*, compiled: bool, bf16: bool) -> list[Mode]:
    """EXACT and those of FASTER, compiled ones and those in bf16 only if asked for."""
    modes = [EXACT, *FASTER] if engine.has_openvino() else [mode for mode in (EXACT, *FASTER) if mode.engine == "torch"]
    return [mode for mode in modes if (compiled or not mode.compile) and (bf16 or mode.precision != "bf16")]


def here() -> list[Mode]:
    """EXACT and what is faster without compiling on this machine's GPU or CPU."""
    if engine.has_gpu():
        return [EXACT, Mode("torch", "bf16")]
    return on_cpu(compiled=False, bf16=engine.cpu_has_bf16())
