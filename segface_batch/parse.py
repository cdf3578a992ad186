"""The parser actor: a unit of encoded pictures becomes a unit of rows.

Threads decode ahead of the network and encode behind it inside one process, so that decoded pictures never cross
Ray's object store and a GPU stays busy (98.9 % in a trial, 58-92 % with separate stages).  On one CPU thread all of it
goes in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from segface_batch import catalog, metrics, storage
from segface_batch.inputs.decode import DecodeError, decode, decode_reduced
from segface_batch.inputs.faces import Detector, Faces
from segface_batch.inputs.fetch import nest, unnest
from segface_batch.inputs.framing import (
    Framed,
    FramingError,
    frame,
    frame_faces,
    frame_given,
    frame_whole,
    given_box,
)
from segface_batch.output import masks, records
from segface_batch.output.paste import OUTSIDE, paste
from segface_batch.output.statistics import class_pixels

if TYPE_CHECKING:
    from segface_batch.model.mtcnn import Mtcnn

#: Why there is no row of the parser's own (what decoding and framing refuse has reasons there).
REASONS = {"crashed": "it ends the process that reads or parses it, every time"}

#: Faces of a picture that are framed before the network asks for them.  The others of a crowd are framed when it does:
#: a frame of 512 x 512 takes 0.8 MB, and a crowd may have a thousand.
FRAMED_AHEAD = 16

#: The column of seconds by stage; those stages that are not the actor's, or did not run, are null.
SECONDS = pa.struct([pa.field(stage, pa.float64()) for stage in metrics.STAGES])


def error_rows(pictures: pa.Table, error: str, dataset: catalog.Dataset, carried: pa.Schema) -> pa.Table:
    """The staged rows of planned pictures (plan's columns) that never came back."""
    own = pictures.select(["image_id", "uri", "unit", "seq", *carried.names])
    rows = [_row(picture, Prepared(error=error)) for picture in own.to_pylist()]
    return pa.Table.from_pylist(rows, records.staged_schema(dataset, carried))


@dataclass(frozen=True)
class Prepared:
    """A picture on its way to the network: its faces framed as they are asked for, or the reason why not, of each or of
    the picture."""

    width: int | None = None
    height: int | None = None
    n_faces: int = 0
    faces: Iterable[Framed | str] = ()
    error: str | None = None


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


class ParseUnits:
    """`parser` are FaceParser's arguments, `detector` those of the detector called `name` where faces are to be found,
    `given` says that landmarks or boxes place them, the rest is as in Job."""

    def __init__(
        self,
        parser: dict[str, Any],
        max_pixels: int,
        storage_options: str | None = None,
        s3_client: str = "s3fs",
        detector: dict[str, Any] | None = None,
        max_faces: int | None = None,
        given: bool = False,
        decode: str = "exact",
        mask_space: str = "frame",
    ) -> None:
        storage.configure(storage_options, s3_client)  # the weights may lie there
        self.parser = self.load(parser)
        self.max_pixels = max_pixels
        self.dataset = self.parser.checkpoint.dataset
        threads = parser.get("threads") or 1
        self.max_faces, self.given, self.mask_space = max_faces, given, mask_space
        self.fast, self.near = decode == "fast", decode == "near"
        self.finds = detector is not None and not given
        self.detector_settings, self.device = detector or {}, parser.get("device", "cpu")
        # Where faces are found a picture may have many, and waits with them.
        self.ahead = (2 * threads if self.finds else 2 * self.parser.batch_size) + 1
        self.turn = Lock()  # of the units in the actor: together they would also end together, and the network wait
        if threads == 1 and self.device == "cpu":
            self.decoders = self.encoders = _InTurn()
        else:
            self.decoders = ThreadPoolExecutor(threads, "decode")
            self.encoders = ThreadPoolExecutor(threads, "encode")

    @staticmethod
    def load(parser: dict[str, Any]) -> Any:
        # Here, because the driver imports this module and has no use for torch.
        from segface_batch.model.parser import FaceParser

        return FaceParser(**parser)

    @cached_property
    def detector(self) -> Detector:
        settings = {name: value for name, value in self.detector_settings.items() if name != "name"}
        if self.detector_settings["name"] == "yunet":
            from segface_batch.model.yunet import YuNet

            return YuNet(**settings)
        return self._mtcnn(**settings)

    @cached_property
    def locator(self) -> Mtcnn:
        """Finds the landmarks of a face whose box is given."""
        return self._mtcnn()

    def _mtcnn(self, **settings: Any) -> Mtcnn:
        from segface_batch.model.mtcnn import Mtcnn

        return Mtcnn(**settings).to(self.device)

    def __call__(self, unit: pa.Table) -> pa.Table:
        """One row of fetch's -> the same with `rows` (records.staged_schema, a row per picture, in order) in place of
        `pictures`, and the `seconds` of each stage.  What fails but a picture is told in `fatal`, because Ray drops
        what a worker raises."""
        fatal = unit["fatal"][0].as_py()
        pictures = unnest(unit["pictures"])
        schema = records.staged_schema(self.dataset, _carried(pictures.schema))
        rows: list[dict[str, Any]] = []
        seconds = metrics.Seconds()
        if fatal is None:
            try:
                with metrics.busy():
                    rows = self._rows(pictures.to_pylist(), seconds)
            except Exception as error:
                fatal = f"the parser failed: {type(error).__name__}: {error}".partition("\n")[0]
        seconds.tell()
        nested = nest(
            pa.Table.from_pylist(rows, schema), pa.field("rows", pa.large_list(pa.struct(list(schema))), False)
        )
        others = unit.drop_columns(["pictures", "fatal"])
        told = {"rows": nested, "seconds": pa.array([seconds.spent], SECONDS), "fatal": pa.array([fatal], pa.string())}
        for name, column in told.items():
            others = others.append_column(name, column)
        return others

    def _rows(self, pictures: list[dict[str, Any]], seconds: metrics.Seconds) -> list[dict[str, Any]]:
        rows: list[list[Future[dict[str, Any]]]] = []
        waiting: list[_Face] = []
        todo = iter(pictures)
        first = [self.decoders.submit(self._prepare, picture, seconds) for picture in islice(todo, self.ahead)]
        with self.turn:
            for picture, prepared in zip(pictures, self._prepared(first, todo, seconds), strict=True):
                rows.append([Future() for _ in range(prepared.n_faces or 1)])
                if not prepared.n_faces:
                    rows[-1][0].set_result(_row(picture, prepared))
                for number, framed in enumerate(prepared.faces):
                    if isinstance(framed, str):
                        rows[-1][number].set_result(_row(picture, prepared, number, framed))
                        continue
                    waiting.append(_Face(picture, prepared, number, framed, rows[-1]))
                    if len(waiting) == self.parser.batch_size:
                        self._parse(waiting, seconds)
                        waiting = []
            if waiting:
                self._parse(waiting, seconds)
        return [row.result() for faces in rows for row in faces]

    def _prepared(
        self, futures: list[Future[Prepared]], todo: Iterator[dict[str, Any]], seconds: metrics.Seconds
    ) -> Iterator[Prepared]:
        """Every picture decoded and framed, in order, some ahead of the network."""
        while futures:
            yield futures.pop(0).result()
            futures += [self.decoders.submit(self._prepare, picture, seconds) for picture in islice(todo, 1)]

    def _prepare(self, picture: dict[str, Any], seconds: metrics.Seconds) -> Prepared:
        data, points = picture.pop("data"), picture["landmarks"]
        if picture["error"] is not None:
            return Prepared(error=picture["error"])
        checkpoint = self.parser.checkpoint
        try:
            with seconds.of("decode"):
                if self.fast:
                    image, width, height = decode_reduced(data, self.max_pixels, checkpoint.resolution)
                else:
                    image = decode(data, self.max_pixels)
                    width, height = image.size
        except DecodeError as error:
            return Prepared(error=str(error))
        try:
            landmarks = None if points is None else np.array(points, np.float32).reshape(-1, 2)
            if self.finds or (self.given and landmarks is not None and len(landmarks) == 2):
                with seconds.of("detect"):
                    faces = self._faces(image, landmarks)
                found = frame_faces(image, checkpoint, faces)
                with seconds.of("decode"):
                    ready = list(islice(found, FRAMED_AHEAD))
                return Prepared(width, height, len(faces), chain(ready, found))
            with seconds.of("decode"):
                if self.fast:
                    framed = frame_whole(image, width, height, checkpoint, landmarks)
                elif self.given:
                    framed = frame_given(image, checkpoint, landmarks)
                else:
                    framed = frame(image, checkpoint, landmarks, near=self.near)
        except FramingError as error:
            return Prepared(width, height, error=str(error))
        return Prepared(width, height, 1, (framed,))

    def _faces(self, image: Image.Image, corners: np.ndarray | None) -> Faces:
        """The faces of a photograph, or the one in a given box (2, 2)."""
        if self.finds or corners is None:
            return self.detector.detect(image).largest(self.max_faces)
        return self.locator.locate(image, np.array([given_box(corners, image.width, image.height)], np.float32))

    def _parse(self, faces: Sequence[_Face], seconds: metrics.Seconds) -> None:
        """Label the faces together, and have their rows encoded in the background."""
        frames = [face.framed for face in faces]
        fives = [framed.landmarks for framed in frames if framed.landmarks is not None]
        with seconds.of("parse"):
            labels = self.parser.labels(np.stack([f.pixels for f in frames]), np.stack(fives) if fives else None)
        for face, mask in zip(faces, labels, strict=True):
            face.rows[face.number] = self.encoders.submit(self._encode, face, mask, seconds)

    def _encode(self, face: _Face, mask: np.ndarray, seconds: metrics.Seconds) -> dict[str, Any]:
        with seconds.of("encode"):
            names = self.dataset.class_names
            return ok_row(face.picture, face.prepared, face.framed, mask, names, face.number, self.mask_space)


@dataclass(frozen=True)
class _Face:
    """A framed face that waits for the network, and the rows of its picture."""

    picture: dict[str, Any]
    prepared: Prepared
    number: int
    framed: Framed
    rows: list[Future[dict[str, Any]]]


#: Of a fetched picture, what is no column of `stats`; the other columns are, as the manifest's that the user asked for.
NOT_CARRIED = ("landmarks", "data", "error")


def _carried(pictures: pa.Schema) -> pa.Schema:
    """The manifest's columns among those of fetched pictures."""
    own = {*NOT_CARRIED, *(name for name, *_ in records.COLUMNS)}
    return pa.schema([field for field in pictures if field.name not in own])


def _row(picture: dict[str, Any], prepared: Prepared, face: int = 0, error: str | None = None) -> dict[str, Any]:
    """The staged row of a picture or face without mask; columns that are absent become null."""
    error = error or prepared.error
    row = {name: value for name, value in picture.items() if name not in NOT_CARRIED}
    row |= {"face": face, "n_faces": prepared.n_faces, "width": prepared.width, "height": prepared.height}
    return row | {"status": records.ERROR if error else records.NO_FACE, "error": error}


def ok_row(
    picture: dict[str, Any],
    prepared: Prepared,
    framed: Framed,
    mask: np.ndarray,
    class_names: Sequence[str],
    face: int = 0,
    mask_space: str = "frame",
) -> dict[str, Any]:
    """The staged row of a parsed face: its statistics and its mask as PNG."""
    transform = framed.transform
    if mask_space == "image":
        assert prepared.width is not None
        assert prepared.height is not None
        mask, (left, top) = paste(mask, transform, prepared.width, prepared.height)
        transform = np.array([[1.0, 0, left], [0, 1, top]])
    row = _row(picture, prepared, face) | {"status": records.OK, "score": framed.score}
    row |= dict(zip(("box_left", "box_top", "box_right", "box_bottom"), framed.box, strict=True))
    row |= {"points": None if framed.points is None else framed.points.ravel(), "transform": transform.ravel()}
    counts = class_pixels(mask, len(class_names)).tolist()
    parsed = sum(counts)
    row["mask_pixels"] = parsed
    for name, count in zip(class_names, counts, strict=True):
        row |= {f"px_{name}": count, f"frac_{name}": count / parsed}
    if mask_space == "image":
        mask[mask == OUTSIDE] = catalog.BACKGROUND
    return row | {"mask": {"bytes": masks.encode(mask)}}
