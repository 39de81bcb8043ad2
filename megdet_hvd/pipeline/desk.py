"""Orders to evaluate, and results, between the first trainer and the evaluators.

Orders go to every evaluator by itself, so that idle ones look for messages and never wait in a
collective; results come from the first. MPI keeps the messages between two ranks in order.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.comm.meeting import wait_for
from megdet_hvd.comm.position import go_outside

_ORDER, _RESULT = 1, 2
_LOOK_EVERY_S = 0.05


@dataclass(frozen=True)
class Order:
    """A checkpoint to be evaluated."""

    path: Path
    iteration: int
    epoch: float


@dataclass(frozen=True)
class Result:
    """What an evaluation found."""

    order: Order
    ap: float
    ap50: float
    images: int
    metrics: dict[str, Any]
    """For a line of metrics."""


class TrainersDesk:
    """Rank 0's end."""

    def __init__(self, communicator: Any, evaluators: tuple[int, ...]) -> None:
        """``communicator`` is mpi4py's, of all ranks, for these messages alone."""
        self._communicator, self.evaluators = communicator, evaluators
        self._sent: list[Any] = []

    def order(self, order: Order | None) -> None:
        """Send an order to all evaluators; None: there will be no more. Does not wait."""
        self._sent = [request for request in self._sent if not request.Test()]
        for rank in self.evaluators:
            self._sent.append(self._communicator.isend(order, dest=rank, tag=_ORDER))

    def results(self) -> list[Result]:
        """The results that have come. Does not wait."""
        found = []
        first = self.evaluators[0]
        while self._communicator.Iprobe(source=first, tag=_RESULT):
            found.append(self._communicator.recv(source=first, tag=_RESULT))
        return found

    def close(self) -> None:
        """Wait until all orders have been taken."""
        for request in self._sent:
            wait_for(request)
        self._sent = []


class EvaluatorsDesk:
    """An evaluator's end."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def next_order(self) -> Order | None:
        """The next order, whenever it comes; None: there will be no more."""
        go_outside("waiting for a checkpoint")
        while not self._communicator.Iprobe(source=0, tag=_ORDER):
            time.sleep(_LOOK_EVERY_S)
        order: Order | None = self._communicator.recv(source=0, tag=_ORDER)
        return order

    def report(self, result: Result) -> None:
        """Send a result; from the first evaluator only. It is taken between two steps."""
        wait_for(self._communicator.isend(result, dest=0, tag=_RESULT))
