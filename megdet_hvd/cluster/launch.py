"""What the launcher says about this process, read from environment variables.

A pure function of the environment; Horovod's own view is held against it in
:mod:`megdet_hvd.comm.session`, since the two have been seen to differ where MPI's
"shared" means a NUMA domain.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from megdet_hvd.errors import UserError

Controller = Literal["single", "gloo", "mpi"]


@dataclass(frozen=True)
class Launch:
    """How this process was started."""

    controller: Controller
    """Who coordinates Horovod: nobody, Gloo under ``horovodrun --gloo``, or MPI."""
    launcher: str
    """The launcher's name, for the log."""
    size: int | None
    """Number of processes as the launcher says it; None: unsaid."""
    rank: int | None
    """This process's rank; None: unsaid."""
    local_rank: int | None
    """Its position on its machine; None: unsaid."""
    local_size: int | None
    """Number of processes on its machine; None: unsaid."""


def _number(environ: Mapping[str, str], *names: str) -> int | None:
    for name in names:
        text = environ.get(name, "").strip()
        if text.isdigit():
            return int(text)
    return None


def tasks_per_node(text: str) -> list[int]:
    """Slurm's ``2(x3),1`` as ``[2, 2, 2, 1]``. Raises ValueError on anything else."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise ValueError(f"{text!r} is not a Slurm task list such as 8(x16) or 2(x3),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _slurm_local_size(environ: Mapping[str, str]) -> int | None:
    node = _number(environ, "SLURM_NODEID")
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    if node is None or not text:
        return None
    counts = tasks_per_node(text)
    return counts[node] if node < len(counts) else None


def read_launch(environ: Mapping[str, str]) -> Launch:
    """Read the launcher's variables.

    Raises:
        UserError: several tasks were started by ``srun`` without an MPI plugin, so that each
            would believe itself alone.
    """
    if environ.get("HOROVOD_CONTROLLER") == "gloo" and "HOROVOD_RANK" in environ:
        return Launch(
            "gloo",
            "horovodrun --gloo",
            _number(environ, "HOROVOD_SIZE"),
            _number(environ, "HOROVOD_RANK"),
            _number(environ, "HOROVOD_LOCAL_RANK"),
            _number(environ, "HOROVOD_LOCAL_SIZE"),
        )
    slurm_step = "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return Launch(
            "mpi",
            "mpirun",
            _number(environ, "OMPI_COMM_WORLD_SIZE"),
            _number(environ, "OMPI_COMM_WORLD_RANK"),
            _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK"),
            _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE"),
        )
    if "PMIX_RANK" in environ or "PMI_RANK" in environ:
        return Launch(
            "mpi",
            "srun" if slurm_step else "mpiexec",
            _number(environ, "PMI_SIZE", "SLURM_STEP_NUM_TASKS"),
            _number(environ, "PMI_RANK", "PMIX_RANK"),
            _number(environ, "MPI_LOCALRANKID", "SLURM_LOCALID"),
            _number(environ, "MPI_LOCALNRANKS") or _slurm_local_size(environ),
        )
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS")
    if slurm_step and tasks is not None and tasks > 1:
        raise UserError(
            f"srun started {tasks} tasks without an MPI plugin, so each would train alone; "
            "start them with srun --mpi=pmix (srun --mpi=list shows what the site has), "
            "or use mpirun"
        )
    return Launch("single", "python", 1, 0, 0, 1)
