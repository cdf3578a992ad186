"""Tells a person how a run goes on: a line that rewrites itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Protocol, TextIO

#: Seconds between lines: on a terminal as often as an eye can follow, in a log as rarely as patience allows.
TERMINAL_INTERVAL, LOG_INTERVAL = 0.2, 15.0


class Progress(Protocol):
    """Who is told how a run goes on."""

    def phase(self, what: str) -> None:
        """A new phase begins."""

    def note(self, text: str) -> None:
        """Something that was decided."""

    def images(self, done: int, total: int, errors: int) -> None:
        """`done` of the plan's `total` images have rows; `errors` of this run's have no mask."""


class Silence:
    """Nobody is told."""

    def phase(self, what: str) -> None: ...

    def note(self, text: str) -> None: ...

    def images(self, done: int, total: int, errors: int) -> None: ...


class Line:
    """Progress on a text stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.interval = TERMINAL_INTERVAL if self.terminal else LOG_INTERVAL
        self.last_written = float("-inf")
        self.started = time.monotonic()  # of the current phase
        self.before: int | None = None  # images that were done before this run

    def phase(self, what: str) -> None:
        self.started = time.monotonic()
        self._write(f"{what} ...")

    def note(self, text: str) -> None:
        self.end()
        self.stream.write(f"{text}\n")
        self.stream.flush()

    def images(self, done: int, total: int, errors: int) -> None:
        now = time.monotonic()
        if self.before is None:
            # The first report comes with its images, whose number is not told: they count from the next one on.
            self.before = done
        if now - self.last_written < self.interval and done < total:
            return
        self.last_written = now
        text = f"{done:,} of {total:,} images ({done / total:.0%})"
        if done > self.before:
            rate = (done - self.before) / (now - self.started)
            text += f", {rate:.1f} images/s, {duration((total - done) / rate)} left"
        self._write(f"{text}, {errors:,} errors")

    def end(self) -> None:
        """Leave the terminal's line."""
        if self.terminal:
            self.stream.write("\r\x1b[K")
            self.stream.flush()

    def _write(self, text: str) -> None:
        self.stream.write(f"\r{text}\x1b[K" if self.terminal else f"{text}\n")
        self.stream.flush()


def duration(seconds: float) -> str:
    """Like 45 s, 3 min 20 s, 2 h 05 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
