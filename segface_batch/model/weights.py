"""The weights of a checkpoint: find or fetch the file, check it, load it into the network, convert it to safetensors.

Two kinds of file hold the same tensors under the same official names: the published `model_299.pt` (a pickle, about
three times as large as its weights), and the .safetensors file that `convert` makes of it.

Heavy libraries are imported where they are used: the command line finds a file and its hash before torch is loaded, and
fails at once where the file is missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from segface_batch import storage
from segface_batch.catalog import DEMO_CHECKPOINT, HUB_REPOSITORY, Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from segface_batch.model.segface import SegFace

#: Where the published files keep the weights, beside optimizer and scheduler.
_PUBLISHED_KEY = "state_dict_backbone"

#: The largest published file is 1.1 GB; a zip whose directory adds up to more than this is an attack or damaged.
_LARGEST_UNPACKED = 8 * 2**30

#: torch writes its files as zips.
_ZIP_BEGINNING = b"PK\x03\x04"

#: The files that come with the package.
_ASSETS = Path(__file__).parents[1] / "assets"

#: Version of the layout that `convert` writes.
_FORMAT = "segface-batch 1"

#: Seconds until the hub counts as unreachable.
_TIMEOUT = 5.0

#: Functions of torch and torch.nn.init that fill weights with random numbers.
_RANDOM = frozenset(("normal_", "uniform_", "erfinv_", "kaiming_normal_", "kaiming_uniform_"))

#: The counter of batches in every batch normalisation; only training reads it.
_COUNTER = "num_batches_tracked"


def locate(checkpoint: Checkpoint, weights: str | None = None, revision: str | None = None) -> Path:
    """The local file with the weights: `weights` (a path, or a URL that fsspec reads), else the embedded or published
    file.

    A URL is fetched once, into `cache_folder`; the published file into the Hugging Face cache, at `revision` of the
    repository.  FileNotFoundError or OSError, in one line with a hint, where there is no such file.
    """
    if weights is None and checkpoint.asset is not None:
        return _ASSETS / checkpoint.asset
    if weights is None:
        hint = (
            "give a file at hand with --weights FILE, or point HF_HOME at a cache that holds it, filled with "
            f"'segface-batch checkpoints fetch {checkpoint.name}' on a machine with network; to try things out without "
            f"any, --checkpoint {DEMO_CHECKPOINT} comes with the package"
        )
        return from_hub(HUB_REPOSITORY, checkpoint.hub_file, revision, hint)
    local = storage.local_path(weights)
    if local is None:
        return _from_url(weights)
    path = Path(local).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no weights file {path} for {checkpoint.name}; give an existing file or a URL")
    return path


def cache_folder() -> Path:
    """The folder of files that can be fetched or made again: $SEGFACE_BATCH_CACHE or ~/.cache/segface_batch.

    OSError, with a hint, where it can be neither found nor made.
    """
    try:
        folder = Path(os.environ.get("SEGFACE_BATCH_CACHE") or "~/.cache/segface_batch").expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        raise OSError(f"no folder for files to keep ({error}); set SEGFACE_BATCH_CACHE to one") from error
    return folder


def sha256(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: str | os.PathLike[str], expected: str) -> None:
    """ValueError unless the file has that SHA-256."""
    found = sha256(path)
    if found != expected.lower():
        raise ValueError(f"{path} has sha256 {found}, expected {expected}: another file, or damaged; fetch it again")


def check_kind(path: str | os.PathLike[str]) -> None:
    """ValueError for a file that is neither of the two kinds, by its first bytes and without torch."""
    with open(path, "rb") as file:
        beginning = file.read(9)
    # A .safetensors file begins with the length of its JSON header.
    if not beginning.startswith(_ZIP_BEGINNING) and beginning[8:] != b"{":
        raise ValueError(_wrong_kind(path))


def read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a file by their official names, from a published file or one that `convert` wrote.

    No code in a file is ever run.  ValueError for a pickle of anything but plain data and tensors, a zip that would
    unpack to more than 8 GiB, or a file of another kind.
    """
    return _read(Path(path))[0]


