"""What this machine does, as ratios from one paired run: the host's steps, the network, and the pipeline around them.

Every section is a function that returns rows: seconds per image, medians of interleaved rounds, and their ratio to
the section's first row.  The images are the embedded faces, enlarged to the 1024 pixels of CelebAMask-HQ's.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from segface_batch import catalog
from segface_batch.demo import FACES
from segface_batch.job import DEFAULT_MAX_PIXELS, Job
from segface_batch.model import engine

ROUNDS = 5

#: Images of a round, of the steps of the host and of the network.
HOST_IMAGES, NETWORK_IMAGES = 24, 4

#: Side of the images, and quality of their JPEG.
SIDE, QUALITY = 1024, 90


def modes() -> dict[str, dict[str, Any]]:
    """Ways to run the network that are a gain on this machine, each as arguments of FaceParser; the first is torch's,
    in float32."""
    on = ["torch"] if engine.has_gpu() or not engine.has_openvino() else ["torch", "openvino"]
    precisions = ["fp32", "bf16"] if engine.has_gpu() or engine.cpu_has_bf16() else ["fp32"]
    return {f"{name} {p}": {"engine": name, "precision": p} for p in precisions for name in on}


@dataclass(frozen=True)
class Row:
    section: str
    name: str
    seconds: float
    ratio: float


def faces() -> list[bytes]:
    """The rendered faces as JPEG files."""
    found = []
    for path in sorted((FACES / "rendered").glob("*.jpg")):
        sink = BytesIO()
        with Image.open(path) as image:
            image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(sink, "JPEG", quality=QUALITY)
        found.append(sink.getvalue())
    return found


@contextmanager
def corpus(count: int) -> Iterator[Path]:
    """A folder `in` of so many images, in a folder that goes when all is done."""
    with tempfile.TemporaryDirectory() as name:
        (folder := Path(name) / "in").mkdir()
        for number, data in zip(range(count), itertools.cycle(faces())):
            (folder / f"{number:06d}.jpg").write_bytes(data)
        yield Path(name)


def host(checkpoint: str, rounds: int = ROUNDS) -> list[Row]:
    """The steps before and after the network, on one thread; `all` is their sum."""
    from segface_batch.images import masks
    from segface_batch.images.crop import crop_image
    from segface_batch.images.decode import decode
    from segface_batch.images.statistics import class_pixels

    found = catalog.find(checkpoint)
    data = faces()[:HOST_IMAGES]
    images = [decode(each, DEFAULT_MAX_PIXELS) for each in data]
    labels = [_truth(path, found.resolution) for path in sorted((FACES.parent / "truth").rglob("*.png"))[: len(data)]]
    steps: dict[str, Callable[[], Any]] = {
        "decode": lambda: [decode(each, DEFAULT_MAX_PIXELS) for each in data],
        "crop": lambda: [crop_image(image, found) for image in images],
        "statistics": lambda: [class_pixels(mask, len(found.dataset.classes)) for mask in labels],
        "png": lambda: [masks.encode(mask) for mask in labels],
    }
    seconds = _medians(steps, len(data), rounds)
    return _rows("host", {"all": sum(seconds.values()), **seconds})


def network(checkpoint: str, weights: str | None = None, rounds: int = ROUNDS) -> list[Row]:
    """The network in each of its `modes`, with all threads of the machine (or its GPU), one batch after another."""
    import numpy as np

    from segface_batch.model.face_parser import FaceParser

    ways: dict[str, Callable[[], Any]] = {}
    count = NETWORK_IMAGES
    for name, arguments in modes().items():
        parser = FaceParser(checkpoint, weights=weights, **arguments)
        count = max(NETWORK_IMAGES, parser.batch_size)
        side = parser.checkpoint.resolution
        pixels = [np.asarray(Image.open(BytesIO(data)).resize((side, side))) for data in faces()[:NETWORK_IMAGES]]
        batch = np.resize(np.stack(pixels), (count, side, side, 3))
        ways[name] = lambda parser=parser, batch=batch: parser.labels(batch)

    return _rows("network", _medians(ways, count, rounds))


def quality(checkpoint: str, weights: str | None = None) -> Iterator[str]:
    """How far the other ways are from torch in float32, as lines of Markdown: of demo-synthetic the mean F1, of other
    checkpoints the pixels of the embedded faces that get the same class."""
    import numpy as np

    from segface_batch.model import quality as measured

    ways = [measured.Mode(**arguments) for arguments in modes().values()][1:]
    if checkpoint == catalog.DEMO_CHECKPOINT:
        return measured.table(measured.scores(ways))
    side = catalog.find(checkpoint).resolution
    pixels = [np.asarray(Image.open(BytesIO(data)).resize((side, side))) for data in faces()[:NETWORK_IMAGES]]
    return measured.table(measured.agreements(checkpoint, weights, np.stack(pixels), modes=ways))


def overhead(job: Job, rounds: int = 1) -> tuple[list[Row], float]:
    """A bare loop beside `annotate`, from its first rows to its last, and seconds until it has the first.

    The loop reads, decodes, parses and encodes with as many processes as the job has actors, and writes nothing.
    """
    from segface_batch.pipeline.cluster import ray_running
    from segface_batch.pipeline.dataset import Chain, actors
    from segface_batch.pipeline.driver import Silence, annotate, weights_of

    paths = sorted(Path(job.inputs[0]).iterdir())
    spent: dict[str, list[float]] = {"bare loop": [], "annotate": []}
    starts = []
    sha256 = weights_of(job, Silence())
    with ray_running():
        num_gpus, threads, (_, most) = actors(job, len(paths))
    arguments = Chain(job, job.output, sha256).arguments(num_gpus, threads)["parser"]
    for number in range(rounds):
        spent["bare loop"].append(_bare_seconds(paths, arguments, most) / len(paths))
        clock = Clock()
        out = f"{job.output}-{number}"
        annotate(Job(**{**vars(job), "output": out}), clock)
        spent["annotate"].append(clock.seconds_per_image(most))
        starts.append(clock.start_seconds)
        shutil.rmtree(out)
    return _rows("pipeline", {name: statistics.median(s) for name, s in spent.items()}), statistics.median(starts)


class Clock:
    """A run's progress, timed: from its start to the first rows (`start_seconds`), and from there to the last."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.first = self.last = (0.0, 0)

    def phase(self, what: str) -> None: ...

    def note(self, text: str) -> None: ...

    def images(self, done: int, total: int, errors: int) -> None:
        self.last = (time.monotonic(), done)
        self.first = self.last if self.first[1] == 0 else self.first

    @property
    def start_seconds(self) -> float:
        return self.first[0] - self.started

    def seconds_per_image(self, actors: int) -> float:
        """When an actor has its first unit of rows, the others nearly have theirs too."""
        return (self.last[0] - self.first[0]) / (self.last[1] - actors * self.first[1])


