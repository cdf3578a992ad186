"""How a run goes, for people: a line that rewrites itself on a terminal, a new line now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Protocol, TextIO

#: Seconds between two lines: on a terminal as often as the eye can follow, in a log four a minute.
TERMINAL_INTERVAL, LOG_INTERVAL = 0.2, 15.0


class Progress(Protocol):
    """What a run reports while it goes on."""

    def phase(self, what: str) -> None:
        """A new phase begins."""

    def note(self, text: str) -> None:
        """A decision the run has made."""

    def start(self, done: int) -> None:
        """The first unit is handed out; `done` images have rows already.  Called again before images are retried."""

    def images(self, done: int, total: int, errors: int) -> None:
        """`done` of the plan's `total` images have rows; `errors` of those of this run have no mask."""


class Silence:
    """Shows nothing."""

    def phase(self, what: str) -> None: ...

    def note(self, text: str) -> None: ...

    def start(self, done: int) -> None: ...

    def images(self, done: int, total: int, errors: int) -> None: ...


class Line:
    """Progress on a text stream; `clock` gives seconds.  Work goes on whether the stream takes it or not."""

    def __init__(self, stream: TextIO | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream, self.clock = stream, clock
        self.terminal = False
        with contextlib.suppress(ValueError):  # closed
            self.terminal = stream is not None and stream.isatty()
        self.interval = TERMINAL_INTERVAL if self.terminal else LOG_INTERVAL
        self.last_written = float("-inf")
        self.started: float | None = None
        self.before = 0  # images that were done when this run started

    def phase(self, what: str) -> None:
        self._write(f"{what} ...")

    def note(self, text: str) -> None:
        self.end()
        self._put(f"{text}\n")

    def start(self, done: int) -> None:
        self.started, self.before = self.clock(), done

    def images(self, done: int, total: int, errors: int) -> None:
        now = self.clock()
        if now - self.last_written < self.interval and done < total:
            return
        self.last_written = now
        text = f"{done:,} of {total:,} images ({done / total:.0%})"
        if self.started is not None and done > self.before and now > self.started:
            rate = (done - self.before) / (now - self.started)
            text += f", {rate:.1f} images/s, {duration((total - done) / rate)} left"
        self._write(f"{text}, {errors:,} errors")

    def end(self) -> None:
        """Leave the terminal's line."""
        if self.terminal:
            self._put("\r\x1b[K")

    def _write(self, text: str) -> None:
        self._put(f"\r{text}\x1b[K" if self.terminal else f"{text}\n")

    def _put(self, text: str) -> None:
        if self.stream is None:
            return
        with contextlib.suppress(Exception):  # of any kind, as the stream may be
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self.stream.flush()


def duration(seconds: float) -> str:
    """Like 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
