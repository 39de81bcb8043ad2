"""What Slurm gave a job: nodes, and tasks on each; read from the batch script's variables."""

from collections.abc import Mapping
from dataclasses import dataclass

from megdet_hvd.cluster.hostlist import expand_hosts
from megdet_hvd.cluster.launch import tasks_per_node
from megdet_hvd.errors import UserError


@dataclass(frozen=True)
class Allocation:
    """A job's part of the cluster."""

    job: int
    """Its number; the same after a requeue."""
    name: str
    """Its name, that of the template unless told otherwise."""
    restarts: int
    """How often it was requeued."""
    hosts: tuple[str, ...]
    """Its nodes; the batch script runs on the first."""
    tasks_per_node: int
    """Processes on each."""
    cpus_per_task: int | None
    """Cores for each process; None: not asked for."""
    array: int | None = None
    """The number of the array that it is a member of; None: of none."""
    member: int | None = None
    """Its number in that."""

    @property
    def slurm_id(self) -> str:
        """How Slurm's commands mean this job alone: its number may be its whole array's, too."""
        return str(self.job) if self.array is None else f"{self.array}_{self.member}"

    @property
    def tasks(self) -> int:
        """Processes in all."""
        return len(self.hosts) * self.tasks_per_node


def read_allocation(environ: Mapping[str, str]) -> Allocation:
    """The allocation of the job whose batch script has these variables.

    Raises:
        UserError: not in a batch script, a heterogeneous job, or nodes with unequal numbers of
            tasks.
    """
    missing = [n for n in ("SLURM_JOB_ID", "SLURM_JOB_NODELIST") if not environ.get(n)]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not set: this runs inside a Slurm job; submit a template of "
            "slurm/ with sbatch"
        )
    if environ.get("SLURM_HET_SIZE"):
        raise UserError(
            "a heterogeneous job: every node must run as many processes; submit one component"
        )
    try:
        hosts = tuple(expand_hosts(environ["SLURM_JOB_NODELIST"]))
        counts = tasks_per_node(environ.get("SLURM_TASKS_PER_NODE") or "1")
    except ValueError as error:
        raise UserError(f"Slurm's variables can't be read: {error}") from None
    asked = environ.get("SLURM_NTASKS_PER_NODE", "")
    if asked.isdigit():
        counts = [int(asked)] * len(hosts)
    if len(set(counts)) != 1 or len(counts) != len(hosts):
        raise UserError(
            f"{len(hosts)} nodes with {environ.get('SLURM_TASKS_PER_NODE')} tasks: every node must "
            "run as many, one a GPU; use --nodes=N --ntasks-per-node=M rather than --ntasks"
        )
    cpus = environ.get("SLURM_CPUS_PER_TASK", "")
    array, member = (environ.get(f"SLURM_ARRAY_{x}_ID", "") for x in ("JOB", "TASK"))
    in_array = array.isdigit() and member.isdigit()
    return Allocation(
        job=int(environ["SLURM_JOB_ID"]),
        name=environ.get("SLURM_JOB_NAME", "megdet"),
        restarts=int(environ.get("SLURM_RESTART_COUNT") or 0),
        hosts=hosts,
        tasks_per_node=counts[0],
        cpus_per_task=int(cpus) if cpus.isdigit() else None,
        array=int(array) if in_array else None,
        member=int(member) if in_array else None,
    )
