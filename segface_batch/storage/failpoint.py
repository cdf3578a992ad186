"""Crashes on demand, for tests of what a crash leaves behind.

SEGFACE_FAILPOINT="MOMENT:WORD" kills the process with SIGKILL at the first object whose place contains WORD.  MOMENT is
`before` (the write), `written` (to a temporary name; local files only), `after` (the write) or `removing`.  With
SEGFACE_FAILPOINT_PAUSE=SECONDS the process sleeps there instead, every time: a late writer.
"""

from __future__ import annotations

import os
import signal
import time


def reached(moment: str, place: str) -> None:
    """Crash or pause here if the environment asks for it."""
    fatal, _, word = os.environ.get("SEGFACE_FAILPOINT", "").partition(":")
    if moment == fatal and word in place:
        if pause := os.environ.get("SEGFACE_FAILPOINT_PAUSE"):
            time.sleep(float(pause))
        else:
            os.kill(os.getpid(), signal.SIGKILL)
