"""What each worker of a run gets of the machine or cluster, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segface_batch.job import Job

#: CPUs of a task that mostly waits for storage, and what each actor leaves free for such tasks: where a node has died,
#: Ray starts its actors again on all CPUs that others have left.
FETCH_CPUS, SPARE_CPUS = 0.0002, 0.001

#: CPU threads of a worker on a CPU, where actors side by side beat threads inside one (docs/speed.md).
CPU_THREADS = 1

#: With a GPU: the share of its CPUs that decode and encode for it, as it waits for those first; the rest fetches and
#: stages.  More threads than this hinder each other in one Python.  (Not measured on a GPU.)
GPU_CPUS, MOST_GPU_THREADS = 0.75, 16

#: Where no node with a GPU is there yet.
GPU_THREADS = 4

#: Memory that a node must have for each worker on CPUs: a process with torch took 0.8 GB (demo-synthetic), 1.0 GB
#: (mobilenet_celeba_512) and 1.4 GB (convnext_celeba_512, swinb_celeba_512) at its peak.
WORKER_BYTES = 1_500_000_000

#: For clusters that grow on demand.
_GROWING = ", or say --actors MIN:MAX with RAY_ADDRESS where nodes come when they are needed"


@dataclass(frozen=True)
class Resources:
    """GPUs and CPU threads of one worker, and the device of its network: cpu or cuda."""

    num_gpus: float
    threads: int

    @property
    def device(self) -> str:
        return "cuda" if self.num_gpus else "cpu"


def nodes() -> list[dict[str, Any]]:
    """What each node that is alive has, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def share(job: Job, units: int) -> tuple[Resources, tuple[int, int]]:
    """Resources of each worker, and least and most workers: what the job says, or what the machine has.

    Workers with a GPU are where GPUs are.  Of CPUs alone every node keeps one for the tasks that wait for storage.
    ValueError, in one line with a hint, where Ray has less than the job asks for.
    """
    found = nodes()
    cpus, gpus = (sum(node.get(kind, 0.0) for node in found) for kind in ("CPU", "GPU"))
    resources = _of_worker(job, found, gpus)
    num_gpus, threads = resources.num_gpus, resources.threads
    if job.actors is not None and os.environ.get("RAY_ADDRESS"):
        return resources, job.actors  # a cluster may grow when they wait
    if num_gpus > gpus:
        raise ValueError(f"{num_gpus:g} GPU per worker asked for, Ray has {gpus:g}; try --device cpu{_GROWING}")
    room = max(1, int(cpus - 1) // threads)
    most = sum(most_on(node, resources) for node in found)
    if not most and not num_gpus:  # workers on all CPUs of a node, or one where memory is short
        most = room if all(_by_memory(node) >= 1 for node in found) else 1
    most = min(room, most)
    least, most = job.actors or (min(most, units), min(most, units))
    if least == 0 or least * threads > max(1, cpus - 1):
        raise ValueError(
            f"{least or 1} workers of {threads} threads asked for, Ray has {cpus - 1:g} CPUs for them; lower --actors "
            f"or --threads{_GROWING}"
        )
    return resources, (least, most)


def most_on(node: dict[str, Any], resources: Resources) -> int:
    """How many workers a node has room for."""
    if resources.num_gpus:
        return int(min(node.get("CPU", 0) // resources.threads, node.get("GPU", 0) // resources.num_gpus))
    return int(min(_by_cpus(node, resources.threads), _by_memory(node)))


def fewer_for_memory(job: Job, units: int, resources: Resources, most: int) -> str | None:
    """That memory, not the CPUs, limits the workers to `most`, in one line for people; None where it does not."""
    found = nodes()
    by_cpus = min(units, int(sum(_by_cpus(node, resources.threads) for node in found)))
    if job.actors is not None or resources.num_gpus or most >= by_cpus:
        return None
    memory = sum(node.get("memory", 0.0) for node in found) / 1e9
    return (
        f"{most} instead of {by_cpus} workers: Ray has {memory:.1f} GB of memory, a worker may need "
        f"{WORKER_BYTES / 1e9:.1f} GB; --actors overrides it"
    )


def _by_cpus(node: dict[str, Any], threads: int) -> float:
    return max(0, node.get("CPU", 0) - 1) // threads


def _by_memory(node: dict[str, Any]) -> float:
    return node.get("memory", float("inf")) // WORKER_BYTES


def _of_worker(job: Job, found: Sequence[dict[str, Any]], gpus: float) -> Resources:
    num_gpus = job.num_gpus
    if num_gpus is None:
        num_gpus = 1.0 if job.device == "cuda" or (gpus and job.device == "auto" and job.engine != "openvino") else 0.0
    if job.threads is not None or not num_gpus:
        return Resources(num_gpus, job.threads or CPU_THREADS)
    with_gpus = (gpu_threads(node.get("CPU", 1) - 1, node["GPU"], num_gpus) for node in found if node.get("GPU"))
    return Resources(num_gpus, min(with_gpus, default=GPU_THREADS))


def gpu_threads(cpus: float, gpus: float, num_gpus: float) -> int:
    """CPU threads of a worker with `num_gpus` of a machine's GPUs."""
    return max(1, min(MOST_GPU_THREADS, int(GPU_CPUS * cpus * num_gpus / gpus)))
