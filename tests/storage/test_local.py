"""Local files, and what a crash or a full disk leaves of them."""

from __future__ import annotations

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segface_batch import storage


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(script: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)


def test_an_object_is_put_once_and_never_overwritten(tmp_path: Path) -> None:
    target = str(tmp_path / "deep" / "object")
    assert storage.put(target, b"first")
    assert not storage.put(target, b"second")
    assert files(tmp_path) == {"deep/object": b"first"}


def test_of_many_writers_one_wins_whole(tmp_path: Path) -> None:
    contents = [bytes([number]) * 100_000 for number in range(16)]
    target, ready = str(tmp_path / "object"), threading.Barrier(16)

    def write(content: bytes) -> bool:
        ready.wait()
        return storage.put(target, content)

    with ThreadPoolExecutor(16) as pool:
        won = [content for content, wins in zip(contents, pool.map(write, contents), strict=True) if wins]
    assert [files(tmp_path)] == [{"object": content} for content in won]


def test_an_object_is_replaced_whole(tmp_path: Path) -> None:
    target = str(tmp_path / "deep" / "object")
    storage.replace(target, b"first")
    storage.replace(target, b"second")
    assert files(tmp_path) == {"deep/object": b"second"}


def test_a_failed_put_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        storage.put(str(tmp_path / "object"), "text")  # pyright: ignore[reportArgumentType]
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.replace(str(tmp_path / "folder"), b"")
    assert os.listdir(tmp_path) == ["folder"]


def test_files_and_folders_are_removed_and_absent_ones_are_no_error(tmp_path: Path) -> None:
    for name in ("a/b/c", "a/d", "e", "left/f"):
        storage.put(str(tmp_path / name), b"")
    (tmp_path / "link").symlink_to(tmp_path / "left")
    storage.remove(str(tmp_path / name) for name in ("a", "e", "link", "absent", "absent/g"))
    assert files(tmp_path) == {"left/f": b""}


def test_several_may_remove_the_same_folder_at_once(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / "a" / f"{number % 20}" / f"{number}").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / f"{number % 20}" / f"{number}").touch()

    def remove(_: int) -> list[str]:
        storage.remove([str(tmp_path / "a")])
        return os.listdir(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(remove, range(4))) == [[]] * 4


def test_listings_are_in_a_stable_order(tmp_path: Path) -> None:
    for name in ("b", "a/2", "a/10", "a.txt"):
        storage.put(str(tmp_path / name), name.encode())
    (tmp_path / "a" / "link").symlink_to("absent")
    assert list(storage.list_objects(str(tmp_path))) == [
        (f"{tmp_path}/a/10", 4),
        (f"{tmp_path}/a/2", 3),
        (f"{tmp_path}/a/link", 6),
        (f"{tmp_path}/a.txt", 5),
        (f"{tmp_path}/b", 1),
    ]
    assert list(storage.list_objects(str(tmp_path / "absent"))) == []


def test_names_leave_out_unfinished_files(tmp_path: Path) -> None:
    for name in ("b.parquet", "a.parquet", ".c.parquet.tmp", ".d.parquet", "e.json"):
        (tmp_path / name).touch()
    assert storage.list_names(str(tmp_path), ".parquet") == ["a.parquet", "b.parquet"]
    assert storage.list_names(str(tmp_path / "absent"), ".parquet") == []


def test_file_urls_are_places_too(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 %41.jpg"))
    assert storage.absolute(odd.as_uri()) == str(odd)
    assert storage.put(odd.as_uri(), b"content")
    assert storage.read(str(odd)) == storage.read(odd.as_uri()) == odd.read_bytes() == b"content"
    assert list(storage.list_objects(tmp_path.as_uri())) == [(str(odd), 7)]
    storage.remove([odd.as_uri()])
    assert os.listdir(tmp_path) == []


def test_places_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/../b/") == str(tmp_path / "b")
    assert storage.absolute("s3://bucket/a/") == "s3://bucket/a"
    assert storage.join("s3://bucket/a/", "b", "c") == "s3://bucket/a/b/c"
    assert storage.name_of("s3://bucket/a/") == "a"
    with pytest.raises(ValueError, match=r"\A's3://' names no bucket; give s3://BUCKET/FOLDER\Z"):
        storage.absolute("s3://")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_fifo_or_a_folder_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.jpg"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    writer = threading.Timer(3, lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))  # ends the waiting
    writer.start()
    began = time.monotonic()
    with pytest.raises(OSError, match=r"x\.jpg") as caught:
        storage.read(str(path))
    writer.cancel()
    assert time.monotonic() - began < 2.5
    assert caught.value.errno in (errno.ENODEV, errno.EISDIR)


def test_a_file_over_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"12345")
    assert storage.read(str(path), max_bytes=5) == b"12345"
    for limit, span in ((4, None), (1, (2, 4))):
        with pytest.raises(OSError, match=r"(?i)too large.*x\.jpg") as caught:
            storage.read(str(path), limit, span)
        assert caught.value.errno == errno.EFBIG


