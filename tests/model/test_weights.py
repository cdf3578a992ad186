"""Finding, checking, reading, loading and converting weights: what fits is taken whole, all else is one clear line."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from segface_batch.catalog import PUBLISHED, find
from segface_batch.model import weights
from segface_batch.model.backbones import BACKBONES
from segface_batch.model.segface import SegFace
from segface_batch.storage import retry
from tests import filled

NAME = "mobilenet_celeba_512"
CHECKPOINT = find(NAME)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filled.published_file(NAME, tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def converted(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted") / f"{NAME}.safetensors"
    weights.convert(CHECKPOINT, published, target)
    return target


def changed(folder: Path, change: Callable[[dict], object]) -> Path:
    """A published file whose tensors were changed."""
    state = filled.state(NAME)
    change(state)
    path = folder / "model_299.pt"
    torch.save({"state_dict_backbone": state}, path)
    return path


def refusal(call: Callable[[], object], kind: type[Exception] = ValueError) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Reading and loading


def test_a_published_file_gives_all_its_tensors_by_official_name(published: Path):
    tensors, expected = weights.read(published), filled.state(NAME)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_a_loaded_network_is_in_eval_mode_and_needs_no_gradients(published: Path):
    network = weights.load(CHECKPOINT, published)
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_missing_tensor_is_named_with_its_shape(tmp_path: Path):
    path = changed(tmp_path, lambda state: state.pop("backbone.4.block.2.fc1.bias"))
    message = refusal(lambda: weights.load(CHECKPOINT, path))
    assert message == f"{path} does not fit {NAME}: backbone.4.block.2.fc1.bias (24,) is missing"


def test_an_unexpected_tensor_is_named_with_its_shape(tmp_path: Path):
    path = changed(tmp_path, lambda state: state.update({"backbone.1.weight": torch.zeros(3, 2)}))
    message = refusal(lambda: weights.load(CHECKPOINT, path))
    assert message == f"{path} does not fit {NAME}: backbone.1.weight (3, 2) is unexpected"


def test_a_misshapen_tensor_is_named_with_both_shapes(tmp_path: Path):
    def transpose(state: dict) -> None:
        state["linear_c.0.proj.weight"] = state["linear_c.0.proj.weight"].T.contiguous()

    path = changed(tmp_path, transpose)
    message = refusal(lambda: weights.load(CHECKPOINT, path))
    assert message == f"{path} does not fit {NAME}: linear_c.0.proj.weight has shape (24, 256), expected (256, 24)"


def test_whole_numbers_are_no_weights(tmp_path: Path):
    path = changed(tmp_path, lambda state: state.update({"linear_c.0.proj.bias": torch.zeros(256, dtype=torch.int64)}))
    message = refusal(lambda: weights.load(CHECKPOINT, path))
    assert message == (
        f"{path} does not fit {NAME}: linear_c.0.proj.bias has type torch.int64, expected a floating point one"
    )


def test_many_misfits_are_counted_and_the_first_three_named(tmp_path: Path):
    def truncate(state: dict) -> None:
        for name in list(state)[::2]:
            del state[name]

    path = changed(tmp_path, truncate)
    message = refusal(lambda: weights.load(CHECKPOINT, path))
    assert re.fullmatch(r".*: (\S+ \([\d, ]*\) is missing; ){3}and \d+ more", message), message


def test_the_file_of_another_data_set_is_recognised_by_its_tokens(tmp_path: Path):
    def to_lapa(state: dict) -> None:
        names = [name for name in state if name.endswith("_token.weight")]
        for name in names[11:]:
            del state[name]

    message = refusal(lambda: weights.load(CHECKPOINT, changed(tmp_path, to_lapa)))
    assert "(11 class tokens instead of 19: another checkpoint's file?)" in message


def test_the_file_of_another_backbone_is_refused(published: Path):
    message = refusal(lambda: weights.load(find("resnet_celeba_512"), published))
    assert "does not fit resnet_celeba_512: " in message


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_may_stay_unused_is_what_the_official_code_does_not_use(name: str):
    record, pattern = filled.record(name), BACKBONES[find(name).backbone].unused
    matched = {
        key
        for key in record["tensors"]
        if key.endswith(".num_batches_tracked") or (pattern and re.fullmatch(rf"backbone\.({pattern})", key))
    }
    assert matched == {*record["unused_by_inference"], *record.get("derived", ())}


@pytest.mark.parametrize(
    "name",
    [
        NAME,
        "demo-synthetic",
        *(pytest.param(f"{name}_celeba_512", marks=pytest.mark.slow) for name in ("convnext", "swinv2b")),
    ],
)
def test_a_network_is_read_as_it_was_written(name: str, tmp_path: Path):
    network = SegFace(find(name))
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_()
    weights.write(find(name), network, tmp_path / "own.safetensors", notes={"data": "none"})
    again = weights.load(find(name), tmp_path / "own.safetensors").state_dict()
    assert again.keys() == network.state_dict().keys()
    different = [key for key, tensor in network.state_dict().items() if not torch.equal(tensor, again[key])]
    assert different == []
    (tmp_path / "plain").touch()
    assert (tmp_path / "own.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with safe_open(tmp_path / "own.safetensors", framework="pt") as file:
        assert (file.metadata()["data"], file.metadata()["checkpoint"]) == ("none", name)


# Hostile and broken files


class Bomb:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"state_dict_backbone": {"weight": Bomb(trace)}}, path)
    message = refusal(lambda: weights.read(path))
    assert message == f"{path} is refused: it holds more than tensors and plain data, or is damaged"
    assert not trace.exists()


def test_a_zip_that_unpacks_to_more_than_8_gib_is_refused_unread(tmp_path: Path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for n in range(3):
            archive.writestr(f"archive/data/{n}", b"0")
    data, large = bytearray(path.read_bytes()), 0xFFFFFFFE
    for entry in re.finditer(b"PK\x01\x02", bytes(data)):  # the directory's entries: unpacked size at byte 24
        data[entry.start() + 24 : entry.start() + 28] = struct.pack("<I", large)
    path.write_bytes(data)
    message = refusal(lambda: weights.read(path))
    assert message == f"{path} would unpack to {3 * large} bytes, more than the {8 * 2**30} allowed"


def test_no_source_file_asks_torch_to_trust_a_pickle():
    package = Path(weights.__file__).parents[1]
    sources = {path: path.read_text() for path in package.rglob("*.py")}
    assert [path for path, text in sources.items() if re.search(r"weights_only\s*=\s*False", text)] == []
    loads = [line for text in sources.values() for line in text.splitlines() if "torch.load(" in line]
    assert loads
    assert all("weights_only=True" in line for line in loads)


@pytest.mark.parametrize("content", [b"", b"<html>404</html>", pickle.dumps({"state_dict_backbone": {}}), b"\0" * 4096])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model_299.pt"
    path.write_bytes(content)
    message = f"{path} is neither a published SegFace file (.pt) nor a .safetensors file"
    assert [refusal(lambda: weights.read(path)), refusal(lambda: weights.check_kind(path))] == [message, message]


def test_a_damaged_published_file_is_refused(tmp_path: Path, published: Path):
    whole = published.read_bytes()
    path = tmp_path / "model_299.pt"
    path.write_bytes(whole[: len(whole) // 2])
    assert refusal(lambda: weights.read(path)) == f"{path} is not a readable weights file (File is not a zip file)"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/version", b"3")
    assert refusal(lambda: weights.read(path)) == f"{path} is not a readable weights file (RuntimeError)"


@pytest.mark.parametrize("content", [{"weight": torch.zeros(1)}, [1, 2], {"state_dict_backbone": {"epoch": 3}}])
def test_a_file_without_the_published_layout_is_refused(tmp_path: Path, content: object):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    message = refusal(lambda: weights.read(path))
    assert message == f"{path} holds no tensors under 'state_dict_backbone', as the published SegFace files do"


# Converting


def test_a_converted_file_gives_the_same_network(published: Path, converted: Path):
    ours, theirs = weights.load(CHECKPOINT, converted).state_dict(), weights.load(CHECKPOINT, published).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_converted_file_holds_only_what_inference_needs_and_says_what_it_is(published: Path, converted: Path):
    record = filled.record(NAME)
    with safe_open(converted, framework="pt") as file:
        metadata, names = file.metadata(), set(file.keys())
    assert names == record["tensors"].keys() - set(record["unused_by_inference"])
    assert {str(tensor.dtype) for tensor in weights.read(converted).values()} == {"torch.float32"}
    assert metadata == {
        "format": "segface-batch 1",
        "checkpoint": NAME,
        "dataset": "CelebAMask-HQ",
        "classes": json.dumps(list(CHECKPOINT.dataset.class_names)),
        "resolution": "512",
        "source_sha256": hashlib.sha256(published.read_bytes()).hexdigest(),
    }
    assert list(converted.parent.iterdir()) == [converted]


def test_a_converted_file_can_be_converted_again(converted: Path, tmp_path: Path):
    again = tmp_path / "again.safetensors"
    weights.convert(CHECKPOINT, converted, again)
    ours, theirs = weights.read(again), weights.read(converted)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_converted_file_of_another_checkpoint_is_refused(converted: Path):
    message = refusal(lambda: weights.load(find("convnext_celeba_512"), converted))
    assert message == f"{converted} holds the checkpoint '{NAME}', not 'convnext_celeba_512'"


def test_half_precision_is_read_into_a_float32_network(converted: Path, tmp_path: Path):
    path = tmp_path / "half.safetensors"
    halves = {name: tensor.half() for name, tensor in weights.read(converted).items()}
    save_file(halves, path, {"checkpoint": NAME})
    network = weights.load(CHECKPOINT, path)
    assert network.linear_fuse.weight.dtype == torch.float32
    assert torch.equal(network.linear_fuse.weight, halves["linear_fuse.weight"].float())


def test_what_does_not_load_is_not_converted(tmp_path: Path):
    path, target = changed(tmp_path, lambda state: state.pop("linear_fuse.weight")), tmp_path / "out.safetensors"
    refusal(lambda: weights.convert(CHECKPOINT, path, target))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(published: Path, tmp_path: Path):
    (tmp_path / "out.safetensors").mkdir()
    with pytest.raises(IsADirectoryError):
        weights.convert(CHECKPOINT, published, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == [tmp_path / "out.safetensors"]


# Hashes


def test_a_file_is_verified_by_its_sha256(tmp_path: Path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert weights.sha256(path) == abc
    weights.verify(path, abc.upper())
    message = refusal(lambda: weights.verify(path, "0" * 64))
    assert message == f"{path} has sha256 {abc}, expected {'0' * 64}: another file, or damaged; fetch it again"


# Finding the file


def test_a_path_is_found_where_it_is(tmp_path: Path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"weights")
    assert weights.locate(CHECKPOINT, str(path)) == path


def test_a_path_without_a_file_is_refused(tmp_path: Path):
    message = refusal(lambda: weights.locate(CHECKPOINT, str(tmp_path / "no.pt")), FileNotFoundError)
    assert message == f"no weights file {tmp_path}/no.pt for {NAME}; give an existing file or a URL"


def test_the_published_file_is_that_of_the_revision_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str | None, ...]] = []
    monkeypatch.setattr(weights, "from_hub", lambda *given: asked.append(given[:3]) or Path("model_299.pt"))
    for revision in (None, "v1"):
        weights.locate(CHECKPOINT, revision=revision)
    assert asked == [("kartiknarayan/SegFace", f"{NAME}/model_299.pt", revision) for revision in (None, "v1")]


def test_urls_with_the_same_file_name_are_files_of_their_own(cache: Path):
    memory = fsspec.filesystem("memory")
    for bucket in ("one", "two"):
        memory.pipe(f"/{bucket}/w.pt", bucket.encode())
    read = [weights.locate(CHECKPOINT, f"memory://{bucket}/w.pt").read_bytes() for bucket in ("one", "two")]
    assert read == [b"one", b"two"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEGFACE_BATCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(retry, "SECONDS", 1.0)
    return tmp_path / "cache"


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_a_url_is_fetched_once_into_the_cache(cache: Path):
    url, memory = "memory://bucket/mine.pt", fsspec.filesystem("memory")
    memory.pipe("/bucket/mine.pt", b"first")
    path = weights.locate(CHECKPOINT, url)
    assert path == cache / f"{hashlib.sha256(url.encode()).hexdigest()}-mine.pt"
    assert path.read_bytes() == b"first"
    memory.pipe("/bucket/mine.pt", b"second")
    assert weights.locate(CHECKPOINT, url).read_bytes() == b"first"
    assert kept(cache) == [path]


def test_processes_that_start_together_fetch_once(tmp_path: Path):
    with served(Slow) as address:
        code = "import sys; from segface_batch import catalog; from segface_batch.model import weights\n"
        code += f"print(weights.locate(catalog.find({NAME!r}), {address + '/model.pt'!r}).read_bytes())"
        environment = {**os.environ, "SEGFACE_BATCH_CACHE": str(tmp_path)}
        together = [
            subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE) for _ in range(3)
        ]
        assert [process.communicate(timeout=60)[0] for process in together] == [b"b'weights'\n"] * 3
    assert Slow.asked == 1


def test_a_url_without_a_file_leaves_nothing_in_the_cache(cache: Path):
    message = refusal(lambda: weights.locate(CHECKPOINT, "memory://bucket/none.pt"), OSError)
    assert message.startswith("cannot read weights from memory://bucket/none.pt (FileNotFoundError")
    assert message.endswith("; give a file at hand with --weights FILE")
    assert kept(cache) == []


def test_a_secret_in_a_url_is_not_repeated(cache: Path):
    url = "http://user:hunter2@127.0.0.1:9/model.pt?X-Amz-Signature=hunter2"
    with pytest.raises(OSError, match="cannot read weights from") as caught:
        weights.locate(CHECKPOINT, url)
    assert str(caught.value).startswith("cannot read weights from http://127.0.0.1:9/model.pt (OSError); give")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


class Quiet(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class BreaksOff(Quiet):
    """Promises a megabyte, and hangs up after a few bytes."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(2**20))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"a few bytes")


