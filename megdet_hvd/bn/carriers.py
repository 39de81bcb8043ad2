"""The one thing a CGBN layer asks of the outside: sum this vector over my group."""

import zlib
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from megdet_hvd.comm.groups import BnGroup
from megdet_hvd.comm.mpi_sums import MpiSums
from megdet_hvd.comm.peer.sums import PeerSums
from megdet_hvd.comm.position import waiting
from megdet_hvd.errors import UserError


class Carrier(ABC):
    """Sums a vector over the processes of a group; all of them call it in the same order."""

    name: str
    """As ``bn.carrier`` has it."""
    host_waits = True
    """Whether the host waits for the sum, or only the GPU's stream that it is on."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        self.ranks = ranks
        """The group, global ranks."""

    @property
    def size(self) -> int:
        """Number of processes in the group."""
        return len(self.ranks)

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """The sum over the group, on every member. ``name`` is equal on all of them.

        ``vector`` may be overwritten.
        """
        if not self.host_waits:
            return self._sum(vector, name)
        with waiting(name, self.ranks, vector.numel()):
            return self._sum(vector, name)

    @abstractmethod
    def _sum(self, vector: Tensor, name: str) -> Tensor: ...


class SingleProcessCarrier(Carrier):
    """A group of one process: nothing to send."""

    name = "none"

    def __init__(self) -> None:
        super().__init__((0,))

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """The vector itself."""
        return vector

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        return vector


class HorovodCarrier(Carrier):
    """``hvd.allreduce`` on a process set, on CPU and GPU alike."""

    name = "horovod"

    def __init__(self, process_set: Any, ranks: tuple[int, ...]) -> None:
        """``process_set`` is a Horovod ProcessSet that this process belongs to."""
        super().__init__(ranks)
        self.process_set = process_set

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        import horovod.torch as hvd

        total: Tensor = hvd.allreduce_(vector, name=name, op=hvd.Sum, process_set=self.process_set)
        return total


_NAMES = 8191
"""Different checksums: 2,048 times the largest is still exact in float32."""


class MpiCarrier(Carrier):
    """mpi4py's Allreduce on the group's own communicator. CPU tensors, under MPI launchers.

    Between ranks of one machine it goes through shared memory at once, where Horovod's thread
    takes a cycle of about a millisecond. MPI's sums have no names, so that processes out of step
    would mix layers up in silence: each vector travels with a checksum of its name.
    """

    name = "mpi"

    def __init__(self, sums: MpiSums, ranks: tuple[int, ...]) -> None:
        """``sums`` are those of exactly ``ranks``."""
        super().__init__(ranks)
        self._sums = sums

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        if not vector.is_cpu:
            raise UserError(
                f"bn.carrier=mpi sums CPU tensors, and {name} is on {vector.device}: "
                "set bn.carrier=horovod on GPUs"
            )
        own = float(zlib.crc32(name.encode()) % _NAMES)
        message = torch.cat([vector, vector.new_tensor([own])])
        self._sums.add_up(message.numpy())
        if message[-1].item() != own * self.size:
            raise RuntimeError(
                f"ranks {list(self.ranks)} do not sum the same thing: this one sums {name}, "
                "another one something else; every rank must run the same BN layers in the same "
                "order"
            )
        return message[:-1]


class PeerCarrier(Carrier):
    """The GPUs of one machine write into each other's memory (:mod:`megdet_hvd.comm.peer`).

    The host never waits: a sum is an operation of the GPU's stream, as a convolution is. Where one
    is lost, it and all later ones are nan, and the step ends in an error before weights change.
    """

    name = "peer"
    host_waits = False

    def __init__(self, sums: PeerSums) -> None:
        super().__init__(sums.ranks)
        self._sums = sums

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        self._sums.add_up(vector, name)
        return vector


def carrier_of(group: BnGroup | None, kind: str = "horovod") -> Carrier:
    """The carrier ``kind`` for a group; None or one rank: nothing to send.

    Raises:
        UserError: ``mpi`` where MPI did not start the job, or ``peer`` where it was not opened.
    """
    if group is None or len(group.ranks) == 1:
        return SingleProcessCarrier()
    if kind == "peer":
        if group.peer is None:
            raise UserError(
                "bn.carrier=peer needs megdet_hvd.job.peer.open_peer_sums(world, device), called "
                "by all ranks after megdet_hvd.job.session.start(), and serves the BN group of "
                "the session: call it, or set bn.carrier=horovod"
            )
        return PeerCarrier(group.peer)
    if kind == "mpi":
        if group.sums is None:
            raise UserError(
                "bn.carrier=mpi needs the communicator that megdet_hvd.job.session.start() makes "
                "for the BN group where MPI started the job (mpirun, horovodrun --mpi, srun "
                "--mpi=pmix) and gives MPI_THREAD_MULTIPLE; there is none here: set "
                "bn.carrier=horovod"
            )
        return MpiCarrier(group.sums, group.ranks)
    return HorovodCarrier(group.process_set, group.ranks)
