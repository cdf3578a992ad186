"""The settings of one run, which check themselves before anything heavy loads (standard library only).

A setting is one field of `Job`: its default, and what the command line and run.json must know of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segface_batch import catalog, class_tables, storage
from segface_batch.images import DEFAULT_MAX_PIXELS
from segface_batch.model import engine as engines
from segface_batch.model.network import factory
from segface_batch.storage import options, redact

#: Groups of options, in the order of the help.
MODEL, FACES, DETECTION = "model", "faces", "detection (with --faces detect)"
LABELS = "labels"
INPUT, OUTPUT, WORKERS = "input", "output", "workers"
RERUNS, ERRORS, STORAGE = "reruns", "errors", "storage"

#: The side, in pixels, of what the detector's first net sees.
SMALLEST_FACE = 12

#: Smaller faces have little to parse; from this score on the detector found no false ones in trials.
DEFAULT_MIN_FACE, DEFAULT_MIN_SCORE = 40, 0.95

#: The endings that distinguish files that list or hold images from folders.
INPUT_SUFFIXES = (".txt", ".csv", ".parquet", ".tar")

#: 16,384 masks of 512 x 512 make a part of about 100 MB (5.7 kB each, measured on synthetic masks).
DEFAULT_PART_ROWS = 16_384


def option(
    default: Any,
    group: str,
    help: str,
    *,
    recorded: bool,
    choices: tuple[str, ...] | None = None,
    metavar: str | None = None,
    least: int | None = None,
) -> Any:
    """A field of `Job`.

    `recorded`: run.json keeps the setting, and a resume must repeat it, because it changes rows or their places in the
    parts.  `help` states the default where the field says None.  `least` is the smallest number allowed.
    """
    about = {"group": group, "help": help, "recorded": recorded, "choices": choices, "metavar": metavar, "least": least}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Job:
    """What to annotate, with what, and how; the field names are the option names of `annotate`.

    What is None is chosen when the run starts, from the machine or cluster it runs on.
    ValueError, FileNotFoundError or NotADirectoryError, in one line with a hint, for settings that cannot work.
    """

    # fmt: off
    input: str | tuple[str, ...] = field(metadata={"recorded": True, "help":
        "a folder or URL prefix, searched recursively for images, .tar and .parquet files; one such file; or a "
        "manifest: .txt, .csv or .parquet with a column uri"})
    output: str = field(metadata={"recorded": False, "help":
        "folder or URL prefix for the output; created if absent"})

    checkpoint: str = option(catalog.DEFAULT_CHECKPOINT, MODEL, recorded=True, metavar="NAME", help=
        "one of those that 'segface-batch checkpoints' lists")
    weights: str | None = option(None, MODEL, recorded=False, metavar="FILE", help=
        "weights of the checkpoint, a path or any fsspec URL (default: the published file, from the Hugging Face hub)")
    weights_sha256: str | None = option(None, MODEL, recorded=True, metavar="HEX", help=
        "refuse weights with another sha256 (default: not checked)")
    revision: str | None = option(None, MODEL, recorded=False, help=
        "commit or tag of the Hugging Face repository (default: the newest)")
    network: str | None = option(None, MODEL, recorded=True, metavar="MODULE:FACTORY", help=
        "a network of your own, which brings its own checkpoint; see docs/networks.md (default: SegFace)")
    class_table: str | None = option(None, LABELS, recorded=False, metavar="TABLE", help=
        "whose class ids the masks have: celebamask-hq, lapa, helen, or a JSON file with the names in the order of the "
        "ids (default: the input are images)")
    device: str = option("auto", MODEL, recorded=False, choices=("auto", "cpu", "cuda"), help=
        "where the network runs; auto: on GPUs if Ray has any")
    engine: str = option("auto", MODEL, recorded=True, choices=engines.ENGINES, help=
        "library that runs the network; openvino is for CPUs and needs segface-batch[openvino]; auto: openvino where "
        "it is installed on a single machine without a GPU, else torch")
    precision: str = option("fp32", MODEL, recorded=True, choices=("fp32", "bf16"), help=
        "bf16 is faster on devices that support it, and not exact")
    compile: bool = option(False, MODEL, recorded=True, help=
        "compile the network with torch, if the job has enough images to gain from it")

    confidence: bool = option(True, MODEL, recorded=True, help=
        "leave the columns that say how sure the network is null")
    confidence_map: bool = option(False, MODEL, recorded=True, help=
        "also store how sure the network is of each pixel, as a PNG beside the mask")

    faces: str = option("whole", FACES, recorded=True, choices=("whole", "detect", "given"), help=
        "whole: the images are ready crops; detect: find the faces in photographs; given: crop by the landmarks or "
        "boxes in the manifest or Parquet file")
    mask_space: str = option("crop", FACES, recorded=True, choices=("crop", "image"), help=
        "crop: masks as the network returns them; image: masks in pixels of the upright image")
    detector: str = option("mtcnn", DETECTION, recorded=True, choices=("mtcnn", "yunet"), help=
        "what finds the faces; yunet needs segface-batch[yunet]")
    min_face: int = option(DEFAULT_MIN_FACE, DETECTION, recorded=True, metavar="PIXELS", least=SMALLEST_FACE, help=
        "skip faces whose box is smaller than this, by its longer side")
    min_score: float = option(DEFAULT_MIN_SCORE, DETECTION, recorded=True, metavar="S", help=
        "skip faces that the detector gives a lower score, from 0 to 1")
    max_faces: int | None = option(None, DETECTION, recorded=True, least=1, help=
        "keep only the N largest faces of an image (default: all)")

    decode: str = option("exact", INPUT, recorded=True, choices=("exact", "near", "fast"), help=
        "exact: as the official code; near: faster resizing, few pixels off by a grey level, hardly any by two; fast: "
        "large JPEGs at a reduced size; both are for ready crops and change masks slightly")
    max_pixels: int = option(DEFAULT_MAX_PIXELS, INPUT, recorded=True, least=1, help=
        "larger images get the error too_large")
    columns: tuple[str, ...] = option((), INPUT, recorded=True, help=
        "columns of manifests or Parquet files to copy into stats (default: none)")
    image_column: str | None = option(None, INPUT, recorded=True, metavar="NAME", help=
        "column of Parquet files that holds the images (default: the only possible one)")
    part_rows: int = option(DEFAULT_PART_ROWS, OUTPUT, recorded=True, least=1, help=
        "images per part, which is one Parquet file of stats and one of masks")

    actors: tuple[int, int] | None = option(None, WORKERS, recorded=False, help=
        "fewest and most workers (default: as many as the CPUs or GPUs allow)")
    threads: int | None = option(None, WORKERS, recorded=False, least=1, help=
        "CPU threads of a worker (default: 1; with a GPU most of its CPUs)")
    num_gpus: float | None = option(None, WORKERS, recorded=False, least=0, help=
        "GPUs of a worker (default: 1 where Ray has GPUs)")
    batch_size: int | None = option(None, WORKERS, recorded=False, least=1, help=
        "crops in the network at once (default: 1; with a GPU more)")

    new: bool = option(False, RERUNS, recorded=False, help=
        "also annotate images that were added to the input")
    retry_errors: bool = option(False, RERUNS, recorded=False, help=
        "try images with errors again")
    takeover: bool = option(False, RERUNS, recorded=False, help=
        "stop another run on this output and continue it")

    max_errors: int | None = option(None, ERRORS, recorded=False, least=0, help=
        "stop when more than N images of this run have errors (default: never)")
    allow_unreadable: bool = option(False, ERRORS, recorded=False, help=
        "record errors even if all images of a unit are forbidden or unfetchable, which otherwise stops the run")

    storage_options: str | None = option(None, STORAGE, recorded=False, metavar="JSON", help=
        "arguments of fsspec's file systems, or a JSON file with them, which every node can read and which may hold "
        "secrets (default: the environment's, such as AWS_PROFILE)")
    s3_client: str = option("s3fs", STORAGE, recorded=False, choices=options.S3_CLIENTS, help=
        "obstore is faster, verifies no checksums and needs segface-batch[fast-s3]")
    # fmt: on

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)

    @property
    def model(self) -> catalog.Checkpoint:
        """What the network is, or who has made the masks: its name, resolution and class table."""
        if self.class_table is not None:
            dataset = class_tables.class_table(self.class_table)
            return catalog.Checkpoint("labels", "none", 0, dataset, None)
        return catalog.find(self.checkpoint) if self.network is None else factory(self.network).checkpoint

    @property
    def placed_by(self) -> tuple[str, ...]:
        """The columns that place the face of each image, of which every input must have one; none where the face fills
        its image or is detected."""
        if self.class_table is not None:
            return ()
        if self.faces == "given":
            return ("landmarks", "box")
        return ("landmarks",) if self.faces == "whole" and self.model.dataset.landmarks else ()

    def __post_init__(self) -> None:
        if self.network is not None and self.checkpoint != catalog.DEFAULT_CHECKPOINT:
            raise ValueError("--network brings its own checkpoint: leave out --checkpoint or --network")
        self._check_labels()
        checkpoint = self.model
        self._check_values()
        if self.confidence_map and not self.confidence:
            raise ValueError("--confidence-map with --no-confidence: leave out one of them")
        self._check_faces(checkpoint)
        self._check_device()
        self._check_weights(checkpoint)
        options.check(self.storage_options)
        self._check_places(checkpoint)

    def _check_labels(self) -> None:
        """Masks that exist need no network and no crop."""
        for each in fields(self) if self.class_table is not None else ():
            is_of_images = each.metadata.get("group") in (MODEL, FACES, DETECTION) and each.name != "device"
            if (is_of_images or each.name == "decode") and getattr(self, each.name) != each.default:
                raise ValueError(f"{flag(each.name)} is for images, and masks are measured: leave it out")

    def _check_values(self) -> None:
        """Each setting by itself, as its field says."""
        for each in fields(self):
            value, choices, least = getattr(self, each.name), each.metadata.get("choices"), each.metadata.get("least")
            if choices is not None and value not in choices:
                raise ValueError(f"{flag(each.name)} {value}: choose one of {', '.join(choices)}")
            if least is not None and value is not None and value < least:
                kind = "whole number" if isinstance(value, int) else "number"
                raise ValueError(f"{flag(each.name)} {value}: give a {kind} from {least} up")
        if not 0 < self.min_score < 1:
            raise ValueError(f"--min-score {self.min_score}: give a number between 0 and 1")
        if self.actors is not None and not 1 <= self.actors[0] <= self.actors[1]:
            raise ValueError(f"--actors {self.actors[0]}:{self.actors[1]}: give MIN:MAX with 1 <= MIN <= MAX")

    def _check_faces(self, checkpoint: catalog.Checkpoint) -> None:
        if self.decode != "exact" and self.faces != "whole":
            raise ValueError(f"--decode {self.decode} is for whole images: leave out that or --faces {self.faces}")
        if self.decode == "fast" and checkpoint.dataset.landmarks == "68":
            raise ValueError(f"--decode fast is for whole images, and {checkpoint.name} crops each: leave it out")
        if self.detector == "yunet" and find_spec("cv2") is None:
            raise ValueError("--detector yunet needs OpenCV: pip install 'segface-batch[yunet]'")
        for each in fields(self) if self.faces != "detect" else ():
            if each.metadata.get("group") == DETECTION and getattr(self, each.name) != each.default:
                raise ValueError(f"{flag(each.name)} is for --faces detect: add that or leave out {flag(each.name)}")

    def _check_device(self) -> None:
        if self.engine == "openvino":
            engines.check_openvino("cuda" if self.num_gpus else self.device, self.compile)
        if self.device == "cuda" and self.num_gpus == 0:
            raise ValueError("--device cuda with --num-gpus 0: Ray would hide every GPU; leave out --num-gpus")
        if self.device == "cpu" and self.num_gpus:
            raise ValueError(f"--device cpu with --num-gpus {self.num_gpus}: leave out one of them")

    def _check_weights(self, checkpoint: catalog.Checkpoint) -> None:
        if self.weights_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
            raise ValueError(f"--weights-sha256 {self.weights_sha256}: give 64 lower-case hexadecimal digits")
        if self.weights is not None and self.revision is not None:
            raise ValueError("--revision is for the published file: leave out --revision or --weights")
        if checkpoint.asset is not None and self.revision is not None:
            raise ValueError(f"--revision is for published files, and {checkpoint.name} is embedded: leave it out")
        path = None if self.weights is None else storage.local_path(self.weights)
        if self.weights is not None and storage.is_url(self.weights) and not storage.is_valid(self.weights):
            raise ValueError(f"--weights '{redact.redacted(self.weights)}' is no URL that can be read; check it")
        if path is not None and not Path(path).is_file():
            raise FileNotFoundError(f"no weights file '{self.weights}'; give a .pt or .safetensors file or its URL")

    def _check_places(self, checkpoint: catalog.Checkpoint) -> None:
        if not self.inputs:
            raise ValueError("no input; give a folder, a manifest or a URL")
        for place in (*self.inputs, self.output):
            if redact.names_user(place):
                shown = redact.redacted(place)
                raise ValueError(f"a URL with a password in it ('{shown}'): use --storage-options FILE for that")
            if storage.is_url(place) and not storage.is_valid(storage.join(place, "a")):
                raise ValueError(f"'{redact.redacted(place)}' is no URL that can be read; check its scheme and host")
        path = storage.local_path(self.output)
        if path is not None:
            out = Path(path)
            if out.exists() and not out.is_dir():
                raise NotADirectoryError(f"'{self.output}' is a file; name a folder for the output")
            if out.is_dir() and not (out / "_segface").is_dir() and any(out.iterdir()):
                raise ValueError(f"'{self.output}' holds other files; name a new or empty folder for the output")
        for place in self.inputs:
            _check_input(place, checkpoint, self.placed_by)
            if storage.is_inside(self.output, place):
                where, what = ("input folder", "folder") if path is not None else ("input", "prefix")
                shown = redact.redacted(self.output)
                raise ValueError(f"output '{shown}' lies inside the {where}; choose a {what} outside it")
            if storage.is_inside(place, self.output):
                inner, outer = map(redact.redacted, (place, self.output))
                raise ValueError(f"input '{inner}' lies inside the output '{outer}'; choose another output")


def recorded(job: Job) -> dict[str, Any]:
    """The settings that run.json keeps and a resume must repeat, by name, in JSON's types."""
    kept = {each.name: getattr(job, each.name) for each in fields(job) if each.metadata["recorded"]}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in kept.items()}


