"""Death on demand, for tests of what a crash leaves behind.

SEGFACE_FAILPOINT="MOMENT:WORD" ends the process by SIGKILL at the first object whose place contains WORD: `before` it
is written, when it is `written` under a temporary name (local files), `after` it is there, before its `removing`.
"""

from __future__ import annotations

import os
import signal

_MOMENT, _, _WORD = os.environ.get("SEGFACE_FAILPOINT", "").partition(":")


def reached(moment: str, place: str) -> None:
    if moment == _MOMENT and _WORD in place:
        os.kill(os.getpid(), signal.SIGKILL)
