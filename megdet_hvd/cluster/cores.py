"""Which cores a process takes: an even share of its machine that stays within one NUMA node.

Launchers bind tasks, or don't; only a job's driver knows what was asked for, and says so in
MEGDET_CPUS_PER_TASK. A process that the launcher bound stays where it is.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

from megdet_hvd.wording import number_ranges


@dataclass(frozen=True)
class CoreShare:
    """The cores of one process."""

    cores: tuple[int, ...]
    """Ascending numbers."""
    bind: bool
    """Whether the process has to be bound to them; False: it may already run on these alone."""
    reason: str
    """How it came to them, in words."""

    def __str__(self) -> str:
        return f"{number_ranges(self.cores, ',')} ({self.reason})"


def read_cpu_list(text: str) -> tuple[int, ...]:
    """Linux's ``0-3,8`` as (0, 1, 2, 3, 8)."""
    cores: list[int] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return tuple(cores)


def share_cores(
    allowed: Set[int],
    numa: Sequence[Sequence[int]],
    local_rank: int,
    local_size: int,
    cpus_per_task: int,
) -> CoreShare:
    """The cores of local rank ``local_rank``, disjoint from those of the others.

    Args:
        allowed: cores that this process may run on.
        numa: the machine's NUMA nodes, each with its cores in physical order (the threads of a
            core side by side); empty: unknown.
        local_rank: this process among those of its machine.
        local_size: processes on its machine.
        cpus_per_task: cores that were asked for, for each process.
    """
    there = tuple(sorted(allowed))
    if len(there) <= cpus_per_task:
        short = f"; {cpus_per_task} were asked for" if len(there) < cpus_per_task else ""
        return CoreShare(there, False, f"as the launcher left it{short}")
    machine = {core for node in numa for core in node}
    if len(there) < cpus_per_task * local_size and not machine <= allowed:
        # A part of the machine, larger than a share: a socket, say, that the launcher bound us
        # to. Only it knows who else is there.
        return CoreShare(there, False, "as the launcher bound it")
    size = min(cpus_per_task, len(there) // local_size)
    if size == 0:
        return CoreShare(there, False, f"shared by {local_size} processes, which are more")
    nodes = [[core for core in node if core in allowed] for node in numa]
    nodes.append([core for core in there if core not in machine])
    place = _place([node for node in nodes if node], local_rank, local_size, size)
    short = f"; {cpus_per_task} were asked for" if size < cpus_per_task else ""
    return CoreShare(tuple(sorted(place)), True, f"a share of {len(there)}{short}")


def _place(
    nodes: Sequence[Sequence[int]], local_rank: int, local_size: int, size: int
) -> Sequence[int]:
    """``size`` cores; local ranks fill the nodes in order, as many in each as its size is."""
    room = [len(node) // size for node in nodes]
    if sum(room) < local_size:
        everything = [core for node in nodes for core in node]
        return everything[local_rank * size : (local_rank + 1) * size]
    counts = [0] * len(nodes)
    for _ in range(local_size):
        # The next process goes where it leaves most cores a process.
        free = [i for i in range(len(nodes)) if counts[i] < room[i]]
        counts[max(free, key=lambda i: (len(nodes[i]) / (counts[i] + 1), -i))] += 1
    position = local_rank
    for node, count in zip(nodes, counts, strict=True):
        if position < count:
            return node[position * size : (position + 1) * size]
        position -= count
    raise AssertionError("the counts of all nodes are local_size together")
