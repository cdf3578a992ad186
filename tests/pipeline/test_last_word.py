"""A process that ends in silence leaves a line all the same."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

INSIDE = """
import os, signal, sys, time
from segface_batch.pipeline.last_word import last_word
with last_word("gone"):
    {}
"""

#: The pipe to the watcher is closed once it is dead, which the kill alone does not wait for.
WATCHER_KILLED = (
    "watcher = int(open('/proc/thread-self/children').read()); os.kill(watcher, signal.SIGKILL); "
    "os.waitid(os.P_PID, watcher, os.WEXITED | os.WNOWAIT)"
)


@pytest.mark.parametrize(
    ("inside", "told"),
    [
        ("os._exit(1)", "gone\n"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "gone\n"),
        ("pass", ""),
        ("sys.exit(3)", ""),
        (WATCHER_KILLED, ""),
    ],
)
def test_only_a_silent_end_is_told(inside: str, told: str) -> None:
    done = subprocess.run([sys.executable, "-c", INSIDE.format(inside)], capture_output=True, text=True, check=False)
    assert done.stderr == told


#: Until the watcher has its handler of SIGINT, which would tell of it; before, it would die in silence.
WATCHER_READY = (
    "watcher = int(open('/proc/thread-self/children').read())\n"
    "    while not int(open(f'/proc/{watcher}/status').read().split('SigCgt:')[1].split()[0], 16) & 2: time.sleep(0.01)"
)


def test_ctrl_c_of_a_terminal_does_not_reach_the_watcher() -> None:
    code = INSIDE.format(f"{WATCHER_READY}\n    os.killpg(0, signal.SIGINT); time.sleep(5)")
    code = f"try:\n    exec({code!r})\nexcept KeyboardInterrupt:\n    raise SystemExit(130)"
    code = f"import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)  # nohup and & ignore it\n{code}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")
