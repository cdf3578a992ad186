"""The settings of one run, which check themselves before anything heavy loads (standard library only)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from segface_batch import catalog
from segface_batch.model import engine as engines
from segface_batch.model.network import factory
from segface_batch.storage import options

PRECISIONS = ("fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
FACES = ("whole", "detect", "given")
DECODE = ("exact", "near", "fast")
DETECTORS = ("mtcnn", "yunet")
MASK_SPACES = ("crop", "image")

#: Options that mean something where faces are looked for only.
DETECTION = ("detector", "min_face", "min_score", "max_faces")

#: What the detector's first net looks at.
SMALLEST_FACE = 12

#: Faces of fewer pixels have little to parse; from this score on there were no false ones in trials.
DEFAULT_MIN_FACE, DEFAULT_MIN_SCORE = 40, 0.95

#: Files that list or hold images are told from folders by these endings.
INPUT_SUFFIXES = (".txt", ".csv", ".parquet", ".tar")

#: 16,384 masks of 512 x 512 make a part of about 100 MB (5.7 kB each, measured on synthetic masks).
DEFAULT_PART_ROWS = 16_384

#: Above the 61 megapixels of today's full-frame cameras; 240 MB of RGB, which a decode thread may hold.
DEFAULT_MAX_PIXELS = 80_000_000


@dataclass(frozen=True)
class Job:
    """What to annotate, with what, and how; the field names are the option names of `annotate`.

    `input` is one or several of: a folder or URL prefix of images, .tar or .parquet files (searched recursively), a
    manifest (.txt, .csv or .parquet with a column uri), a .parquet file with images in it, a WebDataset .tar.
    Everything that is None is chosen when the run starts, from the machine or cluster it runs on.
    ValueError, FileNotFoundError or NotADirectoryError, in one line with the hint, for settings that cannot work.
    """

    input: str | tuple[str, ...]
    output: str
    checkpoint: str = catalog.DEFAULT_CHECKPOINT
    weights: str | None = None  # a local path or any fsspec URL; None fetches the published file
    weights_sha256: str | None = None
    revision: str | None = None  # of the Hugging Face repository
    network: str | None = None  # MODULE:FACTORY of another network than SegFace (model.network)
    faces: str = "whole"  # the images are ready crops; detect, or given by landmarks
    detector: str = "mtcnn"
    min_face: int = DEFAULT_MIN_FACE  # pixels of the longer side of its box
    min_score: float = DEFAULT_MIN_SCORE
    max_faces: int | None = None  # the largest ones of an image
    mask_space: str = "crop"  # masks as parsed, R x R; or, image, in pixels of the upright image
    device: str = "auto"
    engine: str = "auto"  # torch or openvino; recorded by the run, so that a resume takes the same
    precision: str = "fp32"
    compile: bool = False  # torch's, where that is possible and the job long enough
    batch_size: int | None = None
    actors: tuple[int, int] | None = None  # least and most parser actors
    threads: int | None = None  # CPU threads of an actor
    num_gpus: float | None = None  # GPUs of an actor
    max_pixels: int = DEFAULT_MAX_PIXELS
    decode: str = "exact"  # near: resized by torch; fast: of large JPEGs no more pixels than are needed
    part_rows: int = DEFAULT_PART_ROWS
    columns: tuple[str, ...] = ()  # of manifests, to be repeated in stats
    image_column: str | None = None  # of Parquet files with images
    storage_options: str | None = None  # JSON, or a file with JSON that every node can read
    s3_client: str = "s3fs"
    new: bool = False  # look for images added to the inputs since
    retry_errors: bool = False
    max_errors: int | None = None  # of this run
    allow_unreadable: bool = False
    takeover: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.input,) if isinstance(self.input, str) else tuple(self.input)

    @property
    def model(self) -> catalog.Checkpoint:
        """What the network is: resolution and class table."""
        return catalog.find(self.checkpoint) if self.network is None else factory(self.network).checkpoint

    @property
    def placed_by(self) -> tuple[str, ...]:
        """The columns, of which every input must have one, that place the face of each image; none where they fill
        their images or are found."""
        if self.faces == "given":
            return ("landmarks", "box")
        return ("landmarks",) if self.faces == "whole" and self.model.dataset.landmarks else ()

    def __post_init__(self) -> None:
        if self.network is not None and self.checkpoint != catalog.DEFAULT_CHECKPOINT:
            raise ValueError("--network brings its own checkpoint: leave out --checkpoint or --network")
        checkpoint = self.model
        _one_of("device", self.device, DEVICES)
        _one_of("engine", self.engine, engines.ENGINES)
        if self.engine == "openvino":
            engines.check_openvino("cuda" if self.num_gpus else self.device, self.compile)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("faces", self.faces, FACES)
        _one_of("decode", self.decode, DECODE)
        if self.decode != "exact" and self.faces != "whole":
            raise ValueError(f"--decode {self.decode} is for whole images: leave it out, or --faces {self.faces}")
        if self.decode == "fast" and checkpoint.dataset.landmarks == "68":
            raise ValueError(f"--decode fast is for whole images, {checkpoint.name} crops each: leave it out")
        _one_of("detector", self.detector, DETECTORS)
        _one_of("mask-space", self.mask_space, MASK_SPACES)
        if self.detector == "yunet" and find_spec("cv2") is None:
            raise ValueError("--detector yunet needs OpenCV: pip install 'segface-batch[yunet]'")
        if self.faces != "detect":
            for option in DETECTION:
                if getattr(self, option) != getattr(Job, option):
                    raise ValueError(f"--{option.replace('_', '-')} is for --faces detect: add that, or leave it out")
        if not 0 < self.min_score < 1:
            raise ValueError(f"--min-score {self.min_score}: give a number between 0 and 1")
        if self.min_face < SMALLEST_FACE:
            raise ValueError(f"--min-face {self.min_face}: give at least {SMALLEST_FACE} pixels")
        _one_of("s3-client", self.s3_client, options.S3_CLIENTS)
        options.check(self.storage_options)
        for option in ("batch_size", "threads", "max_pixels", "part_rows", "max_faces"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise ValueError(f"--{option.replace('_', '-')} {value}: give a whole number from 1 up")
        if self.max_errors is not None and self.max_errors < 0:
            raise ValueError(f"--max-errors {self.max_errors}: give a whole number from 0 up")
        if self.actors is not None and not 1 <= self.actors[0] <= self.actors[1]:
            raise ValueError(f"--actors {self.actors[0]}:{self.actors[1]}: give MIN:MAX with 1 <= MIN <= MAX")
        if self.num_gpus is not None and self.num_gpus < 0:
            raise ValueError(f"--num-gpus {self.num_gpus}: give the GPUs of one actor, 0 or more")
        if self.device == "cuda" and self.num_gpus == 0:
            raise ValueError("--device cuda with --num-gpus 0: Ray hides every GPU then; leave --num-gpus out")
        if self.device == "cpu" and self.num_gpus:
            raise ValueError(f"--device cpu with --num-gpus {self.num_gpus}: leave one of them out")
        if self.weights_sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.weights_sha256):
            raise ValueError(f"--weights-sha256 {self.weights_sha256}: give 64 lower-case hexadecimal digits")
        if self.weights is not None and self.revision is not None:
            raise ValueError("--revision is for the published file: leave out --revision or --weights")
        if checkpoint.asset is not None and self.revision is not None:
            raise ValueError(f"--revision is for published files, and {checkpoint.name} is embedded: leave it out")
        if self.weights is not None and "://" not in self.weights and not Path(self.weights).is_file():
            raise FileNotFoundError(f"no weights file '{self.weights}'; give a .pt or .safetensors file or its URL")
        self._check_places(checkpoint)

    def _check_places(self, checkpoint: catalog.Checkpoint) -> None:
        if not self.inputs:
            raise ValueError("no input; give a folder, a manifest or a URL")
        for place in (*self.inputs, self.output):
            if "@" in urlsplit(place).netloc and "://" in place:
                where = place.partition("@")[2]
                raise ValueError(f"a URL with a password in it ('...@{where}'): give it by --storage-options FILE")
        if "://" not in self.output:
            out = Path(self.output)
            if out.exists() and not out.is_dir():
                raise NotADirectoryError(f"'{self.output}' is a file; name a folder for the output")
            if out.is_dir() and not (out / "_segface").is_dir() and any(out.iterdir()):
                raise ValueError(f"'{self.output}' holds other files; name a new or empty folder for the output")
        for place in self.inputs:
            _check_input(place, checkpoint, self.placed_by, self.output)


def _check_input(place: str, checkpoint: catalog.Checkpoint, placed_by: tuple[str, ...], output: str) -> None:
    if "://" in place:
        if f"{output.rstrip('/')}/".startswith(f"{place.rstrip('/')}/"):
            raise ValueError(f"output '{output}' lies inside the input; choose a prefix outside it")
        return
    source = Path(place)
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
    if source.is_dir() and "://" not in output and Path(output).resolve().is_relative_to(source.resolve()):
        raise ValueError(f"output '{output}' lies inside the input folder; choose a folder outside it")


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"--{option} {value}: choose one of {', '.join(allowed)}")