class Slow(Quiet):
    """Takes so long to answer that whoever asks at the same time asks meanwhile."""

    asked = 0

    def do_GET(self) -> None:
        Slow.asked += 1
        time.sleep(3)
        self.send_response(200)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"weights")


class Hub(Quiet):
    """Answers for one file as huggingface.co does."""

    content = b"weights of the hub"

    def do_HEAD(self) -> None:
        if not self.path.endswith(f"/kartiknarayan/SegFace/resolve/main/{NAME}/model_299.pt"):
            self.send_response(404)
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(self.content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)


@contextmanager
def served(handler: type[Quiet]) -> Iterator[str]:
    """The address of a server on this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def hub() -> Iterator[str]:
    with served(Hub) as address:
        yield address


def test_a_download_that_breaks_off_leaves_nothing_in_the_cache(cache: Path):
    with served(BreaksOff) as address:
        message = refusal(lambda: weights.locate(CHECKPOINT, f"{address}/model.pt"), OSError)
    assert message.startswith(f"cannot read weights from {address}/model.pt (OSError: [Errno 5] no answer but ")
    assert kept(cache) == []


def locate_elsewhere(home: Path, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`locate` in a process of its own, because the hub's library reads its settings when it is imported."""
    code = (
        "import sys; from segface_batch.catalog import find; from segface_batch.model import weights\n"
        f"try: print(weights.locate(find({name!r})))\n"
        "except OSError as error: sys.exit(f'{type(error).__name__}: {error}')\n"
        "finally: assert 'torch' not in sys.modules"
    )
    settings = {**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **environment}
    return subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=60)


