"""What `doctor` says where all is well and where one thing is wrong, and how a run ends there."""

from __future__ import annotations

import errno
import os
import py_compile
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segface_batch import annotate, cli, doctor, storage
from segface_batch.output.verify import verify
from tests import drivers
from tests.fault_proxy import RunningProxy
from tests.inputs.archives import tar_file
from tests.s3_server import RUN_PERMISSIONS, S3Server


@pytest.fixture(scope="module")
def source(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images in the bucket that most may read."""
    folder = tmp_path_factory.mktemp("doctor") / "in"
    drivers.write_images(folder, 10)
    for image in sorted(folder.iterdir()):
        s3_server.client().put_object(Bucket="inputs", Key=f"faces/{image.name}", Body=image.read_bytes())
    s3_server.client().put_object(Bucket="outputs", Key="elsewhere", Body=b"")  # makes the bucket
    return "s3://inputs/faces"


@pytest.fixture
def out() -> Iterator[str]:
    yield f"s3://outputs/runs/{uuid.uuid4().hex[:8]}"
    storage.configure(None)


@pytest.fixture(autouse=True)
def _may_write_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)


CHECKS = ["packages", "input: list", "input: read", "output: list", "output: write", "output: read"]
CHECKS += ["output: create only", "output: remove", "clock", "disk for Ray"]


def test_where_all_is_well_every_line_says_ok(
    s3_server: S3Server, source: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = drivers.storage_options(s3_server.endpoint, tmp_path / "options.json", "ci-run")
    assert cli.main(["doctor", source, out, "--storage-options", str(options)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS)
    assert [line[: 8 + len(name)] for line, name in zip(lines, CHECKS, strict=True)] == [f"ok      {n}" for n in CHECKS]
    storage.configure(str(options))
    assert list(storage.list_objects(out)) == []


DENIED = "AccessDenied: 'OUT"

#: The line of doctor for each missing permission, and how a run ends.
MISSING = {
    "list-inputs": (
        "FAILED  input: list: s3://inputs/faces: AccessDenied; allow s3:ListBucket below s3://inputs/faces",
        "AccessDenied: 's3://inputs/faces'",
    ),
    "read-inputs": (
        "FAILED  input: read: s3://inputs/faces/0000.png: AccessDenied; allow s3:GetObject below s3://inputs/faces",
        "all 8 images of unit 0 are forbidden (first: s3://inputs/faces/0000.png: AccessDenied); fix the permissions",
    ),
    "list-outputs": (
        "FAILED  output: list: OUT/_segface: AccessDenied; allow s3:ListBucket below OUT",
        "AccessDenied: 'OUT",
    ),
    "read-outputs": ("FAILED  output: read: SCRATCH: AccessDenied; allow s3:GetObject below OUT", "AccessDenied: 'OUT"),
    "write-outputs": (
        "FAILED  output: write: SCRATCH: AccessDenied; allow s3:PutObject below OUT",
        "AccessDenied: 'OUT",
    ),
}


@pytest.mark.parametrize("permission", RUN_PERMISSIONS)
def test_a_missing_permission_is_one_line(
    permission: str, s3_server: S3Server, source: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    ray_session: None,
) -> None:  # fmt: skip
    options = drivers.storage_options(s3_server.endpoint, tmp_path / "options.json", f"ci-no-{permission}")
    assert cli.main(["doctor", source, out, "--storage-options", str(options)]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok ")]
    expected, ends = (text.replace("OUT", out) for text in MISSING[permission])
    beginning, scratch, end = expected.partition("SCRATCH")
    assert line.startswith(beginning + (f"{out}/_segface/doctor-" if scratch else ""))
    assert line.endswith(end)
    with pytest.raises((PermissionError, RuntimeError), match=r"\A.+\Z") as stopped:
        annotate(drivers.job(source, out, storage_options=str(options), part_rows=100))
    assert ends in str(stopped.value)


@pytest.mark.slow
def test_a_reader_of_the_input_who_writes_the_prefix_of_the_output_may_run(
    s3_server: S3Server, source: str, out: str, tmp_path: Path, ray_session: None
) -> None:
    options = drivers.storage_options(s3_server.endpoint, tmp_path / "options.json", "ci-run")
    assert annotate(drivers.job(source, out, storage_options=str(options))).status == {"ok": 10}
    assert verify(out).complete


def test_a_store_that_lacks_something_is_a_warning(
    s3_proxy: RunningProxy, source: str, out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = drivers.storage_options(s3_proxy.url, tmp_path / "options.json")
    s3_proxy.set_faults([
        {"fault": "unknown", "method": "PUT", "header": "If-None-Match"},
        {"fault": "denied", "method": "POST", "match": "delete"},
    ])  # fmt: skip
    assert cli.main(["doctor", source, out, "--storage-options", str(options)]) == 0
    create, remove = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok ")]
    assert create == (
        "warning output: create only: the store has no conditional PUT, so a run first asks whether an object exists; "
        "start only one run at a time on this output"
    )
    assert remove.startswith(f"warning output: remove: {out}/_segface/doctor-")
    assert f"/probe: AccessDenied; allow s3:DeleteObject below {out}, or remove {out}/_segface/doctor-" in remove
    assert remove.endswith(f"/probe yourself, and after a run {out}/_segface/staging")


REFUSING_DISK = """
import os, stat, sys
number, sync = int(sys.argv[1]), os.fsync
def fsync(descriptor):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode) == (sys.argv[2] == "folder"):
        raise OSError(number, os.strerror(number))
    sync(descriptor)
