"""What each worker of a run gets of the machine or cluster, and how many there are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from segface_batch.job import Job

#: A crumb of each node's CPUs is left by every actor: where a node has died, Ray starts its actors again on all CPUs
#: that others have left, and tasks that mostly wait for storage (FETCH_CPUS) must always find one.
FETCH_CPUS, CRUMB = 0.0002, 0.001

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
        raise ValueError(f"{num_gpus:g} GPU per actor asked for, Ray has {gpus:g}; try --device cpu{_GROWING}")
    if num_gpus:
        each = [min(node.get("CPU", 0) // threads, node.get("GPU", 0) // num_gpus) for node in found]
    else:
        each = [min(_by_cpus(node, threads), _by_memory(node)) for node in found]
    room = max(1, int(cpus - 1) // threads)
    most = min(room, int(sum(each)) or (0 if num_gpus else 1))
    least, most = job.actors or (min(most, units), min(most, units))
    if least == 0 or least * threads > max(1, cpus - 1):
        raise ValueError(
            f"{least or 1} actors of {threads} threads asked for, Ray has {cpus - 1:g} CPUs for them; lower --actors "
            f"or --threads{_GROWING}"
        )
    return resources, (least, most)


def fewer_for_memory(job: Job) -> str | None:
    """That memory, and not the CPUs, bounds the workers, in one line for people; None where it does not."""
    if job.actors is not None or any(node.get("GPU") for node in nodes()):
        return None
    by_cpus = sum(_by_cpus(node, job.threads or CPU_THREADS) for node in nodes())
    found = sum(min(_by_cpus(node, job.threads or CPU_THREADS), _by_memory(node)) for node in nodes())
    if found >= by_cpus:
        return None
    memory = sum(node.get("memory", 0.0) for node in nodes()) / 1e9
    return (
        f"{max(1, int(found))} workers instead of {int(by_cpus)}: Ray has {memory:.1f} GB of memory, a worker may need "
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
