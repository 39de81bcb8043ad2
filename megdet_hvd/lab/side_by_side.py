"""Trainings side by side on the cores of this machine: a core for each process of each."""

import os
import time
from collections.abc import Callable, Sequence

from megdet_hvd.lab.training import Training

LOOK_S = 0.2


def run_side_by_side(
    trainings: Sequence[Training], done: Callable[[Training], None], cores: Sequence[int]
) -> None:
    """Run all of them, in order as cores become free; ``done`` is called as each ends.

    A training of several processes waits until so many cores are free, and is not overtaken; on a
    machine with fewer it has them all, and its processes share them. What ends early (an error,
    Ctrl-C) stops the others, each with a checkpoint.

    Raises:
        RunError: one failed.
    """
    needed = {id(one): min(one.run.processes, len(cores)) for one in trainings}
    waiting, free = list(trainings), list(cores)
    under_way: dict[int, tuple[Training, list[int]]] = {}
    try:
        while waiting or under_way:
            while waiting and needed[id(waiting[0])] <= len(free):
                training = waiting.pop(0)
                own = [free.pop(0) for _ in range(needed[id(training)])]
                under_way[id(training)] = training, own
                training.start(own)
            for key, (training, own) in list(under_way.items()):
                if training.look():
                    del under_way[key]
                    free += own
                    done(training)
            time.sleep(LOOK_S)
    finally:
        for training, _ in under_way.values():
            training.stop()


def own_cores(jobs: int | None) -> list[int]:
    """The cores this process may run on, at most ``jobs`` of them."""
    cores = sorted(os.sched_getaffinity(0))
    return cores if jobs is None else cores[:jobs]
