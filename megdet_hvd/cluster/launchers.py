"""The command lines of ``srun``, ``mpirun`` and ``horovodrun``, and which of them serves. Pure.

None of them is told to end the job when one rank ends: the ranks' watchdog does, after it has said
who and why. srun's ``--wait`` is there for a watchdog that could not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from megdet_hvd.cluster.allocation import Allocation
from megdet_hvd.cluster.site import Site
from megdet_hvd.errors import UserError

Launcher = Literal["srun", "mpirun", "horovodrun"]
LAUNCHERS: tuple[Launcher, ...] = ("srun", "mpirun", "horovodrun")

LEFT_BEHIND_S = 150
"""After the first rank has ended, srun ends the rest so much later."""

PASSED_ON = re.compile(
    r"(MEGDET|HOROVOD|NCCL|UCX|FI|OMP|OMPI_MCA|TORCH|CUBLAS|COCO)_\w+|PYTHON\w*"
    r"|PATH|LD_LIBRARY_PATH|VIRTUAL_ENV|CUDA_HOME|TMPDIR|LANG|LC_ALL"
)
"""Variables that mpirun hands to ranks on other nodes, besides those of the site file."""


def srun_words(
    allocation: Allocation, *, mpi: str = "pmix", bind: bool = True, options: Sequence[str] = ()
) -> list[str]:
    """``srun`` for one task a process, before the program's own words; ``options``: a site's."""
    words = [
        "srun",
        f"--mpi={mpi}",
        f"--nodes={len(allocation.hosts)}",
        f"--ntasks={allocation.tasks}",
        f"--ntasks-per-node={allocation.tasks_per_node}",
        "--distribution=block:block",
        "--kill-on-bad-exit=0",
        f"--wait={LEFT_BEHIND_S}",
        f"--cpu-bind={'cores' if bind else 'none'}",
    ]
    if allocation.cpus_per_task is not None:  # srun does not take it over from sbatch
        words.append(f"--cpus-per-task={allocation.cpus_per_task}")
    return [*words, *options]


def once_a_node_words(allocation: Allocation) -> list[str]:
    """``srun`` for one task a node without MPI."""
    return once_a_node(len(allocation.hosts))


def once_a_node(nodes: int) -> list[str]:
    """The same, for a number of nodes."""
    words = ["srun", "--mpi=none", "--cpu-bind=none", f"--nodes={nodes}", f"--ntasks={nodes}"]
    return [*words, "--ntasks-per-node=1"]


def mpirun_words(allocation: Allocation, variables: Iterable[str]) -> list[str]:
    """``mpirun`` inside the allocation; the ranks choose their cores themselves."""
    words = ["mpirun", "-np", str(allocation.tasks)]
    words += ["--map-by", f"ppr:{allocation.tasks_per_node}:node", "--bind-to", "none"]
    for name in sorted(variables):
        words += ["-x", name]
    return words


def horovodrun_words(allocation: Allocation) -> list[str]:
    """``horovodrun`` over Gloo: through ssh to every node but the first."""
    hosts = ",".join(f"{host}:{allocation.tasks_per_node}" for host in allocation.hosts)
    return ["horovodrun", "--gloo", "-np", str(allocation.tasks), "-H", hosts]


def passed_on(environ: Mapping[str, str], site: Iterable[str] = ()) -> list[str]:
    """Names of the variables for ``mpirun -x``: those above, and those that a site file exports."""
    return sorted(
        {name for name in environ if PASSED_ON.fullmatch(name)} | (set(site) & {*environ})
    )


def pmix_of(mpi_list: str, wanted: str = "pmix") -> str | None:
    """The plugin of ``srun --mpi=list`` to use: ``wanted``, or one of its versions; None: none."""
    found = re.findall(r"[A-Za-z][\w-]*", mpi_list.partition(":")[2] or mpi_list)
    words = [*found, *re.findall(r"[A-Za-z][\w-]*", mpi_list)]
    if wanted in words:
        return wanted
    versions = sorted(word for word in words if word.startswith(f"{wanted}_v"))
    return versions[-1] if versions else None


def choose_launcher(
    wanted: str,
    *,
    nodes: int,
    srun_problem: str | None,
    mpirun_problem: str | None,
    ssh_problem: str | None,
) -> tuple[Launcher, list[str]]:
    """The launcher to use, and what was found out about those passed over.

    Args:
        wanted: ``auto``, or one of them.
        nodes: nodes of the job.
        srun_problem: why ``srun`` can't start MPI programs here; None: it can.
        mpirun_problem: likewise.
        ssh_problem: why horovodrun can't reach the other nodes; None: it can, or there are none.

    Raises:
        UserError: the one that is wanted can't be used; names one that can.
    """
    problems: dict[Launcher, str | None] = {
        "srun": srun_problem,
        "mpirun": mpirun_problem,
        "horovodrun": ssh_problem,
    }
    usable = [name for name in LAUNCHERS if problems[name] is None]
    if wanted == "auto":
        if not usable:
            told = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            raise UserError(f"no launcher serves on these {nodes} nodes ({told})")
        passed = LAUNCHERS[: LAUNCHERS.index(usable[0])]
        return usable[0], [f"{name} is passed over: {problems[name]}" for name in passed]
    chosen = next(name for name in LAUNCHERS if name == wanted)
    if problems[chosen] is not None:
        instead = f"set SITE_LAUNCHER={usable[0]}" if usable else "no other launcher serves either"
        raise UserError(f"SITE_LAUNCHER={chosen}: {problems[chosen]}; {instead}")
    return chosen, []


def interpreter_of(site: Site, python: str) -> list[str]:
    """``python``, or the container's: the words that start the ranks' interpreter."""
    return [*site.container, "python"] if site.in_container else [python]
