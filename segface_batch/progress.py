"""Tells a person how a run goes on: a line that rewrites itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shlex
import time
from typing import TextIO

from segface_batch.pipeline import Summary

#: Seconds between lines: on a terminal as often as an eye can follow, in a log as rarely as patience allows.
TERMINAL_INTERVAL, LOG_INTERVAL = 0.2, 15.0


class Line:
    """Progress on a text stream."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self.interval = TERMINAL_INTERVAL if self.terminal else LOG_INTERVAL
        self.last_written = float("-inf")
        self.first: tuple[float, int] | None = None  # when the first pictures were done, and how many

    def phase(self, what: str) -> None:
        self._write(f"{what} ...")

    def warn(self, what: str) -> None:
        self.end()
        self.stream.write(f"warning: {what}\n")
        self.stream.flush()

    def pictures(self, done: int, total: int, errors: int) -> None:
        now = time.monotonic()
        self.first = self.first or (now, done)
        if now - self.last_written < self.interval and done < total:
            return
        self.last_written = now
        since, at = self.first
        text = f"{done:,} of {total:,} pictures ({done / total:.0%})"
        if done > at:
            rate = (done - at) / (now - since)
            text += f", {rate:.1f} pictures/s, {duration((total - done) / rate)} left"
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


def report(summary: Summary) -> str:
    """The end of a run in a few lines, with the next command to try."""
    lines = [f"{summary.pictures:,} pictures: {_counts(summary.status)}"]
    if summary.errors:
        lines.append(f"  errors: {_counts(summary.errors)}")
    if summary.skipped:
        lines.append(f"  in the input besides: {_counts(summary.skipped)}")
    if summary.parsed:
        rate = summary.parsed / summary.seconds
        lines.append(f"  {summary.parsed:,} parsed in {duration(summary.seconds)}, {rate:.1f} pictures/s")
    else:
        lines.append("  all was done before; nothing changed")
    out = shlex.quote(summary.output)
    lines += [
        f"  statistics in {summary.output}/stats, masks in {summary.output}/masks (Parquet)",
        f"next: segface-batch query {out} \"select * from stats where status = 'ok' limit 5\"",
        f"      segface-batch show {out} IMAGE_ID",
    ]
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in most_first)
