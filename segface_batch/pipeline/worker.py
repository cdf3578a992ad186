"""The worker: a planned unit goes in, and its rows are staged as one object.

Each actor has one.  Threads decode ahead of the network and encode behind it inside one process, so that decoded images
never cross Ray's object store and a GPU stays busy (98.9 % in a trial, 58 to 92 % with separate stages).  With one CPU
thread all of it happens in turn.  A unit is plain objects in here; Arrow appears where Ray and staging need it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from segface_batch import storage
from segface_batch.errors import FatalError
from segface_batch.images import masks
from segface_batch.images.crop import stacked
from segface_batch.inputs.fetch import Answer
from segface_batch.job import Job
from segface_batch.model.network import Network, Parsed, factory
from segface_batch.output import parts, plan, run as runs, schema
from segface_batch.output.face import Face, FetchedImage, Pasted
from segface_batch.pipeline import metrics, work as works
from segface_batch.pipeline.cropper import Cropper, Decoded
from segface_batch.pipeline.fatal import fatal
from segface_batch.pipeline.fetch import fetch
from segface_batch.pipeline.labels import LabelReader, joined, with_parts
from segface_batch.pipeline.metrics import Clock
from segface_batch.pipeline.resources import Resources

#: The rows of a unit, each as soon as it is encoded.
_Rows = list[Future[dict[str, Any]] | None]


class Worker:
    """`job.output` must be a place that every node sees; `weights_sha256` is None for a network without weights."""

    def __init__(self, job: Job, resources: Resources, weights_sha256: str | None) -> None:
        self.job, self.resources = job, resources
        configure(job)  # the weights may lie there
        self.checkpoint = job.model
        self._cropper: Cropper | LabelReader
        if job.class_table is None:
            self.network = load_network(job, resources, weights_sha256)
            self._cropper = Cropper(job, self.checkpoint, resources.device)
            at_once = self.network.batch_size
        else:
            self._cropper, at_once = LabelReader(job), 1
        threads = resources.threads
        # Where faces are found an image may have many, and waits with them.
        self._ahead = (2 * threads if job.faces == "detect" else 2 * at_once) + 1
        # One unit at a time: or units would end at the same time, and the network would be idle.
        self._turn = Lock()
        if threads == 1 and resources.device == "cpu":
            self._decoders = self._encoders = _InTurn()
        else:
            self._decoders = ThreadPoolExecutor(threads, "decode")
            self._encoders = ThreadPoolExecutor(threads, "encode")

    def __call__(self, work: pa.Table) -> pa.Table:
        """A row of `work.SCHEMA`, or of `fetched` -> a row of `work.REPORT`, the unit's rows staged.

        Ray drops what a worker raises; what must stop the run is in the column `fatal`.
        """
        (row,) = work.to_pylist()
        clock, errors, stop = Clock(), 0, row.get("fatal")
        try:
            if stop is None:
                unit, images = self.fetch(row, clock)
                rows = self.rows(images, clock)
                del images  # not kept while their rows are staged
                errors = self.stage(row["target"], unit, rows, clock)
        except FatalError as error:
            stop = str(error)
        seconds = clock.seconds()
        metrics.count_seconds(seconds)
        if row.get("fetch_seconds") is not None:
            seconds["fetch"] = row["fetch_seconds"]
        return works.report(row["target"], errors, seconds, stop)

    def fetch(self, row: Mapping[str, Any], clock: Clock) -> tuple[plan.Unit, list[FetchedImage]]:
        """The planned unit of a row of `work.SCHEMA` and its images, unless the row brings their bytes."""
        unit = read_unit(self.job, row)
        if "fetched" in row:
            answers = [Answer(each["data"], each["error"]) for each in row["fetched"]]
        else:
            answers = fetch_unit(self.job, unit, row, clock)
        names = unit.carried.names
        return unit, [
            FetchedImage(unit.number, seq, source, dict(zip(names, source.carried, strict=True)), *answer[:2])
            for seq, source, answer in zip(unit.seqs, unit.images, answers, strict=True)
        ]

    def rows(self, images: Sequence[FetchedImage], clock: Clock) -> list[dict[str, Any]]:
        """A row of `schema.row` for every face, and for every image without one, in order."""
        with metrics.busy(), fatal("annotating failed"):
            rows: _Rows = []
            waiting: list[tuple[int, Face]] = []
            todo = iter(images)
            first = [self._decoders.submit(self._cropper.decoded, image, clock) for image in islice(todo, self._ahead)]
            with self._turn:
                for decoded in self._ahead_of_network(first, todo, clock):
                    for face in decoded.faces():
                        rows.append(None)
                        if face.crop is None or face.labels is not None:
                            rows[-1] = self._encoders.submit(self._encoded, face, clock)
                            continue
                        waiting.append((len(rows) - 1, face))
                        if len(waiting) == self.network.batch_size:
                            self._parse(waiting, rows, clock)
                            waiting = []
                if waiting:
                    self._parse(waiting, rows, clock)
            return [row.result() for row in rows if row is not None]

    def stage(self, target: str, unit: plan.Unit, rows: Sequence[Mapping[str, Any]], clock: Clock) -> int:
        """Put the rows of a unit into staging; the number of rows with an error."""
        with fatal("staging failed"):
            configure(self.job)
            with clock.of("stage"):
                parts.stage(target, schema.to_table(rows, self.checkpoint.dataset, unit.carried))
            _count(rows)
        return sum(row["status"] == schema.ERROR for row in rows)

    def _ahead_of_network(
        self, futures: list[Future[Decoded]], todo: Iterator[FetchedImage], clock: Clock
    ) -> Iterator[Decoded]:
        """Every image decoded and cropped, in order, some ahead of the network."""
        while futures:
            yield futures.pop(0).result()
            futures += [self._decoders.submit(self._cropper.decoded, image, clock) for image in islice(todo, 1)]

    def _parse(self, waiting: Sequence[tuple[int, Face]], rows: _Rows, clock: Clock) -> None:
        """Label the faces together, and have their rows encoded in the background."""
        pixels, landmarks = stacked([face.crop for _, face in waiting if face.crop is not None])
        with clock.of("network"), fatal("the network failed"):
            parsed = self.network.parse(pixels, landmarks)
            self._check(parsed, pixels.shape[:3])
        for (number, face), (labels, confidence) in zip(waiting, parsed.masks(), strict=True):
            face = replace(face, labels=labels, confidence=confidence if self.job.confidence else None)
            rows[number] = self._encoders.submit(self._encoded, face, clock)

    def _check(self, parsed: Parsed, shape: tuple[int, ...]) -> None:
        """ValueError for a result that would give wrong rows; a network may be anybody's."""
        labels, classes = parsed.labels, len(self.checkpoint.dataset.classes)
        if labels.shape != shape or labels.dtype != np.uint8:
            raise ValueError(f"labels are {labels.dtype} of shape {labels.shape}; give uint8 of shape {shape}")
        if labels.max() >= classes:
            raise ValueError(f"there is a label {labels.max()}, and the class table has {classes} classes")
        if parsed.confidence is not None and len(parsed.confidence) != len(labels):
            raise ValueError(f"there are {len(parsed.confidence)} confidences for {len(labels)} masks; give each one")

    def _encoded(self, face: Face, clock: Clock) -> dict[str, Any]:
        with clock.of("encode"):
            if self.job.mask_space == "image" and face.crop is not None:
                face = in_image_space(face)
            return schema.row(face, self.checkpoint.dataset)


