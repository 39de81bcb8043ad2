"""What the launcher says about this process, read from environment variables.

A pure function of the environment; Horovod's own view is held against it in
:mod:`megdet_hvd.job.session`, since the two have been seen to differ where MPI's
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
    node: int | None = None
    """Position of its machine among those of the job, from 0; None: unsaid."""
    nodes: int | None = None
    """Number of machines; None: unsaid."""
    cross_rank: int | None = None
    """Position among the processes of its local rank, one a machine; None: unsaid."""
    cross_size: int | None = None
    """Number of processes of its local rank; None: unsaid."""


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


def _slurm_counts(environ: Mapping[str, str]) -> list[int]:
    """Tasks on each node of the step; empty: unsaid."""
    text = environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    return tasks_per_node(text) if text else []


def _cross(
    counts: list[int], node: int | None, local_rank: int | None
) -> tuple[int | None, int | None]:
    """Cross rank and cross size, from the number of processes on each machine."""
    if node is None or local_rank is None or node >= len(counts):
        return None, None
    having = [i for i, count in enumerate(counts) if count > local_rank]
    return sum(i < node for i in having), len(having)


def _from_horovodrun(environ: Mapping[str, str]) -> Launch:
    size = _number(environ, "HOROVOD_SIZE")
    local_size = _number(environ, "HOROVOD_LOCAL_SIZE")
    cross_rank = _number(environ, "HOROVOD_CROSS_RANK")
    cross_size = _number(environ, "HOROVOD_CROSS_SIZE")
    even = size == (local_size or 0) * (cross_size or 0)
    return Launch(
        "gloo",
        "horovodrun --gloo",
        size,
        _number(environ, "HOROVOD_RANK"),
        _number(environ, "HOROVOD_LOCAL_RANK"),
        local_size,
        cross_rank if even else None,
        cross_size if even else None,
        cross_rank,
        cross_size,
    )


def _from_slurm(environ: Mapping[str, str], launcher: str) -> Launch:
    node, local_rank = _number(environ, "SLURM_NODEID"), _number(environ, "SLURM_LOCALID")
    counts = _slurm_counts(environ)
    local_size = counts[node] if node is not None and node < len(counts) else None
    return Launch(
        "mpi",
        launcher,
        _number(environ, "PMI_SIZE", "SLURM_STEP_NUM_TASKS"),
        _number(environ, "PMI_RANK", "PMIX_RANK"),
        _number(environ, "MPI_LOCALRANKID", "SLURM_LOCALID"),
        _number(environ, "MPI_LOCALNRANKS") or local_size,
        node,
        len(counts) or None,
        *_cross(counts, node, local_rank),
    )


def _from_open_mpi(environ: Mapping[str, str]) -> Launch:
    """Open MPI's variables.

    The node is the number of the daemon that started this process: mpirun itself is 0. Slurm's
    own SLURM_NODEID counts from 0 among the daemons that mpirun started through srun, which are
    all but the first, so that it is off by one on all but the first.
    """
    daemon = re.match(r"\d+\.(\d+);", environ.get("OMPI_MCA_orte_local_daemon_uri", ""))
    node = int(daemon[1]) if daemon else None
    nodes = _number(environ, "OMPI_MCA_orte_num_nodes")
    if node is not None and nodes is not None and node >= nodes:
        node = None  # mpirun runs on a machine that takes no part
    size = _number(environ, "OMPI_COMM_WORLD_SIZE")
    local_rank = _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK")
    local_size = _number(environ, "OMPI_COMM_WORLD_LOCAL_SIZE")
    even = nodes is not None and local_size is not None and nodes * local_size == size
    return Launch(
        "mpi",
        "mpirun",
        size,
        _number(environ, "OMPI_COMM_WORLD_RANK"),
        local_rank,
        local_size,
        node,
        nodes,
        *_cross([local_size or 0] * (nodes or 0) if even else [], node, local_rank),
    )


_OTHERS = {
    "mpirun_rsh": (
        "MV2_COMM_WORLD_SIZE",
        "MV2_COMM_WORLD_RANK",
        "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
    "jsrun": (
        "JSM_NAMESPACE_SIZE",
        "JSM_NAMESPACE_RANK",
        "JSM_NAMESPACE_LOCAL_RANK",
        "JSM_NAMESPACE_LOCAL_SIZE",
    ),
    "flux": ("FLUX_JOB_SIZE", "FLUX_TASK_RANK", "FLUX_TASK_LOCAL_ID", ""),
    "aprun": ("", "ALPS_APP_PE", "", ""),
}
"""Launchers that set neither Open MPI's variables nor PMI's, or not always: the names of size,
rank, local rank and local size."""


def _from_others(environ: Mapping[str, str]) -> Launch | None:
    for launcher, names in _OTHERS.items():
        size, rank, local_rank, local_size = (_number(environ, name) for name in names)
        if rank is not None:
            return Launch("mpi", launcher, size, rank, local_rank, local_size)
    return None


def _refuse_torchrun(environ: Mapping[str, str]) -> None:
    """Raises UserError: torchrun started this process as one of several."""
    size = _number(environ, "WORLD_SIZE")
    if "TORCHELASTIC_RUN_ID" in environ and size is not None and size > 1:
        raise UserError(
            f"torchrun (or accelerate) started {size} processes, which Horovod knows nothing of, "
            f"so each would train alone; start them with horovodrun -np {size} python -m …, mpirun "
            "or srun --mpi=pmix"
        )


def read_launch(environ: Mapping[str, str]) -> Launch:
    """Read the launcher's variables.

    Raises:
        UserError: several tasks were started by ``srun`` without an MPI plugin, or by
            ``torchrun``, so that each would believe itself alone.
    """
    if environ.get("HOROVOD_CONTROLLER") == "gloo" and "HOROVOD_RANK" in environ:
        return _from_horovodrun(environ)
    slurm_step = "SLURM_STEP_ID" in environ and "SLURM_PROCID" in environ
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return _from_open_mpi(environ)
    if "PMIX_RANK" in environ or "PMI_RANK" in environ:
        return _from_slurm(environ, "srun" if slurm_step else "mpiexec")
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS")
    if slurm_step and tasks is not None and tasks > 1:
        raise UserError(
            f"srun started {tasks} tasks without an MPI plugin, so each would train alone; "
            "start them with srun --mpi=pmix (srun --mpi=list shows what the site has), "
            "or use mpirun"
        )
    other = _from_others(environ)
    if other is not None:
        return other
    _refuse_torchrun(environ)
    return Launch("single", "python", 1, 0, 0, 1)
