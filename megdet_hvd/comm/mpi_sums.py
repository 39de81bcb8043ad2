"""Sums over mpi4py on the communicator of a BN group, out of which a member can be taken.

MPI has no way to give up a collective. So a member that is taken out of one keeps the request, and
:meth:`MpiSums.settle` completes it: the members that did not come to it join in with zeros.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.comm.mpi_wait import Interrupted, wait_for
from megdet_hvd.serialize import serializable

_SPIN_S, _SLEEP_S = 50e-6, 20e-6
"""A blocking MPI call spins until the slowest rank has come, and so takes a core, or half of one,
from the rank that is waited for. This one spins for a moment only, then looks now and then.
"""
_LISTEN_AFTER_S = 0.05
"""So long nobody asks whether a member has failed: most sums are there by then."""
_SETTLE_S = 5.0

_abandoned: list[Any] = []
"""Requests that can't be completed, with their buffers, which MPI may still write to."""


@serializable
@dataclass(frozen=True)
class SumsState:
    """How far a member is with its group's sums."""

    begun: int
    """Number of sums that it has come to."""
    length: int = 0
    """Of the vector that it waits for; 0: it does not wait."""
    dtype: str = ""


class MpiSums:
    """The sums of one group."""

    def __init__(self, communicator: Any, interrupted: Callable[[], bool] | None = None) -> None:
        """``communicator`` is for these sums alone. ``interrupted``: whether to leave a wait."""
        self._communicator = communicator
        self._interrupted = interrupted
        self._begun = 0
        self._left: list[tuple[Any, NDArray[Any]]] = []

    def add_up(self, vector: NDArray[Any]) -> None:
        """Replace ``vector`` by its sum over the group. All members call it in the same order.

        Raises:
            Interrupted: another member has failed.
        """
        from mpi4py import MPI

        request = self._communicator.Iallreduce(MPI.IN_PLACE, vector)
        self._begun += 1
        began = time.perf_counter()
        listen_at = began + _LISTEN_AFTER_S
        while not request.Test():
            now = time.perf_counter()
            if now > began + _SPIN_S:
                time.sleep(_SLEEP_S)
            if self._interrupted is not None and now > listen_at:
                if self._interrupted():
                    self._left.append((request, vector))
                    raise Interrupted("another member failed while this one waited for a sum")
                listen_at = now + _LISTEN_AFTER_S

    def standing(self) -> SumsState:
        """To be told to the other members of the group before :meth:`settle`."""
        if not self._left:
            return SumsState(self._begun)
        vector = self._left[0][1]
        return SumsState(self._begun, vector.size, vector.dtype.str)

    def settle(self, standings: Sequence[SumsState]) -> None:
        """Complete the sums that members were taken out of. All of the group call it together.

        ``standings`` are those of all members of the group.
        """
        from mpi4py import MPI

        awaited = {standing.begun: standing for standing in standings if standing.length}
        if any(s.length and s != awaited[s.begun] for s in standings):
            return  # vectors that differ can't be summed
        for number, standing in sorted(awaited.items()):
            if self._begun == number - 1:
                vector = np.zeros(standing.length, standing.dtype)
                self._left.append((self._communicator.Iallreduce(MPI.IN_PLACE, vector), vector))
                self._begun += 1
        end = time.monotonic() + _SETTLE_S
        while self._left and wait_for(self._left[0][0], until=lambda: time.monotonic() > end):
            del self._left[0]

    def close(self) -> None:
        """Free the communicator, unless MPI still works on it. All of the group call it."""
        if self._left:
            _abandoned.append((self._left, self._communicator))
        else:
            self._communicator.Free()