def _bare_seconds(paths: Sequence[Path], arguments: dict[str, Any], processes: int) -> float:
    spawn = multiprocessing.get_context("spawn")
    barrier, seconds = spawn.Barrier(processes), spawn.Queue()
    workers = [
        spawn.Process(target=_bare, args=(paths[number::processes], arguments, barrier, seconds))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    found = max(seconds.get() for _ in workers)
    for worker in workers:
        worker.join()
    return found


def _bare(paths: Sequence[Path], arguments: dict[str, Any], barrier: Any, seconds: Any) -> None:
    """One process of the loop: an image, or a batch of them, after the other."""
    import numpy as np

    from segface_batch.images import masks
    from segface_batch.images.crop import crop_image
    from segface_batch.images.decode import decode
    from segface_batch.images.statistics import class_pixels
    from segface_batch.model.face_parser import FaceParser

    parser = FaceParser(**arguments)
    classes = len(parser.checkpoint.dataset.classes)

    def work(some: Sequence[Path]) -> None:
        crops = [crop_image(decode(path.read_bytes(), DEFAULT_MAX_PIXELS), parser.checkpoint).pixels for path in some]
        for mask in parser.labels(np.stack(crops)):
            class_pixels(mask, classes)
            masks.encode(mask)

    work(paths[: parser.batch_size])
    barrier.wait()
    started = time.perf_counter()
    for first in range(0, len(paths), parser.batch_size):
        work(paths[first : first + parser.batch_size])
    seconds.put(time.perf_counter() - started)


def bottleneck(rows: Sequence[Row]) -> str:
    """Which of host and network (in float32) takes the longer for an image, on all cores, in a sentence."""
    cores = len(os.sched_getaffinity(0))
    host = sum(row.seconds for row in rows if (row.section, row.name) == ("host", "all")) / cores
    network = min(row.seconds for row in rows if row.section == "network" and row.name.endswith("fp32"))
    slow = "the network" if network > host else "the host"
    return f"{slow}: {1000 * network:.1f} ms per image in the network, {1000 * host:.1f} beside it on {cores} cores"


def _truth(path: Path, side: int) -> Any:
    import numpy as np

    with Image.open(path) as image:
        return np.asarray(image.resize((side, side), Image.Resampling.NEAREST))


def _medians(ways: dict[str, Callable[[], Any]], images: int, rounds: int) -> dict[str, float]:
    """Seconds per image of each way, in interleaved rounds after one that warms up."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, work in ways.items():
            started = time.perf_counter()
            work()
            spent[name].append((time.perf_counter() - started) / images)
    return {name: statistics.median(seconds[1:]) for name, seconds in spent.items()}


def _rows(section: str, seconds: dict[str, float]) -> list[Row]:
    base = next(iter(seconds.values()))
    return [Row(section, name, value, value / base) for name, value in seconds.items()]
