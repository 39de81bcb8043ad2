"""Values travel between the members of a job outside Horovod: before it runs, and after it stopped.

Members meet in the same order everywhere, and each meeting has a name. A member that fails goes to
the last meeting at once, so that the others may find it there while they look for it elsewhere.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from megdet_hvd.comm.mpi_wait import Interrupted, wait_for
from megdet_hvd.comm.position import waiting
from megdet_hvd.job.mpi_exchange import allgather_values, receive_value, send_value
from megdet_hvd.job.rendezvous import meet
from megdet_hvd.serialize import dumps

_FAILURE_TAG = 1


class Meeting(ABC):
    """How the members of a job meet."""

    rank: int
    """This member, 0…size-1."""
    size: int
    """Number of members."""
    private = True
    """Whether nobody else can read what is told."""

    def gather(self, value: Any, name: str) -> list[Any]:
        """``value`` of every member, by rank, on every member. All members call it together.

        Raises:
            Interrupted: a member met under another name: it has failed.
        """
        with waiting(f"megdet.meeting.{name}", range(self.size)):
            found = self._gather((name, value))
        others = {rank: other for rank, (other, _) in enumerate(found) if other != name}
        if others:
            raise Interrupted(f"meeting {name}: ranks {[*others]} are at {[*others.values()]}")
        return [value for _, value in found]

    def tell_failure(self) -> None:
        """Let the others know at once that this member has failed, where there is a way."""
        return None

    def heard_of_failure(self) -> bool:
        """Whether another member has told that it failed."""
        return False

    def close(self) -> None:
        """Give back what was made for the meetings. All members call it together."""
        return None

    @abstractmethod
    def _gather(self, value: Any) -> list[Any]: ...


class SingleMemberMeeting(Meeting):
    """One member."""

    rank, size = 0, 1

    def _gather(self, value: Any) -> list[Any]:
        dumps(value)  # what cannot travel is refused here, too, and not first among several
        return [value]


class StoreMeeting(Meeting):
    """Over the store of ``horovodrun --gloo``."""

    private = False

    def __init__(self, rank: int, size: int, environ: Mapping[str, str]) -> None:
        self.rank, self.size, self._environ = rank, size, environ

    def _gather(self, value: Any) -> list[Any]:
        # Members come to the last meeting after as many steps as they like to take.
        return meet(value, self.rank, self.size, self._environ, wait_s=None)


class MpiMeeting(Meeting):
    """Over a duplicate of an mpi4py communicator, so that the caller's own messages never mix."""

    def __init__(self, communicator: Any) -> None:
        """All members call it together."""
        self._communicator = communicator.Dup()
        self.rank: int = communicator.Get_rank()
        self.size: int = communicator.Get_size()
        self._told: list[Any] = []

    def _gather(self, value: Any) -> list[Any]:
        wait_for(self._communicator.Ibarrier())
        return allgather_values(self._communicator, value)

    def tell_failure(self) -> None:
        """A message to each other member."""
        if not self._told:
            others = [rank for rank in range(self.size) if rank != self.rank]
            self._told = [send_value(self._communicator, True, r, _FAILURE_TAG) for r in others]

    def heard_of_failure(self) -> bool:
        """Whether such a message has come; about a microsecond."""
        from mpi4py import MPI

        return bool(self._communicator.Iprobe(source=MPI.ANY_SOURCE, tag=_FAILURE_TAG))

    def close(self) -> None:
        """Take in what was told and free the duplicate."""
        tellers = allgather_values(self._communicator, bool(self._told))
        for rank, told in enumerate(tellers):
            if told and rank != self.rank:
                receive_value(self._communicator, rank, _FAILURE_TAG)
        for request in self._told:
            request.Wait()
        self._communicator.Free()
