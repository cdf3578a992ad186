"""Paired rounds: ways to do the same work take turns, so that whatever slows the machine down meets all of them."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: Does the work once and returns the seconds that count.
Way = Callable[[], float]


@dataclass(frozen=True)
class Paired:
    """`seconds` of each way, a number per round; `first` are those of the round that warmed up, if there was one."""

    seconds: dict[str, list[float]]
    first: dict[str, float]

    def median(self, way: str) -> float:
        """The median of a way's seconds."""
        return statistics.median(self.seconds[way])

    def ratio(self, way: str, *others: str) -> float:
        """Seconds of a way in those of others together: the median of each round's ratio."""
        base = [sum(each) for each in zip(*(self.seconds[other] for other in others), strict=True)]
        return statistics.median(own / theirs for own, theirs in zip(self.seconds[way], base, strict=True))


def paired(ways: Mapping[str, Way], rounds: int, *, warm_up: bool = True) -> Paired:
    """Every way once in each round; tells stderr how each round went."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    first: dict[str, float] = {}
    for number in range(1 - warm_up, rounds + 1):
        spent = {name: way() for name, way in ways.items()}
        what = f"round {number} of {rounds}" if number else "warm-up"
        print(f"{what}: {', '.join(f'{name} {s:.4g} s' for name, s in spent.items())}", file=sys.stderr, flush=True)
        if not number:
            first = spent
            continue
        for name, taken in spent.items():
            seconds[name].append(taken)
    return Paired(seconds, first)


def timed(work: Callable[[], Any], images: int = 1, clock: Callable[[], float] = time.perf_counter) -> Way:
    """A way that takes as long as `work`, in seconds per image."""

    def way() -> float:
        started = clock()
        work()
        return (clock() - started) / images

    return way


def side_by_side(prepare: Callable[..., Callable[[], Any]], arguments: Sequence[tuple[Any, ...]]) -> float:
    """Seconds of the slowest of several processes, one for each tuple of arguments.

    Each process calls `prepare` for its work, which all begin at the same moment.
    """
    spawn = multiprocessing.get_context("spawn")
    barrier, seconds = spawn.Barrier(len(arguments)), spawn.Queue()
    processes = [spawn.Process(target=_process, args=(prepare, own, barrier, seconds)) for own in arguments]
    for process in processes:
        process.start()
    spent = [seconds.get() for _ in processes]
    for process in processes:
        process.join()
    if None in spent:
        raise SystemExit("a process failed; its traceback stands above")
    return max(spent)


def _process(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...], barrier: Any, seconds: Any) -> None:
    spent = None
    try:
        work = timed(prepare(*arguments))
        barrier.wait()
        spent = work()
    finally:
        if spent is None:
            barrier.abort()  # or the others would wait for this one
        seconds.put(spent)
