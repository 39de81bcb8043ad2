"""The one thing a CGBN layer asks of the outside: sum this vector over my group."""

from typing import Any, Protocol

from torch import Tensor

from megdet_hvd.comm import groups


class Carrier(Protocol):
    """Sums a vector over the processes of a group; all of them call it in the same order."""

    size: int
    """Number of processes in the group."""

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """The sum over the group, on every member. ``name`` is equal on all of them."""
        ...


class Alone:
    """A group of one process: nothing to send."""

    size = 1

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """The vector itself."""
        return vector


class HorovodCarrier:
    """``hvd.allreduce`` on a process set, on CPU and GPU alike."""

    def __init__(self, process_set: Any) -> None:
        """``process_set`` is a Horovod ProcessSet that this process belongs to."""
        self.process_set = process_set
        self.size = int(process_set.size())

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """The sum, by one named collective."""
        import horovod.torch as hvd

        total: Tensor = hvd.allreduce(vector, name=name, op=hvd.Sum, process_set=self.process_set)
        return total


def carrier_for(process_set: Any | None) -> Carrier:
    """The carrier of a process set; None: the set of this process's own machine."""
    chosen = groups.machine_set() if process_set is None else process_set
    if chosen is None or chosen.size() == 1:
        return Alone()
    return HorovodCarrier(chosen)
