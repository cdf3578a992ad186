"""A forecast as text for people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from segface_batch.forecast.estimate import Forecast
from segface_batch.forecast.todo import LISTING_SECONDS
from segface_batch.progress import duration


def lines(found: Forecast) -> list[str]:
    """A forecast for people."""
    tried, machine = found.tried, found.machine
    more = "" if found.listed_all else f" in the first {LISTING_SECONDS:.0f} s of listing; more follow"
    done = f", {found.done:,} of them done" if found.done else ""
    gpus = f" and {machine['gpus']:g} GPUs" if machine["gpus"] else ""
    text = [
        f"{found.planned:,} images{more}{done}; {machine['cpus']} CPUs{gpus}",
        f"tried: {tried['images']} images, {tried['faces_per_image']:.2f} faces each, in {tried['actors']} "
        f"actors side by side, {machine['actor_memory_bytes'] / 2**30:.1f} GiB each",
        "",
        "stage     ms per image   busy",
    ]
    for name, stage in found.stages.items():
        mark = "  <- the bottleneck" if name == found.bottleneck else ""
        text.append(f"{name:<8}{stage.ms_per_image:>16.1f}{stage.busy:>7.0%}{mark}")
    error = "" if found.rate_error is None else f" +- {found.rate_error:.0%} (95 %, by sampling)"
    proposal = found.proposal
    options = "--actors {}:{}".format(*proposal.actors)
    options += f" --threads {proposal.threads} --batch-size {proposal.batch_size}"
    options += f" --num-gpus {proposal.num_gpus:g}" if proposal.num_gpus else ""
    text += [
        "",
        f"{found.rate:.3g} images/s{error} after {duration(found.start_seconds)} of start-up",
        f"proposal: {options}",
        *(f"  {reason}; plan again with it" for reason in found.advice),
        "",
        f"{'':<16}{'to do' if found.listed_all else 'listed':>16}{'10^6 images':>16}",
    ]
    for name, show in _SHOWN.items():
        values = [getattr(use, name) for use in (found.rest, found.million)]
        if any(value not in (None, 0) for value in values):
            text.append(f"{name.replace('_', ' '):<16}" + "".join(f"{show(value):>16}" for value in values))
    return text


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


_SHOWN: dict[str, Callable[[Any], str]] = {
    "images": "{:,}".format,
    "wall_seconds": duration,
    "vcpu_seconds": "{:,.0f}".format,
    "gpu_seconds": "{:,.0f}".format,
    "read_bytes": _bytes,
    "written_bytes": _bytes,
    "get_requests": "{:,.0f}".format,
    "put_requests": "{:,.0f}".format,
    "price": "{:,.2f}".format,
}
