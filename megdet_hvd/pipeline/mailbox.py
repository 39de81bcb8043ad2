"""Orders to evaluate, and results, between the first trainer and the evaluators.

Orders go to every evaluator by itself, so that idle ones look for messages and never wait in a
collective; the first answers each order, so that rank 0 knows when nothing is on its way any
more. MPI keeps the messages between two ranks in order.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megdet_hvd.comm.mpi_wait import wait_for
from megdet_hvd.comm.position import go_outside, waiting
from megdet_hvd.job import stopping
from megdet_hvd.job.mpi_exchange import receive_value, send_value
from megdet_hvd.serialize import serializable
from megdet_hvd.wording import ranks_in_words

_ORDER, _ANSWER, _LOST, _LEAVES = 1, 2, 3, 4
_LOOK_EVERY_S = 0.05


@serializable
@dataclass(frozen=True)
class Order:
    """A checkpoint to be evaluated."""

    path: Path
    iteration: int
    epoch: float


@serializable
@dataclass(frozen=True)
class EvaluationReply:
    """What an evaluation found."""

    order: Order
    ap: float | None
    ap50: float | None
    images: int
    metrics: dict[str, Any]
    """For a line of metrics."""
    dark: str | None = None
    """What to say of pictures that came out all but black; None: they are few, or none."""


@serializable
@dataclass(frozen=True)
class NoResult:
    """An evaluation that failed; the evaluators go on with the next."""

    order: Order
    reason: str


class TrainersMailbox:
    """Rank 0's end."""

    def __init__(
        self,
        communicator: Any,
        evaluators: tuple[int, ...],
        died: Callable[[], Sequence[int]] = lambda: (),
    ) -> None:
        """``communicator`` is mpi4py's, of all ranks, for these messages alone.

        ``died`` says which evaluators' processes have ended.
        """
        self._communicator, self.evaluators, self._died = communicator, evaluators, died
        self._sent: list[Any] = []
        self._closed = False
        self.unanswered = 0
        """Orders that are still waited for."""
        self.lost: str | None = None
        """Why the evaluators take no more orders; None: they do."""
        self.dead = False
        """Whether their processes have ended."""

    def order(self, order: Order) -> None:
        """Send an order to all evaluators. Does not wait."""
        assert not self._closed, "there were to be no more"
        self._send(order)
        self.unanswered += 1

    def look_for_loss(self) -> None:
        """Whether the evaluators are still there; once they are not, nothing is waited for."""
        for rank in self.evaluators:
            if self._communicator.Iprobe(source=rank, tag=_LOST):
                reason = str(receive_value(self._communicator, rank, _LOST))
                self.lost = self.lost or reason
        dead = self._died()
        if dead and not self.dead:
            self.dead = True
            self.lost = self.lost or f"the process of {ranks_in_words(dead)} has ended"
        if self.lost is not None:
            self.unanswered = 0

    def _send(self, order: Order | None) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        for rank in self.evaluators:
            self._sent.append(send_value(self._communicator, order, rank, _ORDER))

    def results(self) -> list[EvaluationReply | NoResult]:
        """The results that have come. Does not wait.

        Where the evaluators broke off, this process asks for a stop as well: it may not have heard.
        """
        found: list[EvaluationReply | NoResult] = []
        first = self.evaluators[0]
        while self.unanswered and self._communicator.Iprobe(source=first, tag=_ANSWER):
            answer: EvaluationReply | NoResult | None = receive_value(
                self._communicator, first, _ANSWER
            )
            self.unanswered -= 1
            if answer is None:
                stopping.request("an evaluation alongside was broken off")
            else:
                found.append(answer)
        self.look_for_loss()
        return found

    def wait(self, at_most_s: float = math.inf) -> list[EvaluationReply | NoResult]:
        """The results that come first; none where all orders are answered, or after so long."""
        until = time.monotonic() + at_most_s
        with waiting("evaluation results", self.evaluators):
            while not (found := self.results()) and self.unanswered and time.monotonic() < until:
                time.sleep(_LOOK_EVERY_S)
        go_outside("results of evaluations")
        return found

    def order_no_more(self) -> None:
        """Tell all evaluators that there will be no more orders. A second call does nothing."""
        if not self._closed:
            self._closed = True
            if not self.dead:
                self._send(None)

    def close(self) -> None:
        """Wait until all orders have been taken and answered; results that come are dropped."""
        self.order_no_more()
        while self.unanswered:
            self.wait()
        leaving = set(self.evaluators)
        with waiting("evaluators that leave", self.evaluators):
            while leaving and not self.dead:
                leaving -= {r for r in leaving if self._communicator.Iprobe(source=r, tag=_LEAVES)}
                self.look_for_loss()
                time.sleep(_LOOK_EVERY_S)
        go_outside("finishing the run")
        if self.dead:  # nobody takes what was sent
            return
        for rank in self.evaluators:
            receive_value(self._communicator, rank, _LEAVES)
        for request in self._sent:
            wait_for(request)
        self._sent = []


class EvaluatorsMailbox:
    """An evaluator's end."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def next_order(self) -> Order | None:
        """The next order, whenever it comes; None: there will be no more."""
        go_outside("waiting for a checkpoint")
        while not self._communicator.Iprobe(source=0, tag=_ORDER):
            time.sleep(_LOOK_EVERY_S)
        order: Order | None = receive_value(self._communicator, 0, _ORDER)
        if order is None:
            wait_for(send_value(self._communicator, None, 0, _LEAVES))
        return order

    def answer(self, result: EvaluationReply | NoResult | None) -> None:
        """Answer an order, from the first evaluator only; None: the evaluation was broken off.

        It is taken between two steps, or when training has ended.
        """
        wait_for(send_value(self._communicator, result, 0, _ANSWER))

    def give_up(self, reason: str) -> None:
        """Tell rank 0 that the evaluators take no more orders; the first of them to say so counts.

        Each evaluator says so, and then drops the orders that still come.
        """
        wait_for(send_value(self._communicator, reason, 0, _LOST))

    def drop_orders(self) -> None:
        """Return once there are no more orders."""
        while self.next_order() is not None:
            continue