def load(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> SegFace:
    """The network of a checkpoint with the weights of a file, on the CPU, ready for inference.

    Strict: ValueError for a missing, unexpected or misshapen tensor, or where the metadata name another checkpoint.
    A published file does not show its resolution, nor whether it is LaPa's or Helen's.
    """
    from segface_batch.model.segface import SegFace

    path = Path(path)
    tensors, metadata = _read(path)
    named = metadata.get("checkpoint", checkpoint.name)
    if named != checkpoint.name:
        raise ValueError(f"{path} holds the checkpoint '{named}', not '{checkpoint.name}'")
    with _skip_init():
        network = SegFace(checkpoint)
    sources = _sources(checkpoint, network)
    _check_fit(checkpoint, path, tensors, sources)
    # Not strict only because of the counters, which the sources leave out; _check_fit has compared the rest.
    network.load_state_dict({name: source.take(tensors[source.name]) for name, source in sources.items()}, strict=False)
    return network.eval().requires_grad_(False)


@contextmanager
def _skip_init() -> Iterator[None]:
    """Modules made inside stay uninitialised: random weights would take as long as reading the true ones."""
    from torch.overrides import TorchFunctionMode

    class SkipInit(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if getattr(func, "__name__", "") in _RANDOM:
                return args[0] if args else kwargs["tensor"]
            return func(*args, **kwargs)

    with SkipInit():
        yield


def convert(checkpoint: Checkpoint, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the tensors that inference needs, float32, under their official names, as safetensors.

    The metadata give the checkpoint, data set, classes, resolution and the source's SHA-256.  Only a file that `load`
    accepts is converted; `target` appears whole or not at all.
    """
    needed = {found.name for found in _sources(checkpoint, load(checkpoint, source)).values()}
    tensors = read(source)
    _save(checkpoint, {name: tensors[name].float() for name in needed}, target, {"source_sha256": sha256(source)})


def write(
    checkpoint: Checkpoint,
    network: SegFace,
    target: str | os.PathLike[str],
    dtype: torch.dtype | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a trained network as a file that `load` reads: tensors of `dtype` (default float32) under their official
    names, and `notes` beside the metadata that `convert` writes.  `target` appears whole or not at all."""
    import torch

    state, tensors = network.state_dict(), {}
    for name, source in _sources(checkpoint, network).items():
        official = tensors.setdefault(source.name, torch.zeros(source.shape, dtype=dtype or torch.float32))
        source.take(official).copy_(state[name])  # `take` gives a view
    _save(checkpoint, tensors, target, notes or {})


def _save(
    checkpoint: Checkpoint, tensors: Mapping[str, Tensor], target: str | os.PathLike[str], notes: Mapping[str, str]
) -> None:
    from safetensors.torch import save

    metadata = {
        "format": _FORMAT,
        "checkpoint": checkpoint.name,
        "dataset": checkpoint.dataset.name,
        "classes": json.dumps(checkpoint.dataset.class_names),
        "resolution": str(checkpoint.resolution),
        **notes,
    }
    content = save({name: tensors[name].contiguous() for name in sorted(tensors)}, metadata)
    with _atomic(Path(target)) as unfinished:
        unfinished.write_bytes(content)  # the file of safetensors' save_file is readable for its owner alone


@dataclass(frozen=True)
class _Source:
    """The official tensor that holds one of the network's: its name and shape, and how to take ours from it."""

    name: str
    shape: tuple[int, ...]
    take: Callable[[Tensor], Tensor]


#: Tensors that timm has in another shape, by the end of their timm name: the shape of the official tensor, and how to
#: take ours from it.  torchvision has Swin V2's biases of query, key and value in one tensor and sets the middle third
#: to zero at each use; timm has no bias for keys.
_OTHER_FORMS: dict[str, tuple[Callable[[tuple[int, ...]], tuple[int, ...]], Callable[[Tensor], Tensor]]] = {
    "gamma": (lambda shape: (*shape, 1, 1), lambda tensor: tensor.flatten()),
    "q_bias": (lambda shape: (3 * shape[0],), lambda tensor: tensor.chunk(3)[0]),
    "v_bias": (lambda shape: (3 * shape[0],), lambda tensor: tensor.chunk(3)[2]),
}


def _sources(checkpoint: Checkpoint, network: SegFace) -> dict[str, _Source]:
    """The source in the file of every tensor of the network but the counters."""
    from segface_batch.model.backbones import BACKBONES, official_name

    row = BACKBONES[checkpoint.backbone]
    sources = {}
    for name, tensor in network.state_dict().items():
        last, shape = name.rsplit(".", 1)[-1], tuple(tensor.shape)
        if last == _COUNTER:
            continue
        official_shape, take = _OTHER_FORMS.get(last, (lambda shape: shape, lambda tensor: tensor))
        inside = name.removeprefix("backbone.net.")
        official = name if inside == name else f"backbone.{official_name(row, inside)}"
        sources[name] = _Source(official, official_shape(shape), take)
    return sources


def _unused(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a tensor of the published file is known to be unused by inference."""
    from segface_batch.model.backbones import BACKBONES

    pattern = BACKBONES[checkpoint.backbone].unused
    return name.endswith(f".{_COUNTER}") or bool(pattern and re.fullmatch(rf"backbone\.({pattern})", name))


def _check_fit(
    checkpoint: Checkpoint, path: Path, tensors: Mapping[str, Tensor], sources: Mapping[str, _Source]
) -> None:
    expected = {source.name: source.shape for source in sources.values()}
    problems = [f"{name} {shape} is missing" for name, shape in expected.items() if name not in tensors]
    problems += [
        f"{name} {tuple(tensor.shape)} is unexpected"
        for name, tensor in tensors.items()
        if name not in expected and not _unused(checkpoint, name)
    ]
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tuple(tensor.shape) != shape:
            problems.append(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
        elif not tensor.is_floating_point():
            problems.append(f"{name} has type {tensor.dtype}, expected a floating point one")
    if not problems:
        return
    shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
    tokens = sum(name.endswith("_token.weight") for name in tensors)
    classes = len(checkpoint.dataset.classes)
    hint = f" ({tokens} class tokens instead of {classes}: another checkpoint's file?)" if tokens != classes else ""
    raise ValueError(f"{path} does not fit {checkpoint.name}{hint}: {shown}")


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata; a published file has no metadata."""
    with path.open("rb") as file:
        is_zip = file.read(len(_ZIP_BEGINNING)) == _ZIP_BEGINNING
    return (_read_published(path), {}) if is_zip else _read_safetensors(path)


def _read_published(path: Path) -> dict[str, Tensor]:
    import pickle

    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a readable weights file ({error})") from error
    if unpacked > _LARGEST_UNPACKED:
        raise ValueError(f"{path} would unpack to {unpacked} bytes, more than the {_LARGEST_UNPACKED} allowed")
    try:
        published = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is refused: it holds more than tensors and plain data, or is damaged") from error
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged pickle raises: KeyError, RuntimeError, ...
        raise ValueError(f"{path} is not a readable weights file ({type(error).__name__})") from error
    tensors = published.get(_PUBLISHED_KEY) if isinstance(published, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ValueError(f"{path} holds no tensors under '{_PUBLISHED_KEY}', as the published SegFace files do")
    return tensors


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(_wrong_kind(path)) from error


def _wrong_kind(path: str | os.PathLike[str]) -> str:
    return f"{path} is neither a published SegFace file (.pt) nor a .safetensors file"


def from_hub(repository: str, file: str, revision: str | None, hint: str) -> Path:
    """A repository's file in the Hugging Face cache, fetched where it is not there; OSError, with the hint, where that
    fails."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import LocalEntryNotFoundError

    wanted = {"repo_id": repository, "filename": file, "revision": revision}
    try:
        return Path(hf_hub_download(**wanted, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    try:
        # Without network the download itself would try for half a minute; this asks once.
        get_hf_file_metadata(hf_hub_url(**wanted), timeout=_TIMEOUT)
        return Path(hf_hub_download(**wanted))
    except Exception as error:  # the hub's HTTP library and its errors change between versions
        raise OSError(
            f"cannot fetch {file} from huggingface.co/{repository} ({type(error).__name__}); {hint}"
        ) from error


def _from_url(url: str) -> Path:
    parts = urlsplit(url)
    cache = cache_folder()
    target = cache / f"{hashlib.sha256(url.encode()).hexdigest()}-{PurePosixPath(parts.path or parts.netloc).name}"
    if target.is_file():
        return target
    # Neither the query, where a presigned URL has a secret, nor user and password before the host are shown.
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    try:
        with _locked(target):
            if target.is_file():
                return target
            content = storage.read(url)
            with _atomic(target) as unfinished:
                unfinished.write_bytes(content)
    except (OSError, ValueError, ImportError) as error:
        reason = f"{type(error).__name__}: {error}" if shown == url else type(error).__name__
        raise OSError(f"cannot read weights from {shown} ({reason}); give a file at hand with --weights FILE") from (
            error if shown == url else None
        )
    return target


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Lets one process of this machine in at a time: of actors that start together one fetches for all.

    The kernel ends the lock with its process.
    """
    with open(target.with_name(f".{target.name}.lock"), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _atomic(target: Path) -> Iterator[Path]:
    """A path to write to; afterwards the file is renamed to `target`, or removed after an error."""
    unfinished = target.with_name(f".{target.name}.{secrets.token_hex(8)}")
    try:
        yield unfinished
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)
