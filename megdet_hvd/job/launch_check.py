"""What the launcher said of the job, held against what MPI and Horovod found.

A launcher whose way of starting MPI the library at hand does not know leaves every process by
itself: each would train alone, all of them into one run folder.
"""

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.errors import UserError


def check_mpi(launch: Launch) -> None:
    """Hold MPI's processes against the launcher's. Starts MPI; nothing where it is not used.

    Raises:
        UserError: they differ. Each process finds out by itself: they may not know of one another.
    """
    if launch.controller != "mpi":
        return
    from mpi4py import MPI

    world = MPI.COMM_WORLD
    library = MPI.Get_library_version().split(",")[0].strip()
    problem = launch_mismatch(launch, world.Get_size(), world.Get_rank(), library)
    if problem is not None:
        raise UserError(problem)


def launch_mismatch(launch: Launch, size: int, rank: int, who: str) -> str | None:
    """What differs between the launcher's word and what ``who`` found; None: nothing."""
    said = []
    if launch.size not in (None, size):
        said.append(f"{launch.size} processes")
    if launch.rank not in (None, rank):
        said.append(f"rank {launch.rank}")
    unsaid = launch.size is None and launch.rank is not None and launch.launcher == "aprun"
    if not said and not (unsaid and size == 1):
        return None
    told = " and ".join(said) or f"process {launch.rank} of a job"
    found = "this process alone" if size == 1 else f"{size} processes, this one rank {rank}"
    alone = ", so that each would train alone" if size == 1 else ""
    return (
        f"{launch.launcher} started {told}, and {who} finds {found}{alone}: it can't use "
        f"{launch.launcher}'s way of starting MPI{_way(launch)}. {_fix(launch)}"
    )


def _way(launch: Launch) -> str:
    return " here (srun's --mpi=pmi2, say)" if launch.launcher == "srun" else ""


def _fix(launch: Launch) -> str:
    if launch.launcher == "srun":
        return (
            "Start it with srun --mpi=pmix (srun --mpi=list shows what the site has), or with the "
            "mpirun of that MPI inside the allocation"
        )
    return (
        "Start it with the mpirun or horovodrun of the MPI that it was built with (`which mpirun` "
        "beside `which python`), and unset left-over launcher variables"
    )
