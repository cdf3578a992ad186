"""SegFace on OpenVINO, on a CPU.  B: batch; R: side of the image in pixels.

The graph is converted from the torch network once and kept in `weights.cache_folder`, under a name that follows from
everything it depends on; a process that finds it there needs neither torch nor timm.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import openvino

from segface_batch.catalog import Checkpoint
from segface_batch.images import confidence
from segface_batch.model import weights
from segface_batch.model.network import Parsed

if TYPE_CHECKING:
    from segface_batch.model.fused import FusedSegFace

log = logging.getLogger(__name__)

_PRECISIONS = {"fp32": openvino.Type.f32, "bf16": openvino.Type.bf16}

#: Packages that the graph depends on.
_PACKAGES = ("openvino", "torch", "timm")


class OpenvinoEngine:
    """`precision` is fp32 or bf16; `threads` are its CPU threads (None: one per core)."""

    def __init__(
        self, checkpoint: Checkpoint, path: Path, *, precision: str, threads: int | None, confidence_map: bool
    ) -> None:
        self.resolution, self.n_classes = checkpoint.resolution, len(checkpoint.dataset.classes)
        self.confidence_map = confidence_map
        core = openvino.Core()
        self.request = compiled(core, _graph(core, checkpoint, path), precision, threads).create_infer_request()

    def start(self, pixels: np.ndarray, landmarks: np.ndarray | None) -> Callable[[], Parsed]:
        """(B, R, R, 3) uint8 RGB and LaPa's landmarks (B, 5, 2) -> a function that gives the result.

        It is computed here, an image at a time: on a CPU a batch gains nothing.
        """
        inputs = [pixels]
        if landmarks is not None:
            import torch

            from segface_batch.model import warp

            inputs += [grid.numpy() for grid in warp.grids(torch.from_numpy(landmarks), self.resolution)]
        labels, told = np.empty(pixels.shape[:3], np.uint8), []
        for number in range(len(pixels)):
            self.request.infer([array[number : number + 1] for array in inputs], share_inputs=True)
            labels[number], scores = (self.request.get_output_tensor(output).data[0] for output in range(2))
            told.append(confidence.of_pixels(labels[number], scores, self.n_classes, keep=self.confidence_map))
        return lambda: Parsed(labels, told)


def compiled(core: openvino.Core, graph: openvino.Model, precision: str, threads: int | None) -> openvino.CompiledModel:
    """The graph as the CPU runs it."""
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _PRECISIONS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # else all actors of a machine are pinned to its first cores
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    network = core.compile_model(graph, "CPU", settings)
    if network.get_property("INFERENCE_PRECISION_HINT") != _PRECISIONS[precision]:
        log.warning("this CPU has no instructions for bfloat16: OpenVINO computes in float32")
    return network


def _graph(core: openvino.Core, checkpoint: Checkpoint, path: Path) -> openvino.Model:
    """One image (1, R, R, 3) uint8, and LaPa's grids -> labels and scores as of `FusedSegFace`."""
    graph = None
    try:
        target = weights.cache_folder() / "openvino" / f"{checkpoint.name}-{_identity(checkpoint, path)}"
        if not target.is_dir():
            graph = _converted(checkpoint, path)
            _keep(graph, target)
    except OSError as error:
        log.warning("the converted network cannot be kept: %s", error)
        with tempfile.TemporaryDirectory() as folder:
            _keep(graph or _converted(checkpoint, path), Path(folder) / "network")
            return core.read_model(Path(folder) / "network" / "network.xml")
    # Read again even by the process that converted it: the graph in memory gives other last bits than the one on disk.
    return core.read_model(target / "network.xml")


def _identity(checkpoint: Checkpoint, path: Path) -> str:
    """A hash of what the graph depends on: weights, our code of the network, and packages."""
    code = b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py")))
    parts = [checkpoint.name, weights.sha256(path), hashlib.sha256(code).hexdigest(), *map(version, _PACKAGES)]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def _keep(graph: openvino.Model, target: Path) -> None:
    """Save the graph; `target` appears whole, and of several processes that save at once the first one's stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        openvino.save_model(graph, unfinished / "network.xml", compress_to_fp16=False)
        unfinished.rename(target)
    except OSError:
        if not target.is_dir():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _converted(checkpoint: Checkpoint, path: Path) -> openvino.Model:
    from segface_batch.model.fused import FusedSegFace

    return convert(FusedSegFace(weights.load(checkpoint, path), checkpoint.resolution, split=False), checkpoint)


def convert(network: FusedSegFace, checkpoint: Checkpoint) -> openvino.Model:
    """The torch network as a graph of OpenVINO."""
    import warnings

    import torch

    # Not openvino.convert_model, which sends telemetry unless it is switched off on each machine.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    side = checkpoint.resolution
    example = [torch.zeros(1, side, side, 3, dtype=torch.uint8)]
    if checkpoint.dataset.landmarks == "five":
        example += [torch.zeros(1, side, side, 2)] * 2
    with torch.no_grad(), warnings.catch_warnings():
        # It warns that shapes become constants, which they are, and that torch.jit is deprecated; OpenVINO's front end
        # needs it.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network.eval(), tuple(example), check_trace=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=tuple(example))
        graph = frontend.convert(frontend.load(decoder))
    types = {torch.uint8: openvino.Type.u8, torch.float32: openvino.Type.f32}
    for parameter, tensor in zip(graph.get_parameters(), example, strict=True):
        parameter.set_partial_shape(openvino.PartialShape(list(tensor.shape)))
        parameter.set_element_type(types[tensor.dtype])
    graph.validate_nodes_and_infer_types()
    return graph
