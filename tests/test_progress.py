from __future__ import annotations

import errno
import io
from typing import TextIO

import pytest

from segface_batch.progress import Line, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Full(Terminal):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_run_however_units_come_in() -> None:
    stream, clock = io.StringIO(), Clock()
    line = Line(stream, clock)
    line.phase("loading the model")
    clock.now += 30
    line.start(40)  # of an earlier run
    clock.now += 20
    line.images(50, 100, 0)
    clock.now += 0.01
    line.images(60, 100, 0)  # too soon for another line
    clock.now += 29.99
    line.images(90, 100, 2)
    clock.now += 0.01
    line.images(100, 100, 2)  # the last one is always told
    assert stream.getvalue().splitlines() == [
        "loading the model ...",
        "50 of 100 images (50%), 0.5 images/s, 1 min 40 s left, 0 errors",
        "90 of 100 images (90%), 1.0 images/s, 10 s left, 2 errors",
        "100 of 100 images (100%), 1.2 images/s, 0 s left, 2 errors",
    ]


def test_ten_images_that_come_together_have_the_rate_of_the_whole_run() -> None:
    stream, clock = io.StringIO(), Clock()
    line = Line(stream, clock)
    line.start(0)
    clock.now += 20
    for done in (8, 10):
        clock.now += 0.01
        line.images(done, 10, 0)
    assert stream.getvalue().splitlines()[-1] == "10 of 10 images (100%), 0.5 images/s, 0 s left, 0 errors"


def test_images_tried_again_have_a_rate_of_their_own() -> None:
    stream, clock = io.StringIO(), Clock()
    line = Line(stream, clock)
    line.start(0)
    clock.now += 10
    line.images(1000, 1000, 4)
    line.start(996)
    clock.now += 8
    line.images(1000, 1000, 4)
    assert stream.getvalue().splitlines()[-1] == "1,000 of 1,000 images (100%), 0.5 images/s, 0 s left, 4 errors"


def test_a_terminals_line_rewrites_itself() -> None:
    stream, clock = Terminal(), Clock()
    line = Line(stream, clock)
    line.start(0)
    clock.now += 2
    line.images(4, 8, 0)
    line.note("the network is not compiled")
    clock.now += 0.2
    line.images(8, 8, 0)
    line.end()
    assert stream.getvalue() == (
        "\r4 of 8 images (50%), 2.0 images/s, 2 s left, 0 errors\x1b[K"
        "\r\x1b[Kthe network is not compiled\n"
        "\r8 of 8 images (100%), 3.6 images/s, 0 s left, 0 errors\x1b[K"
        "\r\x1b[K"
    )


class Broken(io.StringIO):
    """A stream as notebooks and windows have them, whose other side is gone."""

    def write(self, text: str) -> int:
        raise RuntimeError("the window is closed")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed(), Broken(), Full()], ids=["absent", "closed", "broken", "full"])
def test_work_goes_on_where_nobody_can_be_told_how_it_goes(stream: TextIO | None) -> None:
    line = Line(stream)
    line.phase("loading the model")
    line.note("the network is not compiled")
    line.start(0)
    line.images(8, 8, 0)
    line.end()


def test_what_a_stream_cannot_encode_is_escaped() -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, "ascii")
    Line(stream).phase("reading 日本.csv")
    assert written.getvalue() == rb"reading \u65e5\u672c.csv ..." + b"\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3600, "1 h 00 min"), (7530, "2 h 05 min")],
)
def test_a_duration_is_told_in_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
