"""Values travel between the members of a job outside Horovod: before it runs, and after it stopped.

How they meet follows from the launch, here and nowhere else (:func:`meeting_of`): over MPI, over
the launcher's store, or alone.

Members meet in the same order everywhere, and each meeting has a name. A member that fails goes to
the last meeting at once, so that the others may find it there while they look for it elsewhere.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

from megdet_hvd.cluster.launch import Launch
from megdet_hvd.comm.mpi_wait import Interrupted, wait_for
from megdet_hvd.comm.position import waiting
from megdet_hvd.job.launch_check import check_mpi
from megdet_hvd.job.mpi_exchange import (
    allgather_values,
    broadcast_value,
    gather_values,
    receive_value,
    send_value,
)
from megdet_hvd.job.rendezvous import meet, meet_and_decide
from megdet_hvd.serialize import dumps

T = TypeVar("T")

_FAILURE_TAG = 1
WaitLimit = float | Literal["start"] | None
"""Seconds for members to come; ``start``: as long as so many may take to start; None: for ever."""


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
        if elsewhere := _elsewhere(found, name):
            raise Interrupted(elsewhere)
        return [value for _, value in found]

    def decide(self, value: Any, name: str, decide: Callable[[list[Any]], T]) -> T:
        """What ``decide`` makes of every member's ``value``, on every member. All call it together.

        Values go to rank 0 alone, which calls ``decide`` with all of them, by rank; it must not
        raise, since the others would wait. What it returns goes to all: with many members, much
        less than all of their values.

        Raises:
            Interrupted: as in :meth:`gather`.
        """

        def of_all(found: list[Any]) -> tuple[str, Any]:
            elsewhere = _elsewhere(found, name)
            return elsewhere, None if elsewhere else decide([value for _, value in found])

        with waiting(f"megdet.meeting.{name}", range(self.size)):
            elsewhere, decided = self._decide((name, value), of_all)
        if elsewhere:
            raise Interrupted(elsewhere)
        result: T = decided
        return result

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

    @abstractmethod
    def _decide(self, value: Any, decide: Callable[[list[Any]], Any]) -> Any: ...


def _elsewhere(found: Sequence[Sequence[Any]], name: str) -> str:
    """Which members came to another meeting than this one, in words; empty: none."""
    others = {rank: other for rank, (other, _) in enumerate(found) if other != name}
    return f"meeting {name}: ranks {[*others]} are at {[*others.values()]}" if others else ""


class SingleMemberMeeting(Meeting):
    """One member."""

    rank, size = 0, 1

    def _gather(self, value: Any) -> list[Any]:
        dumps(value)  # what cannot travel is refused here, too, and not first among several
        return [value]

    def _decide(self, value: Any, decide: Callable[[list[Any]], Any]) -> Any:
        return decide(self._gather(value))


class StoreMeeting(Meeting):
    """Over the store of ``horovodrun --gloo``."""

    private = False

    def __init__(
        self, rank: int, size: int, environ: Mapping[str, str], wait_s: WaitLimit = None
    ) -> None:
        self.rank, self.size, self._environ, self._wait_s = rank, size, environ, wait_s

    def _gather(self, value: Any) -> list[Any]:
        return meet(value, self.rank, self.size, self._environ, wait_s=self._wait_s)

    def _decide(self, value: Any, decide: Callable[[list[Any]], Any]) -> Any:
        return meet_and_decide(
            value, decide, self.rank, self.size, self._environ, wait_s=self._wait_s
        )


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

    def _decide(self, value: Any, decide: Callable[[list[Any]], Any]) -> Any:
        wait_for(self._communicator.Ibarrier())
        found = gather_values(self._communicator, value)
        return broadcast_value(self._communicator, None if found is None else decide(found))

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


def meeting_of(launch: Launch, communicator: Any = None, *, wait_s: WaitLimit = None) -> Meeting:
    """How the processes of a launch meet. All of them call it together.

    Args:
        launch: what started them.
        communicator: mpi4py's, whose processes are the members; None: all that were launched.
        wait_s: how long the launcher's store is asked for those that are missing. None where
            members come to a meeting after as many steps as they like to take.
    """
    if communicator is not None:
        return MpiMeeting(communicator)
    if launch.controller == "single":
        return SingleMemberMeeting()
    if launch.controller == "gloo":
        return StoreMeeting(launch.rank or 0, launch.size or 1, os.environ, wait_s)
    # MPI started by mpi4py outlives hvd.shutdown(); started by Horovod it would not.
    from mpi4py import MPI

    return MpiMeeting(MPI.COMM_WORLD)


@contextmanager
def meeting_at_start(launch: Launch, communicator: Any = None) -> Iterator[Meeting]:
    """A meeting of processes that start just now: they are waited for as long as starting takes.

    Raises:
        RunError: under Gloo, a process did not come.
        UserError: MPI does not find the processes that the launcher started.
    """
    if communicator is None:
        check_mpi(launch)
    meeting = meeting_of(launch, communicator, wait_s="start")
    yield meeting
    meeting.close()  # not where one has failed: the others may never come


def rank_0_decides(make: Callable[[], T], launch: Launch) -> T:
    """What ``make`` returns on rank 0, on every process of the job. All call it together.

    ``make`` is called on rank 0 alone and must not raise: the others would wait. Files that it
    reads may look different from other machines; nobody else looks.

    Raises:
        RunError, UserError: as :func:`meeting_at_start`.
    """
    with meeting_at_start(launch) as meeting:
        own = make() if meeting.rank == 0 else None
        decided: T = meeting.decide(own, "rank 0 decides", lambda told: told[0])
    return decided
