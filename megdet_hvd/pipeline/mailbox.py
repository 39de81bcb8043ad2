"""Requests to evaluate, and results, between the first trainer and the evaluators.

Requests go to every evaluator by itself, so that idle ones look for messages and never wait in a
collective; the first answers each request, so that rank 0 knows when nothing is on its way any
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

_REQUEST, _REPLY, _LOST, _LEAVES = 1, 2, 3, 4
_LOOK_EVERY_S = 0.05


@serializable
@dataclass(frozen=True)
class EvaluationRequest:
    """A checkpoint to be evaluated."""

    path: Path
    iteration: int
    epoch: float


@serializable
@dataclass(frozen=True)
class EvaluationReply:
    """What an evaluation found."""

    request: EvaluationRequest
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

    request: EvaluationRequest
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
        self.pending = 0
        """Requests that are still waited for."""
        self.lost: str | None = None
        """Why the evaluators take no more requests; None: they do."""
        self.dead = False
        """Whether their processes have ended."""

    def request(self, request: EvaluationRequest) -> None:
        """Send a request to all evaluators. Does not wait."""
        assert not self._closed, "there were to be no more"
        self._send(request)
        self.pending += 1

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
            self.pending = 0

    def _send(self, request: EvaluationRequest | None) -> None:
        self._sent = [request for request in self._sent if not request.Test()]
        for rank in self.evaluators:
            self._sent.append(send_value(self._communicator, request, rank, _REQUEST))

    def results(self) -> list[EvaluationReply | NoResult]:
        """The results that have come. Does not wait.

        Where the evaluators broke off, this process wishes to stop as well: it may not have heard.
        """
        found: list[EvaluationReply | NoResult] = []
        first = self.evaluators[0]
        while self.pending and self._communicator.Iprobe(source=first, tag=_REPLY):
            answer: EvaluationReply | NoResult | None = receive_value(
                self._communicator, first, _REPLY
            )
            self.pending -= 1
            if answer is None:
                stopping.request("a concurrent evaluation was broken off")
            else:
                found.append(answer)
        self.look_for_loss()
        return found

    def wait(self, at_most_s: float = math.inf) -> list[EvaluationReply | NoResult]:
        """The results that come first; none where all requests are answered, or after so long."""
        until = time.monotonic() + at_most_s
        with waiting("evaluation results", self.evaluators):
            while not (found := self.results()) and self.pending and time.monotonic() < until:
                time.sleep(_LOOK_EVERY_S)
        go_outside("results of evaluations")
        return found

    def request_no_more(self) -> None:
        """Tell all evaluators that there will be no more requests. A second call does nothing."""
        if not self._closed:
            self._closed = True
            if not self.dead:
                self._send(None)

    def close(self) -> None:
        """Wait until all requests have been taken and answered; results that come are dropped."""
        self.request_no_more()
        while self.pending:
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

    def next_request(self) -> EvaluationRequest | None:
        """The next request, whenever it comes; None: there will be no more."""
        go_outside("waiting for a checkpoint")
        while not self._communicator.Iprobe(source=0, tag=_REQUEST):
            time.sleep(_LOOK_EVERY_S)
        request: EvaluationRequest | None = receive_value(self._communicator, 0, _REQUEST)
        if request is None:
            wait_for(send_value(self._communicator, None, 0, _LEAVES))
        return request

    def reply(self, result: EvaluationReply | NoResult | None) -> None:
        """Answer a request, from the first evaluator only; None: the evaluation was broken off.

        It is taken between two steps, or when training has ended.
        """
        wait_for(send_value(self._communicator, result, 0, _REPLY))

    def give_up(self, reason: str) -> None:
        """Tell rank 0 that the evaluators take no more requests; the first to say so counts.

        Each evaluator says so, and then drops the requests that still come.
        """
        wait_for(send_value(self._communicator, reason, 0, _LOST))

    def drop_requests(self) -> None:
        """Return once there are no more requests."""
        while self.next_request() is not None:
            continue
