"""Gloo carries Horovod's messages in a job that MPI started.

Horovod 0.28.1 crashes where MPI coordinates and Gloo carries (``HOROVOD_CPU_OPERATIONS=gloo`` under
``mpirun``): ``InitializeFromMPI`` in gloo_context.cc connects a context that no operation uses, and
that of the process sets stays empty. So Gloo coordinates as well there, as under ``horovodrun
--gloo``; the store that this launcher keeps is kept by rank 0 here.
"""

import http.client
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from megdet_hvd.errors import RunError
from megdet_hvd.job.mpi_exchange import allgather_values, broadcast_value
from megdet_hvd.job.rendezvous import ask_store
from megdet_hvd.job.watch.channel import addresses
from megdet_hvd.job.world import Machines

_CONNECT_S = 5.0
_MARK = "megdet_hvd/store"
"""Where rank 0 lays a nonce in its store, by which the others know it."""


def wants_gloo(environ: Mapping[str, str]) -> bool:
    """Whether the user asks for Gloo, by either of Horovod's variables."""
    names = ("HOROVOD_CPU_OPERATIONS", "HOROVOD_CONTROLLER")
    return any(environ.get(name, "").strip().lower() == "gloo" for name in names)


@dataclass(frozen=True)
class Slot:
    """Where a rank stands."""

    rank: int
    size: int
    machine: int
    local_rank: int
    local_size: int
    cross_rank: int
    """Position among the processes of all machines that have its local rank."""
    cross_size: int

    @property
    def hostname(self) -> str:
        """Tells machines apart, pretended ones too."""
        return f"machine{self.machine}"

    def variables(self) -> dict[str, str]:
        """As horovodrun would set them."""
        return {
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_HOSTNAME": self.hostname,
            "HOROVOD_RANK": str(self.rank),
            "HOROVOD_SIZE": str(self.size),
            "HOROVOD_LOCAL_RANK": str(self.local_rank),
            "HOROVOD_LOCAL_SIZE": str(self.local_size),
            "HOROVOD_CROSS_RANK": str(self.cross_rank),
            "HOROVOD_CROSS_SIZE": str(self.cross_size),
        }


def slots(machines: Machines) -> list[Slot]:
    """The slot of every rank."""
    size = sum(map(len, machines))
    found = []
    for number, ranks in enumerate(machines):
        for local_rank, rank in enumerate(ranks):
            across = [m for m, others in enumerate(machines) if len(others) > local_rank]
            slot = Slot(
                rank, size, number, local_rank, len(ranks), across.index(number), len(across)
            )
            found.append(slot)
    return sorted(found, key=lambda slot: slot.rank)


class OwnStore:
    """The store of one Horovod session."""

    def __init__(self, communicator: Any, machines: Machines) -> None:
        """Rank 0 opens it; all ranks of ``communicator`` call this together.

        Raises:
            RunError: rank 0's machine can't be reached over TCP.
        """
        from horovod.runner.common.util.hosts import SlotInfo
        from horovod.runner.http.http_server import RendezvousServer

        plan = slots(machines)
        self._server: Any = None
        nonce = secrets.token_hex(16).encode()
        where: tuple[list[str], int, bytes] | None = None
        if communicator.Get_rank() == 0:
            self._server = RendezvousServer()
            port = self._server.start()
            self._server.init(
                [
                    SlotInfo(
                        s.hostname,
                        s.rank,
                        s.local_rank,
                        s.cross_rank,
                        s.size,
                        s.local_size,
                        s.cross_size,
                    )
                    for s in plan
                ]
            )
            ask_store("127.0.0.1", port, "PUT", _MARK, nonce)
            where = addresses(loopback=len(machines) == 1), port, nonce
        names, port, nonce = broadcast_value(communicator, where)
        address = _reachable(names, port, nonce)
        missing = [r for r, a in enumerate(allgather_values(communicator, address)) if a is None]
        if address is None or missing:
            self.close()
            raise RunError(
                f"ranks {missing} can't reach rank 0 over TCP ({', '.join(names)}, port {port}), "
                "which Gloo needs; let connections pass between the nodes, or let MPI carry the "
                "messages: unset HOROVOD_CPU_OPERATIONS and HOROVOD_CONTROLLER"
            )
        self.variables = {
            **plan[communicator.Get_rank()].variables(),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        }
        """For Horovod's start."""

    def close(self) -> None:
        """Close it, once Horovod runs on all ranks."""
        if self._server is not None:
            self._server.stop()
            self._server = None


def _reachable(names: list[str], port: int, nonce: bytes) -> str | None:
    """The first address at which rank 0's own store answers: others may listen at such a port."""
    for name in names:
        with suppress(OSError, http.client.HTTPException):
            if ask_store(name, port, "GET", _MARK, timeout_s=_CONNECT_S) == nonce:
                return name
    return None
