from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from segface_batch.output import lease

USUAL_BEAT, USUAL_SILENCE = lease.BEAT, lease.SILENCE


@pytest.fixture(autouse=True)
def _short() -> Iterator[None]:
    """Hearts that beat ten times a second."""
    kept = lease.BEAT, lease.SILENCE
    lease.BEAT, lease.SILENCE = 0.1, 1.0
    yield
    lease.BEAT, lease.SILENCE = kept


def place(out: Path) -> Path:
    return out / "_segface" / "lease.json"


def foreign(out: Path, **changes: object) -> dict[str, object]:
    """A lease of another machine's run."""
    content = {
        "run": "other",
        "host": "node-7",
        "machine": "elsewhere",
        "pid": 12,
        "started": "1",
        "beat": 3,
        **changes,
    }
    place(out).parent.mkdir(parents=True, exist_ok=True)
    place(out).write_text(json.dumps(content))
    return content


def test_a_lease_beats_reports_how_far_the_run_is_and_ends(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path)) as held:
        held.report(5, 9)
        time.sleep(0.5)
        content = json.loads(place(tmp_path).read_text())
        assert (content["pid"], content["images_done"], content["images"]) == (os.getpid(), 5, 9)
        assert content["beat"] > 1
        held.check()
    assert not place(tmp_path).exists()


def test_a_second_run_on_the_same_machine_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    here = {"machine": lease.this_process()["machine"], "pid": sleeper.pid, "started": lease.started(sleeper.pid)}
    foreign(tmp_path, **here)
    refused = rf"\(host node-7, process {sleeper.pid}\) is working on .* --takeover"
    with pytest.raises(RuntimeError, match=refused), lease.hold(str(tmp_path)):
        pass
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    with lease.hold(str(tmp_path)):  # a zombie, which nobody has waited for yet
        pass
    sleeper.wait()
    foreign(tmp_path, **here)
    started = time.monotonic()
    with lease.hold(str(tmp_path)):
        assert time.monotonic() - started < 0.5


def test_a_process_is_known_by_the_moment_it_started(tmp_path: Path) -> None:
    """Its number may be that of another process later."""
    sleeper = subprocess.Popen(["sleep", "60"])
    found = lease.started(sleeper.pid)
    assert found is not None
    since_boot = int(found) / os.sysconf("SC_CLK_TCK")
    assert since_boot == pytest.approx(psutil.Process(sleeper.pid).create_time() - psutil.boot_time(), abs=1.5)
    foreign(tmp_path, machine=lease.this_process()["machine"], pid=sleeper.pid, started=f"{int(found) - 1}")
    with lease.hold(str(tmp_path)):  # by a process that has ended
        pass
    sleeper.kill()
    sleeper.wait()
    assert lease.started(sleeper.pid) is None


def test_another_machines_run_counts_as_alive_while_it_beats(tmp_path: Path) -> None:
    foreign(tmp_path)
    with lease.hold(str(tmp_path)):  # it is silent
        pass
    foreign(tmp_path)
    beat = threading.Timer(0.3, foreign, [tmp_path], {"beat": 4})
    beat.start()
    with pytest.raises(RuntimeError, match=r"another run \(host node-7, process 12\)"), lease.hold(str(tmp_path)):
        pass
    beat.join()


def test_another_machines_run_that_ends_meanwhile_is_followed(tmp_path: Path) -> None:
    foreign(tmp_path)
    end = threading.Timer(0.3, place(tmp_path).unlink)
    end.start()
    with lease.hold(str(tmp_path)):
        assert json.loads(place(tmp_path).read_text())["pid"] == os.getpid()
    end.join()


def test_a_run_that_is_late_by_a_beat_is_not_dead() -> None:
    assert USUAL_SILENCE >= 2 * USUAL_BEAT


def test_a_damaged_lease_is_nobodys(tmp_path: Path) -> None:
    foreign(tmp_path)
    place(tmp_path).write_text(place(tmp_path).read_text()[:20])
    with lease.hold(str(tmp_path)):
        assert json.loads(place(tmp_path).read_text())["pid"] == os.getpid()


def test_a_run_learns_that_it_was_taken_over_and_leaves_the_others_lease(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path)) as first, lease.hold(str(tmp_path), takeover=True):
        time.sleep(0.5)
        with pytest.raises(RuntimeError, match="has taken over this output, so this one stops"):
            first.check()
    foreign(tmp_path)
    kept = place(tmp_path).read_text()
    lease.BEAT = 60.0  # it ends before it learns of the other
    with lease.hold(str(tmp_path), takeover=True):
        place(tmp_path).write_text(kept)
    assert place(tmp_path).read_text() == kept
