"""Rank 0 decides for all, before Horovod runs."""

import os
from collections.abc import Callable
from typing import TypeVar

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.job.launch_check import check_mpi
from megdet_hvd.job.mpi_exchange import broadcast_value
from megdet_hvd.job.rendezvous import meet

T = TypeVar("T")


def rank_0_decides(make: Callable[[], T], launch: Launch) -> T:
    """What ``make`` returns on rank 0, on every process of the job. All call it together.

    ``make`` is called on rank 0 alone and must not raise: the others would wait. Files that it
    reads may look different from other machines; nobody else looks.

    Raises:
        RunError: under Gloo, a process did not come.
        UserError: MPI does not find the processes that the launcher started.
    """
    if launch.controller == "single":
        return make()
    check_mpi(launch)
    if launch.controller == "mpi":
        # MPI started by mpi4py outlives hvd.shutdown(); started by Horovod it would not.
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        decided: T = broadcast_value(world, make() if world.Get_rank() == 0 else None)
        return decided
    own = (None if launch.rank else make(),)
    found: T = meet(own, launch.rank or 0, launch.size or 1, os.environ)[0][0]
    return found
