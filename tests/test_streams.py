"""The command line with standard streams that are closed, full, absent or without a reader, as a shell makes them."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segface_batch import annotate
from segface_batch.output.verify import verify
from tests import drivers

ROOT = Path(__file__).parents[1]

#: What can become of a log.
LOGS = ("2>&1 | true", "2>&1 | head -1", "2>&-", ">&-", "<&- >&- 2>&-", "2>/dev/full", ">/dev/full 2>&1", "2</dev/null")


def run(words: list[object], streams: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command with its streams as a shell makes them; its own exit code, whatever it is piped into."""
    command = shlex.join([sys.executable, "-m", "segface_batch.cli", *map(str, words)])
    return subprocess.run(
        ["bash", "-c", f"{command} {streams}; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def words(source: Path, out: Path, *options: object) -> list[object]:
    """`annotate` of a few images."""
    return ["annotate", source, out, "--network", "tests.stand_in:Quick", "--part-rows", drivers.PART_ROWS, *options]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams") / "in"
    drivers.write_images(folder, 8)
    return folder


@pytest.fixture(scope="module")
def finished(source: Path, ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished output; not to be changed."""
    out = tmp_path_factory.mktemp("finished") / "out"
    annotate(drivers.job(source, out))
    return out


@pytest.mark.parametrize(
    "streams",
    [log if log == "2>&1 | head -1" else pytest.param(log, marks=pytest.mark.slow) for log in LOGS],
)
def test_a_run_goes_on_whatever_becomes_of_its_log(
    streams: str, source: Path, ray_address: str, tmp_path: Path
) -> None:
    done = run(words(source, tmp_path / "out"), streams, RAY_ADDRESS=ray_address)
    assert done.returncode == 0, done.stderr
    assert verify(str(tmp_path / "out")).complete


@pytest.mark.parametrize("streams", LOGS)
def test_the_exit_code_is_true_whatever_becomes_of_the_log(streams: str, source: Path, finished: Path) -> None:
    for asked, code in ((words(source, finished), 0), (words(source, finished, "--part-rows", 8), 2)):
        done = run(asked, streams)
        assert done.returncode == code, (asked, done)


@pytest.mark.parametrize("streams", [">/dev/full", ">&-", "| true"])
def test_what_is_found_counts_whoever_reads_it(streams: str, finished: Path, tmp_path: Path) -> None:
    """`doctor` goes on to the check that fails; `verify` has its answer in the exit code."""
    (tmp_path / "file").write_text("")
    shutil.copytree(finished, unfinished := tmp_path / "out")
    (unfinished / "stats" / "part-00000.parquet").unlink()
    for asked, code in (
        (["doctor", ".", tmp_path / "file" / "out"], 1),
        (["verify", unfinished], 1),
        (["verify", finished], 0),
    ):
        done = run(asked, streams)
        assert (done.returncode, done.stderr) == (code, ""), asked


FULL, CLOSED = "No space left on device", "Bad file descriptor"


@pytest.mark.parametrize(
    ("streams", "code", "reason"),
    [
        (">/dev/full", 1, FULL),
        (">&-", 1, CLOSED),
        (">&- 2>&-", 1, ""),
        ("| true", 0, ""),
        ("2>&1 | true", 0, ""),
        ("| head -1", 0, ""),
        (">/dev/null 2>&-", 0, ""),
    ],
)
@pytest.mark.parametrize("verb", ["checkpoints", pytest.param("query", marks=pytest.mark.slow)])
def test_data_without_a_place_is_an_error_and_a_reader_that_has_enough_is_none(
    verb: str, streams: str, code: int, reason: str, finished: Path
) -> None:
    more = [finished, "select range from range(300000)", "--format", "csv"] if verb == "query" else []
    done = run([verb, *more], streams)
    told = f"segface-batch: cannot write to stdout: {reason}\n" if reason else ""
    assert (done.returncode, done.stderr) == (code, told)


def test_names_that_a_stream_cannot_encode_are_escaped_and_data_is_utf8(finished: Path) -> None:
    for form, answer in (("table", r"\u65e5\u672c\u8a9e"), ("csv", '"日本語"'), ("json", '{"name": "日本語"}')):
        asked = ["query", finished, "select '日本語' as name", "--format", form]
        done = run(asked, "", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert (done.returncode, done.stderr) == (0, ""), form
        assert answer in done.stdout.splitlines()


def test_a_pipe_that_is_full_for_a_while_loses_nothing() -> None:
    whole = run(["checkpoints"], "").stdout
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    os.write(theirs, filler := b"-" * 65536)
    command = subprocess.Popen([sys.executable, "-m", "segface_batch.cli", "checkpoints"], cwd=ROOT, stdout=theirs)
    os.close(theirs)
    time.sleep(0.5)
    with open(ours, "rb") as reader:
        assert reader.read().removeprefix(filler).decode() == whole
    assert command.wait(timeout=60) == 0


#: A verb that takes long.
SLEEPY = """
import os, sys, time
from segface_batch import cli
def sleepy(chosen):
    os.write(2, b"asleep\\n")
    time.sleep(float(sys.argv[1]))
    return 0
cli.COMMANDS["checkpoints"] = sleepy
sys.exit(cli.main(["checkpoints"]))
"""


@pytest.mark.parametrize(
    ("number", "ignored", "seconds", "code", "answer"),
    [
        (signal.SIGINT, False, 60, 130, "segface-batch: interrupted\n"),
        (signal.SIGTERM, False, 60, 143, "segface-batch: interrupted\n"),
        (signal.SIGHUP, False, 60, 129, "segface-batch: interrupted\n"),
        (signal.SIGHUP, True, 1, 0, ""),
    ],
)
def test_a_hangup_ends_a_command_as_other_signals_do_unless_nohup_started_it(
    number: signal.Signals, ignored: bool, seconds: float, code: int, answer: str
) -> None:
    command = [*(["nohup"] if ignored else []), sys.executable, "-c", SLEEPY, str(seconds)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        while "asleep" not in (line := started.stderr.readline()):
            assert line
        started.send_signal(number)
        assert (started.stderr.read(), started.wait(timeout=30)) == (answer, code)


def test_an_interrupted_command_whose_terminal_is_gone_says_so_by_its_exit_code() -> None:
    started = subprocess.Popen([sys.executable, "-c", SLEEPY, "60"], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    assert started.stderr.readline() == "asleep\n"
    started.stderr.close()
    started.send_signal(signal.SIGHUP)
    assert started.wait(timeout=30) == 129


DAEMON = """
import os, sys
from pathlib import Path
from segface_batch import annotate
from segface_batch.progress import Line
from tests import drivers
{before}
annotate(drivers.job(*map(Path, sys.argv[1:])), Line(sys.stderr))
"""


@pytest.mark.parametrize(
    "before",
    [
        "sys.stdin = sys.stdout = sys.stderr = None\nfor number in (0, 1, 2): os.close(number)",
        pytest.param("sys.stdout.close(); sys.stderr.close()", marks=pytest.mark.slow),
        pytest.param("sys.stdout = sys.stderr = None", marks=pytest.mark.slow),
    ],
)
def test_a_program_without_standard_streams_can_annotate(
    before: str, source: Path, ray_address: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", DAEMON.format(before=before), source, tmp_path / "out"]
    done = subprocess.run(
        [*map(str, command)], cwd=ROOT, env={**os.environ, "RAY_ADDRESS": ray_address}, timeout=120, check=False
    )
    assert done.returncode == 0
    assert verify(str(tmp_path / "out")).complete