os.fsync = fsync
from segface_batch import cli
sys.exit(cli.main(["doctor", *sys.argv[3:]]))
"""


@pytest.mark.parametrize(
    ("number", "what", "hint"),
    [
        (errno.EINVAL, "folder", None),
        (errno.EDQUOT, "file", "Disk quota exceeded; free some space there, or name another place"),
        (errno.EIO, "file", "Input/output error; check the disk, network or server"),
    ],
)
def test_a_disk_that_refuses_has_a_hint_of_its_own(number: int, what: str, hint: str | None, tmp_path: Path) -> None:
    drivers.write_images(tmp_path / "in", 1)
    command = [sys.executable, "-c", REFUSING_DISK, str(number), what, str(tmp_path / "in"), str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in ended.stdout.splitlines() if not line.startswith("ok ")]
    if hint is None:
        assert found == []
    else:
        (line,) = found
        assert line.startswith(f"FAILED  output: write: {tmp_path}/out/_segface/doctor-")
        assert line.endswith(f"/probe: {hint}")


class Clock(BaseHTTPRequestHandler):
    """Refuses everything, and is some seconds ahead."""

    ahead = 0.0

    def do_HEAD(self) -> None:
        self.send_response_only(403)
        self.send_header("Date", formatdate(time.time() + self.ahead, usegmt=True))
        self.end_headers()


@pytest.mark.parametrize(
    ("ahead", "told"),
    [(-310, "ahead of the store's"), (-290, None), (290, None), (310, "behind the store's")],
)
def test_a_clock_that_differs_from_the_stores_by_five_minutes_fails(
    ahead: float, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Clock, "ahead", ahead)
    with ThreadingHTTPServer(("127.0.0.1", 0), Clock) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        if told is None:
            assert re.fullmatch(rf"2(89|9\d) s off from {url}", doctor.check_clock(url))
        else:
            with pytest.raises(ValueError, match=rf"this machine's clock is 3(09|1\d) s {told}"):
                doctor.check_clock(url)
        server.shutdown()


@pytest.mark.parametrize(
    ("free", "max_full", "passes"),
    [(2**30, 1.0, True), (2**30 - 1, 1.0, False), (5 * 2**30, 0.95, True), (5 * 2**30 - 1, 0.95, False)],
)
def test_a_disk_that_is_full_or_too_full_fails(
    free: int, max_full: float, passes: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (100 * 2**30, 100 * 2**30 - free, free))
    if passes:
        told = f"{free / 2**30:.1f} of 100.0 GiB free at {tmp_path}"
        assert doctor.check_disk(tmp_path / "not" / "yet", max_full) == told
    else:
        with pytest.raises(ValueError, match=r"^only .* of 100.0 GiB free at "):
            doctor.check_disk(tmp_path, max_full)


def test_one_image_of_a_shard_is_read_and_no_more(tmp_path: Path) -> None:
    shard = tar_file(tmp_path / "s.tar", [("a.jpg", b"1234"), ("b.jpg", b"5" * 9000)])
    checks = {check.name: check for check in doctor.check_machine(drivers.job(shard, tmp_path / "out"))}
    assert checks["input: read"] == doctor.Check(doctor.OK, "input: read", f"4 bytes of {shard}#a.jpg")


def test_a_signature_is_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    drivers.write_images(tmp_path / "in", 1)
    (tmp_path / "in" / "list.txt").write_text("0000.png?sig=secret\n")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "in"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        for name, there in (("list.txt", True), ("none.txt", False)):
            job = drivers.job(f"{base}/{name}?sig=secret", tmp_path / "out")
            lines = [str(check) for check in doctor.check_machine(job)]
            assert [line for line in lines if "secret" in line] == []
            assert f"{base}/{name}?sig=REDACTED" in lines[1]
            assert lines[1].startswith("ok") == there
        server.shutdown()


def test_a_store_that_overwrites_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrites(place: str, content: bytes) -> bool:
        storage.replace(place, content)
        return True

    monkeypatch.setattr(storage, "put", overwrites)
    drivers.write_images(tmp_path / "in", 1)
    found = list(doctor.check_machine(drivers.job(tmp_path / "in", tmp_path / "out")))
    assert [check for check in found if check.state != doctor.OK] == [
        doctor.Check(
            doctor.WARNING,
            "output: create only",
            "the store overwrites what it was to create only; start only one run at a time on this output",
        )
    ]


def test_local_folders_are_left_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drivers.write_images(tmp_path / "in", 1)
    assert cli.main(["doctor", str(tmp_path / "in"), str(tmp_path / "deep" / "out"), "--device", "cuda"]) in (0, 1)
    lines = capsys.readouterr().out.splitlines()
    assert os.listdir(tmp_path) == ["in"]
    import torch

    if not torch.cuda.is_available():
        assert [line for line in lines if not line.startswith("ok ")] == [
            f"FAILED  CUDA: torch {torch.__version__} finds no GPU; install NVIDIA's driver (in a container its "
            "toolkit), or use --device cpu"
        ]


def test_a_package_that_every_worker_would_compile_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "of_a_test.py").write_text("")
    assert list(doctor.check_bytecode("of_a_test")) == []
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    expected = doctor.Check(doctor.WARNING, "packages", doctor.UNCOMPILED)
    assert list(doctor.check_bytecode("of_a_test")) == [expected]
    py_compile.compile(str(tmp_path / "of_a_test.py"))
    assert list(doctor.check_bytecode("of_a_test")) == []