def flag(name: str) -> str:
    """The option of a field: --max-faces of max_faces, --no-confidence of confidence, which is on without it."""
    is_on = any(each.name == name and each.default is True for each in fields(Job))
    return f"--{'no-' if is_on else ''}{name.replace('_', '-')}"


def _check_input(place: str, checkpoint: catalog.Checkpoint, placed_by: tuple[str, ...]) -> None:
    path = storage.local_path(place)
    if path is None:
        return
    source = Path(path)
    if not source.exists():
        raise FileNotFoundError(f"no folder or manifest '{place}'; check the path")
    if source.is_file() and source.suffix.lower() not in INPUT_SUFFIXES:
        known = ", ".join(INPUT_SUFFIXES)
        raise ValueError(f"'{place}' is neither a folder nor a manifest ({known}); give the folder it is in")
    if source.is_dir() and placed_by and not any(source.glob("*.parquet")):
        points = {"": "five, 68 or 106", "five": "five (or LaPa's 106)", "68": "68"}[checkpoint.dataset.landmarks]
        box = " or its box" if "box" in placed_by else ""
        raise ValueError(
            f"{checkpoint.name} crops each face by {points} landmarks{box}, which a folder does not have; give a "
            f"manifest with a column {' or '.join(map(repr, placed_by))}, or --faces detect, which finds them"
        )