def load_network(job: Job, resources: Resources, weights_sha256: str | None) -> Network:
    """The network of a job, on the device that its worker has."""
    if job.network is not None:
        return factory(job.network)(job, resources)
    # Here, because the driver imports this module and has no use for torch.
    from segface_batch.model.segface_network import SegFaceNetwork

    return SegFaceNetwork(
        job.checkpoint,
        weights=job.weights,
        weights_sha256=weights_sha256,
        revision=job.revision,
        device=resources.device,
        precision=job.precision,
        batch_size=job.batch_size,
        threads=resources.threads,
        engine=job.engine,
        compile=job.compile,
        confidence_map=job.confidence_map,
    )


def configure(job: Job) -> None:
    """Use the job's storage options in this process; a file of options is read again, as its keys may be renewed."""
    storage.configure(job.storage_options, job.s3_client)


def in_image_space(face: Face) -> Face:
    """The face with its mask in pixels of the upright image."""
    assert face.crop is not None
    assert face.labels is not None
    assert face.size is not None
    labels, (left, top) = masks.paste(face.labels, face.crop.transform, *face.size)
    margins = None
    if face.confidence is not None and face.confidence.margins is not None:
        margins, _ = masks.paste(face.confidence.margins, face.crop.transform, *face.size, outside=0)
    return replace(face, pasted=Pasted(labels, margins, np.array([[1.0, 0, left], [0, 1, top]])))


def read_unit(job: Job, row: Mapping[str, Any]) -> plan.Unit:
    """The planned unit of a row of `work.SCHEMA`."""
    with fatal("fetching failed"):
        configure(job)
        return plan.read_unit(runs.plan_folder(job.output), row["file"], row["position"], row["seqs"])


def fetch_unit(job: Job, unit: plan.Unit, row: Mapping[str, Any], clock: Clock) -> list[Answer]:
    with clock.of("fetch"):
        files, parts = with_parts(unit) if job.class_table is not None else (unit, [])
        answers = fetch(files, allow_unreadable=job.allow_unreadable, any_length=row["any_length"])
        answers = joined(answers, parts, job) if parts else answers
    metrics.count("segface_bytes_total", sum(len(answer.data) for answer in answers if answer.data is not None))
    return answers


def fetched(work: pa.Table, job: Job) -> pa.Table:
    """A row of `work.SCHEMA` -> the same and the bytes of its images; runs on any CPU, so that a GPU need not wait."""
    (row,) = work.to_pylist()
    clock, answers, stop = Clock(), [], None
    try:
        answers = fetch_unit(job, read_unit(job, row), row, clock)
    except FatalError as error:
        stop = str(error)
    seconds = clock.seconds()
    metrics.count_seconds(seconds)
    return works.with_bytes(work, [answer[:2] for answer in answers], seconds.get("fetch"), stop)


class _InTurn(Executor):
    """Runs everything at once, in the caller's thread: on a CPU of its own, the network gains nothing from threads
    beside it, and loses the CPU's caches to them."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _count(rows: Sequence[Mapping[str, Any]]) -> None:
    """Count staged rows in the metrics."""
    images = Counter((row["status"], row["error"] or "") for row in rows if row["face"] == 0)
    for (status, error), number in images.items():
        metrics.count("segface_images_total", number, status=status, error=error)
    metrics.count("segface_faces_total", sum(row["status"] == schema.OK for row in rows))