def test_a_span_is_read_whole_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(b"0123456789")
    assert storage.read(str(path), span=(2, 5)) == b"234"
    assert storage.read(str(path), span=(5, 5)) == b""
    with pytest.raises(OSError, match=r"has 2 of the 4 bytes.*x\.tar") as caught:
        storage.read(str(path), span=(8, 12))
    assert caught.value.errno == errno.ESTALE


@pytest.mark.parametrize("mode", ["ab", "rb+"], ids=["grows", "is overwritten"])
def test_a_file_that_changes_while_it_is_read_is_stale(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(bytes(50_000_000))
    began, ended = threading.Event(), threading.Event()

    def change() -> None:
        with open(path, mode, buffering=0) as file:
            while not ended.is_set():
                file.write(b"x")
                began.set()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(change)
        began.wait(10)
        try:
            with pytest.raises(OSError, match=r"changed while it was read: '.*x\.jpg'\Z") as caught:
                storage.read(str(path))
        finally:
            ended.set()
    assert caught.value.errno == errno.ESTALE


WRITE = """
import sys
from segface_batch import storage
storage.put(sys.argv[1] + "/other", b"before")
getattr(storage, sys.argv[2])(sys.argv[1] + "/target", b"new")
storage.put(sys.argv[1] + "/other2", b"after")
"""


@pytest.mark.parametrize("verb", ["put", "replace"])
@pytest.mark.parametrize(
    ("moment", "left"),
    [
        ("before", {"other": b"before"}),
        ("written", {"other": b"before", "temporary": b"new"}),
        ("after", {"other": b"before", "target": b"new"}),
    ],
)
def test_a_writer_that_dies_leaves_the_whole_object_or_none(
    tmp_path: Path, verb: str, moment: str, left: dict[str, bytes]
) -> None:
    died = run(WRITE, tmp_path, verb, SEGFACE_FAILPOINT=f"{moment}:target")
    assert died.returncode == -signal.SIGKILL
    found = files(tmp_path)
    hidden = [name for name in found if name.startswith(".target.")]
    assert found == {hidden[0] if name == "temporary" else name: data for name, data in left.items()}
    assert storage.list_names(str(tmp_path), "") == sorted(name for name in left if name != "temporary")


def test_a_process_killed_before_a_removal_has_removed_nothing(tmp_path: Path) -> None:
    script = "import sys; from segface_batch import storage; storage.remove([sys.argv[1] + '/a', sys.argv[1] + '/b'])"
    for name in ("a", "b"):
        storage.put(str(tmp_path / name), b"1")
    assert run(script, tmp_path, SEGFACE_FAILPOINT="removing:/b").returncode == -signal.SIGKILL
    assert files(tmp_path) == {"a": b"1", "b": b"1"}


FULL = """
import errno, resource, sys
from segface_batch import storage
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
place = sys.argv[1] + "/object"
for verb in (storage.put, storage.replace):
    try:
        verb(place, bytes(2_000_000))
    except OSError as error:
        print(errno.errorcode[error.errno], error.filename == place)
storage.put(sys.argv[1] + "/small", b"1")
"""


def test_a_disk_that_is_full_leaves_no_torn_file(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0  # for root
    try:
        ended = run(FULL, tmp_path, "disk" if mounted else "limit")
        assert (ended.stdout, ended.stderr) == (f"{'ENOSPC' if mounted else 'EFBIG'} True\n" * 2, "")
        assert files(tmp_path) == {"small": b"1"}
    finally:
        if mounted:
            subprocess.run(["umount", tmp_path], check=True)


#: Makes the kernel answer a system call with an error (seccomp, linux/seccomp.h).
REFUSING = """
import ctypes, errno, os, platform, stat, struct, sys
def refuse(number, names):
    numbers = {"x86_64": {"link": 86, "linkat": 265, "fsync": 74, "rename": 82}, "aarch64": {"linkat": 37, "fsync": 82}}
    numbers = [at for name, at in numbers[platform.machine()].items() if name in names]
    load, jump, answer = 0x20, 0x15, 0x06
    steps = [(load, 0, 0, 0)]
    steps += [(jump, len(numbers) - at, 0, found) for at, found in enumerate(numbers)]
    steps += [(answer, 0, 0, 0x7FFF0000), (answer, 0, 0, 0x00050000 | number)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0
"""

NO_LINKS = """
from segface_batch import storage
for number in map(int, sys.argv[2:]):
    if os.fork() == 0:
        refuse(number, ("link", "linkat"))
        place = f"{sys.argv[1]}/{number}"
        print(storage.put(place, b"first"), storage.put(place, b"second"))
        try:
            os.link(place, place + "2")
        except OSError as error:
            print(error.errno == number, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of system calls")
def test_file_systems_without_hard_links_do(tmp_path: Path) -> None:
    """As exFAT, CIFS and some NFS answer, and FUSE, and a folder that is spread over disks."""
    numbers = [errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV]
    ended = run(REFUSING + NO_LINKS, tmp_path, *numbers)
    assert (ended.stdout, ended.stderr) == ("True False\nTrue\n" * 7, "")
    assert files(tmp_path) == {str(number): b"first" for number in numbers}


NO_SYNC = """
from segface_batch import storage
from segface_batch.storage import local
place = sys.argv[1] + "/object"
if sys.argv[2] == "file":
    refuse(errno.EIO, ("fsync",))
else:
    sync = os.fsync
    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])))
        sync(descriptor)
    os.fsync = fsync
