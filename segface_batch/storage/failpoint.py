"""Death on demand, for tests of what a crash leaves behind.

SEGFACE_FAILPOINT="MOMENT:WORD" ends the process by SIGKILL at the first object whose place contains WORD: `before` it
is written, when it is `written` under a temporary name (local files), `after` it is there, before its `removing`.
With SEGFACE_FAILPOINT_PAUSE=SECONDS it sleeps there instead, as often as it comes by: a late writer.
"""

from __future__ import annotations

import os
import signal
import time


def reached(moment: str, place: str) -> None:
    fatal, _, word = os.environ.get("SEGFACE_FAILPOINT", "").partition(":")
    if moment == fatal and word in place:
        if pause := os.environ.get("SEGFACE_FAILPOINT_PAUSE"):
            time.sleep(float(pause))
        else:
            os.kill(os.getpid(), signal.SIGKILL)
