from __future__ import annotations

from dataclasses import replace

from segface_batch.forecast.proposal import Proposal, propose
from segface_batch.forecast.stages import Stage
from segface_batch.pipeline.resources import Resources
from tests.forecast import made

GIB = 2**30

ON_CPUS = replace(made.SETUP, gpus=0.0, resources=Resources(0.0, 2))

#: The threads of a worker decode in 30 ms what the network labels in 10.
STAGES = {"decode": Stage(30, 0.5), "network": Stage(10, 0.5), "encode": Stage(5, 0.5)}


def test_what_suits_the_machine_is_proposed_as_it_was_tried() -> None:
    assert propose(made.sampled(setup=ON_CPUS), STAGES, GIB) == (Proposal((4, 4), 2, 1, 0.0), ())


def test_no_more_actors_are_proposed_than_memory_has_room_for() -> None:
    def proposed(gib: float) -> tuple[Proposal, tuple[str, ...]]:
        """Two actors side by side on a node, 4 GiB each."""
        return propose(made.sampled(setup=replace(ON_CPUS, node_memory=gib * GIB)), STAGES, 4 * GIB)

    assert proposed(8.0) == (Proposal((4, 4), 2, 1, 0.0), ())
    assert proposed(7.9) == (
        Proposal((3, 3), 2, 1, 0.0),
        ("--actors 3: memory has room for so many, 4.0 GiB each",),
    )
    assert proposed(1.0)[0].actors == (1, 1)


def test_a_gpu_gets_the_threads_that_it_needs_or_as_many_as_there_are() -> None:
    def proposed(cpus: int, threads: int) -> tuple[int, tuple[str, ...]]:
        setup = replace(made.SETUP, cpus=cpus, resources=Resources(1.0, threads))
        proposal, advice = propose(made.sampled(setup=setup), STAGES, GIB)
        return proposal.threads, advice

    assert proposed(16, 3) == (3, ())
    assert proposed(16, 2) == (3, ("--threads 3: the GPU needs 3 threads that decode, 4 CPUs are there",))
    assert proposed(8, 1) == (2, ("--threads 2: the GPU needs 3 threads that decode, 2 CPUs are there",))
    assert proposed(8, 2) == (2, ())  # nothing to gain


def test_the_smallest_batch_is_proposed_that_is_as_fast_as_any() -> None:
    def proposed(**changes: object) -> tuple[int, tuple[str, ...]]:
        proposal, advice = propose(made.sampled(setup=ON_CPUS, **changes), STAGES, GIB)
        return proposal.batch_size, advice

    batches = {8: 0.0495, 4: 0.05, 1: 0.1}
    assert proposed(batches=batches) == (4, ("--batch-size 4: the network takes 0.50 of the time per face",))
    assert proposed(batches=batches, batch_size=4) == (4, ())
    assert proposed(batches={4: 0.1, 1: 0.102}) == (1, ())
