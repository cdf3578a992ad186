"""Standard streams that are closed, absent, full, or without a reader: work goes on, and data is not lost in silence.

stderr is a log, and so is stdout where it reports on results that are in files: what they cannot take is dropped.
What has no other place than stdout is written in a block of `data_on_stdout`.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

#: How the file descriptors 0, 1 and 2 are opened on nothing: whoever writes data to a closed stdout is told.
_MODES = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)


class _Standard(io.FileIO):
    """stdout or stderr, which drops what it cannot take, unless it is `strict`."""

    strict = False

    def write(self, content: Any, /) -> int:  # any bytes-like object
        try:
            while (written := super().write(content)) is None:  # full, and who shares it made it non-blocking
                select.select((), (self,), ())
        except OSError:
            if self.strict:
                raise
            return memoryview(content).nbytes
        return written


def open_missing() -> None:
    """Open on nothing what is closed or absent of the standard streams.

    Else the next file or socket would get the number of such a stream, and with it what any library prints there.
    """
    for number, mode in enumerate(_MODES):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or getattr(stream, "closed", False):
            setattr(sys, name, _log(os.open(os.devnull, os.O_WRONLY), None))


def secure() -> None:
    """Make this process's own stdout and stderr logs; streams that somebody has put in their places stay."""
    own = {number: name for number, name in ((1, "stdout"), (2, "stderr")) if _is_own(name)}
    open_missing()
    for number, name in own.items():
        setattr(sys, name, _log(number, getattr(sys, f"__{name}__")))


def _is_own(name: str) -> bool:
    stream = getattr(sys, name)
    return stream is getattr(sys, f"__{name}__") and (stream is None or isinstance(stream, io.TextIOWrapper))


def _log(number: int, own: io.TextIOWrapper | None) -> io.TextIOWrapper:
    """A log on a file descriptor, with the encoding of Python's own stream; what that lacks is escaped."""
    buffer = io.BufferedWriter(_Standard(number, "wb", closefd=False))
    if own is None:
        return io.TextIOWrapper(buffer, "utf-8", "backslashreplace")
    with contextlib.suppress(OSError):
        own.flush()
    errors = "backslashreplace" if own.errors == "strict" else own.errors
    return io.TextIOWrapper(buffer, own.encoding, errors, line_buffering=own.line_buffering or own.write_through)


@contextmanager
def data_on_stdout() -> Iterator[TextIO]:
    """stdout for data: OSError where that cannot be written.

    A reader that has enough, as `head` soon has, ends the block without an error.
    """
    stream = sys.stdout
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if isinstance(raw, _Standard):
        raw.strict = True
    try:
        yield stream
        stream.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        raise OSError(f"cannot write to stdout: {error.strerror}") from error
    finally:
        if isinstance(raw, _Standard):
            raw.strict = False  # or Python's own flush at its end would fail again, and make the exit code 120
