"""A line on stderr when this process ends without one: Ray's core exits without a message when its cluster is gone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: What the watcher runs: it waits until the pipe's other end is closed, which a byte announces where all is well.
_WATCH = "import sys; sys.stdin.buffer.read() or sys.stderr.write(sys.argv[1] + chr(10))"


@contextmanager
def last_word(line: str) -> Iterator[None]:
    """If the process ends inside the block, however, a watcher prints the line."""
    theirs, ours = os.pipe()  # no other child process gets our end
    command = [sys.executable, "-I", "-S", "-c", _WATCH, line]
    watcher = subprocess.Popen(command, stdin=theirs, stdout=subprocess.DEVNULL, start_new_session=True)
    os.close(theirs)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # somebody has ended the watcher
            os.write(ours, b".")
        os.close(ours)
        watcher.wait()
