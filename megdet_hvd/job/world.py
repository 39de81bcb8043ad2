"""Who takes part: ranks, and the machines they stand on. Pure values."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from megdet_hvd.grouping import grouped

Machines = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class World:
    """All processes of the job, as this one sees them."""

    rank: int
    """This process, 0…size-1."""
    size: int
    """Number of processes."""
    machines: Machines
    """Ranks of each machine, ascending; machines in order of their first rank."""
    cores: int = 1
    """CPU cores for this process."""
    launcher: str = "python"
    """Who started the processes."""
    horovod: tuple[str, ...] = ()
    """What Horovod's variables were set to, in words; empty where all are its own."""
    hosts: tuple[str, ...] = ()
    """Host name of each machine."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes the files."""
        return self.rank == 0

    @property
    def machine(self) -> int:
        """Index of this process's machine."""
        return next(i for i, ranks in enumerate(self.machines) if self.rank in ranks)

    @property
    def local_ranks(self) -> tuple[int, ...]:
        """The ranks of this process's machine."""
        return self.machines[self.machine]

    @property
    def local_rank(self) -> int:
        """Position among the ranks of this machine."""
        return self.local_ranks.index(self.rank)

    @property
    def local_size(self) -> int:
        """Number of processes on this machine."""
        return len(self.local_ranks)


def machine_names(hosts: Sequence[str]) -> tuple[str, ...]:
    """What to call each machine: its host name, with a number where another has it too."""
    return tuple(
        host if hosts.count(host) == 1 else f"{host} (machine {i + 1})"
        for i, host in enumerate(hosts)
    )


def machines_of(keys: Sequence[Hashable]) -> Machines:
    """Group ranks by the key of their machine (``keys[rank]``), in order of first appearance."""
    machines = grouped(range(len(keys)), keys.__getitem__)
    return tuple(tuple(ranks) for ranks in machines.values())