def test_without_a_file_the_published_one_comes_from_the_hub_and_then_from_its_cache(hub: str, tmp_path: Path):
    fetched = locate_elsewhere(tmp_path, NAME, HF_ENDPOINT=hub)
    assert fetched.returncode == 0, fetched.stderr
    path = Path(fetched.stdout.strip())
    assert path.read_bytes() == Hub.content
    assert path.is_relative_to(tmp_path)
    cached = locate_elsewhere(tmp_path, NAME, HF_ENDPOINT="http://127.0.0.1:9")
    assert (cached.stdout, cached.stderr) == (fetched.stdout, "")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "ConnectError"),
        ({"HF_HUB_OFFLINE": "1"}, "OfflineModeIsEnabled"),
    ],
    ids=["unreachable", "offline"],
)
def test_an_unreachable_hub_is_one_quick_line_with_a_hint(tmp_path: Path, settings: dict, reason: str):
    began = time.monotonic()
    result = locate_elsewhere(tmp_path, NAME, **settings)
    assert time.monotonic() - began < 15  # most of it is starting Python; the library alone would retry for 23 s
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"OSError: cannot fetch {NAME}/model_299.pt from huggingface.co/kartiknarayan/SegFace ({reason}); "
        "give a file at hand with --weights FILE, or point HF_HOME at a cache that holds it, filled with "
        f"'segface-batch checkpoints fetch {NAME}' on a machine with network; to try things out without any, "
        "--checkpoint demo-synthetic comes with the package\n"
    )


def test_a_file_that_the_hub_does_not_have_is_the_same_line(hub: str, tmp_path: Path):
    result = locate_elsewhere(tmp_path, "swinb_celeba_224", HF_ENDPOINT=hub)
    assert result.returncode == 1
    assert result.stderr.startswith("OSError: cannot fetch swinb_celeba_224/model_299.pt from huggingface.co/kartik")
    assert len(result.stderr.splitlines()) == 1
