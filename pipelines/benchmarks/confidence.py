"""What does it cost a network to tell how sure it is, beside labels alone?

    python -m pipelines.benchmarks.confidence [CHECKPOINT [WEIGHTS [ROUNDS]]]

`usual` takes the argmax of logits whose classes come last, `labels` the first maximum of those whose classes come
first, and `confidence` is the network as it is: labels and scores, reduced as its engine does.  One image at a time,
float32, one thread, whose CPU time counts.  Without WEIGHTS they are the embedded or published ones.  LaPa's networks,
which need landmarks, are not measured.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from torch import Tensor

from pipelines.benchmarks import corpus
from pipelines.benchmarks.rounds import paired, timed
from segface_batch import catalog
from segface_batch.catalog import Checkpoint
from segface_batch.model import weights as weight_files
from segface_batch.model.fused import FusedSegFace
from segface_batch.model.on_openvino import OpenvinoEngine, compiled, convert
from segface_batch.model.on_torch import TorchEngine
from segface_batch.model.segface import SegFace

ROUNDS, THREADS = 9, 1

CONFIDENCE, LABELS, USUAL = "confidence", "labels", "usual"

#: Labels (1, R, R) of an image (1, R, R, 3).
Parse = Callable[[np.ndarray], np.ndarray]

#: By name, all ways of an engine.
Ways = Callable[[Checkpoint, Path, SegFace], dict[str, Parse]]


class Labels(FusedSegFace):
    """Classes first: of each pixel the first of the largest logits, (B, R, R) uint8."""

    def forward(self, pixels: Tensor, there: Tensor | None = None, back: Tensor | None = None) -> Any:
        return self._joined([first_maximum(part).unsqueeze(1) for part in self._logits(pixels, there)])[:, 0]


class Usual(FusedSegFace):
    """Classes last, as the network was before it told its confidence: labels (B, R, R) uint8."""

    def forward(self, pixels: Tensor, there: Tensor | None = None, back: Tensor | None = None) -> Any:
        labels = [part.argmax(-1).to(torch.uint8) for part in self._logits(pixels, there)]
        return self._joined([part.unsqueeze(1) for part in labels])[:, 0]

    def _upscaled_logits(self, features: Tensor, weights: Tensor) -> Tensor:
        """(B, n, C) and (B, K, 32) -> (B, 16 n, K)."""
        first, norm, gelu, second, gelu_again = self.upscaling
        pixels = gelu(norm(first(features).unflatten(-1, (4, -1))))
        pixels = gelu_again(second(pixels)).unflatten(-1, (4, -1))
        return pixels.flatten(1, 3).float() @ weights.transpose(1, 2)


def first_maximum(logits: Tensor) -> Tensor:
    """(B, K, P) float32 -> (B, P) uint8, as `scores.scored` has them."""
    best, *others = logits.unbind(1)
    labels = torch.zeros_like(best)
    for label, each in enumerate(others, 1):
        labels = torch.where(each > best, torch.full_like(labels, label), labels)
        best = torch.maximum(best, each)
    return labels.to(torch.uint8)


def on_torch(checkpoint: Checkpoint, path: Path, network: SegFace) -> dict[str, Parse]:
    engine = TorchEngine(
        checkpoint, path, device="cpu", precision="fp32", threads=THREADS, compile=False, confidence_map=False
    )

    def parse(kind: type[FusedSegFace]) -> Parse:
        fused: Any = kind(network, checkpoint.resolution, split=True).to(memory_format=torch.channels_last)
        return torch.inference_mode()(lambda pixels: fused(torch.from_numpy(pixels)).numpy())

    return {CONFIDENCE: lambda pixels: engine.start(pixels, None)().labels, LABELS: parse(Labels), USUAL: parse(Usual)}


def on_openvino(checkpoint: Checkpoint, path: Path, network: SegFace) -> dict[str, Parse]:
    engine = OpenvinoEngine(checkpoint, path, precision="fp32", threads=THREADS, confidence_map=False)
    core = openvino.Core()

    def parse(kind: type[FusedSegFace]) -> Parse:
        graph = convert(kind(network, checkpoint.resolution, split=False), checkpoint)
        with tempfile.TemporaryDirectory() as folder:  # read again, as the engine does
            openvino.save_model(graph, Path(folder) / "network.xml", compress_to_fp16=False)
            graph = core.read_model(Path(folder) / "network.xml")
            request = compiled(core, graph, "fp32", THREADS).create_infer_request()

        def labels(pixels: np.ndarray) -> np.ndarray:
            request.infer([pixels], share_inputs=True)
            return request.get_output_tensor(0).data.copy()

        return labels

    return {CONFIDENCE: lambda pixels: engine.start(pixels, None)().labels, LABELS: parse(Labels), USUAL: parse(Usual)}


def main(checkpoint: str = "demo-synthetic", weights: str = "", rounds: str = str(ROUNDS)) -> None:
    chosen = catalog.find(checkpoint)
    path = weight_files.locate(chosen, weights or None)
    network = weight_files.load(chosen, path)
    pixels = corpus.pixels(1, chosen.resolution)
    print(f"| checkpoint | engine | way | CPU ms | over {USUAL} | over {LABELS} |\n|---|---|---|---|---|---|")
    for engine, ways in (("torch", on_torch), ("openvino", on_openvino)):
        parses = ways(chosen, path, network)
        works = {
            way: timed(lambda parse=parse: parse(pixels), clock=time.process_time) for way, parse in parses.items()
        }
        found = paired(works, int(rounds))
        for way in parses:
            ratios = f"{found.ratio(way, USUAL):.3f} | {found.ratio(way, LABELS):.3f}"
            print(f"| {checkpoint} | {engine} | {way} | {1000 * found.median(way):.1f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