try:
    print(storage.put(place, b"first"), storage.put(place, b"second"), storage.read(place))
    storage.replace(place, b"third")
except OSError as error:
    print(error)
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="numbers of system calls")
def test_file_systems_that_do_not_sync_folders_do_and_those_that_fail_to_are_named(tmp_path: Path) -> None:
    for number in (errno.EINVAL, errno.EBADF, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM, errno.EISDIR):
        place = tmp_path / str(number)
        ended = run(REFUSING + NO_SYNC, place, number)
        assert (ended.stdout, ended.stderr) == ("True False b'first'\n", "")
        assert files(place) == {"object": b"third"}
    ended = run(REFUSING + NO_SYNC, tmp_path / "c", errno.EIO)
    assert (ended.stdout, ended.stderr) == (f"[Errno 5] Input/output error: '{tmp_path}/c'\n", "")
    ended = run(REFUSING + NO_SYNC, tmp_path / "d", "file")
    assert (ended.stdout, ended.stderr) == (f"[Errno 5] Input/output error: '{tmp_path}/d/object'\n", "")
    assert files(tmp_path / "d") == {}


NO_NONBLOCK = """
import os, sys
from segface_batch import storage
really = os.open
def opened(path, flags, *more):
    if flags & os.O_NONBLOCK:
        raise OSError(int(sys.argv[2]), os.strerror(int(sys.argv[2])), path)
    return really(path, flags, *more)
os.open = opened
try:
    print(storage.read(sys.argv[1]))
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINVAL, errno.EACCES])
def test_files_on_a_share_that_refuses_not_to_block_are_read(tmp_path: Path, number: int) -> None:
    (tmp_path / "x.jpg").write_bytes(b"content")
    ended = run(NO_NONBLOCK, tmp_path / "x.jpg", number)
    refused = f"[Errno {number}] {os.strerror(number)}: '{tmp_path}/x.jpg'\n"
    assert (ended.stdout, ended.stderr) == (refused if number == errno.EACCES else "b'content'\n", "")


@pytest.mark.parametrize(
    ("name", "number"), [("a\0b", errno.EINVAL), ("\ud800", errno.EINVAL), ("x" * 256, errno.ENAMETOOLONG)]
)
def test_a_name_that_no_file_can_have_is_an_error_that_names_it(tmp_path: Path, name: str, number: int) -> None:
    place = f"{tmp_path}/{name}"
    for ask in (lambda: storage.read(place), lambda: storage.get_size(place), lambda: storage.put(place, b"")):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            ask()
        assert (caught.value.errno, caught.value.filename) == (number, place)
    assert files(tmp_path) == {}


def test_schemes_are_written_in_any_case_and_file_urls_may_name_this_host(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    for url in (f"FILE://{tmp_path}/a", f"file://localhost{tmp_path}/a"):
        assert (storage.read(url), storage.local_path(url), storage.absolute(url)) == (b"1", *[f"{tmp_path}/a"] * 2)
