"""A run's evaluations by other ranks: training goes on, and results come when they are ready."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.checkpoint.naming import iteration_of, list_checkpoints
from megdet_hvd.checkpoint.retention import mark_best, prune_checkpoints
from megdet_hvd.engine.evaluate_in_line import InLine, evaluation_due
from megdet_hvd.engine.evaluations import Evaluations
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.run_folder.best import is_better
from megdet_hvd.engine.run_folder.best_effort import reason_of
from megdet_hvd.engine.run_folder.metrics import Metrics, lines_so_far
from megdet_hvd.engine.run_folder.pictures import RunPictures
from megdet_hvd.evaluation.coco_ap import in_short
from megdet_hvd.job import stopping
from megdet_hvd.job.agree import together
from megdet_hvd.job.exchange import broadcast_object, gather_objects
from megdet_hvd.job.log import LOGGER
from megdet_hvd.pipeline.mailbox import (
    EvaluationReply,
    EvaluationRequest,
    NoResult,
    TrainersMailbox,
)
from megdet_hvd.wording import counted

_ROUND_S = 1.0
"""At the end, rank 0 waits so long for results before all trainers ask whether to stop."""
_BEHIND = 3
"""So many checkpoints outstanding are worth a warning."""


class ConcurrentEvaluation(Evaluations):
    """Hands checkpoints to the evaluators, from rank 0; the other trainers only agree with it.

    A checkpoint says nothing of its own mmAP, which is not known when it is written; ``best.pt``
    and the metrics are brought up to date when the result comes. What a run that was stopped did
    not get back is handed over again when it is carried on: whatever of its checkpoints was due,
    the untrained model's among them, and has no line in the metrics. Those files are protected
    until then; what could never be written is not evaluated.

    Once the evaluators are lost, training goes on, and from the next evaluation on the trainers
    measure in line; what had been handed over stays without a result, the last step's aside.
    """

    needs_checkpoint = True

    def __init__(
        self,
        run: Run,
        metrics: Metrics | None,
        pictures: RunPictures,
        mailbox: TrainersMailbox | None,
    ) -> None:
        """``mailbox`` and ``metrics`` are rank 0's; None elsewhere."""
        self._run, self._metrics, self._pictures, self._mailbox = run, metrics, pictures, mailbox
        self._due = False
        self._outstanding: dict[int, EvaluationRequest] = {}
        self._unmeasured: dict[int, EvaluationRequest] = {}
        """What was handed over, and got no result since the evaluators were lost."""
        self._line: InLine | None = None
        self._loss_told = self._dark_told = False
        run.ap = run.measured_at = None

    @property
    def protected(self) -> Collection[Path]:
        """The checkpoints that evaluators have not done with."""
        return [request.path for request in self._outstanding.values()]

    def begin(self) -> bool:
        """Hand over again what was due and has no result."""
        run = self._run
        run.evaluation_due = False
        known = False
        with together(run.world, "evaluations.missing"):
            if self._metrics is not None:
                known = self._catch_up()
        return bool(broadcast_object(known, run.world, "evaluations.known"))

    def _catch_up(self) -> bool:
        run = self._run
        lines = lines_so_far(run.folder.metrics).eval
        measured = {line["iteration"]: line.get("AP") for line in lines}
        end = run.derived.end_iteration
        for path in list_checkpoints(run.folder.checkpoints):
            iteration = iteration_of(path)
            if iteration is None or iteration > run.iteration:
                continue
            if iteration in measured:
                if iteration > run.compared_after:
                    self._keep_if_best(path, iteration, measured[iteration])
                continue
            untrained = iteration == 0 and run.config.evaluation.untrained
            if untrained or evaluation_due(run, iteration, end):
                self._hand_over(path, iteration)
        return run.iteration in measured or run.iteration in self._outstanding

    def measure(self) -> None:
        """The next checkpoint is to be evaluated; without evaluators: evaluate here and now."""
        run = self._run
        if broadcast_object(self._are_lost(), run.world, "evaluations.lost"):
            self._measure_in_line()
            return
        self._due = True
        run.evaluation_due = False

    def saved(self, path: Path | None) -> None:
        """Hand it over, if an evaluation is due. The next one would be another iteration's."""
        if self._due and self._metrics is not None:
            if path is not None:
                self._hand_over(path, self._run.iteration)
            else:
                LOGGER.error(
                    f"error: iteration {self._run.iteration} is not evaluated, since its "
                    "checkpoint could not be written"
                )
        self._due = False

    def look(self) -> None:
        """Take in the results that have come."""
        if self._mailbox is not None:
            for result in self._mailbox.results():
                self._take_in(result)
            self._note_loss()

    def finish(self) -> None:
        """Wait for all results. A request to stop ends that: ``stopped`` of the run says why.

        No checkpoint follows then: that of the last step is there, and :meth:`begin` finds what is
        missing.
        """
        run = self._run
        if self._outstanding:
            LOGGER.info(f"waiting for {counted(len(self._outstanding), 'evaluation')}")
        while True:
            if self._mailbox is not None:
                for result in self._mailbox.wait(at_most_s=_ROUND_S):
                    self._take_in(result)
                self._note_loss()
            again = run.iteration in self._unmeasured
            own = len(self._outstanding), stopping.wanted(), again
            found = gather_objects(own, run.world, "evaluations")
            outstanding, _, again = found[0]  # rank 0 knows
            if not outstanding:
                if again:
                    self._measure_again()
                return
            run.stopped = next((reason for _, reason, _ in found if reason is not None), None)
            if run.stopped is not None:
                run.evaluation_due = True  # results come in order: the last is among the missing
                return

    def close(self) -> None:
        """Take in what still comes; what was broken off stays protected."""
        if self._mailbox is not None:
            self._mailbox.request_no_more()
            while self._mailbox.pending:
                for result in self._mailbox.wait():
                    self._take_in(result)
            self._note_loss()

    def _hand_over(self, path: Path, iteration: int) -> None:
        assert self._mailbox is not None, "rank 0 has one"
        run = self._run
        epoch = iteration * run.config.global_batch / len(run.data.train)
        request = EvaluationRequest(path, iteration, epoch)
        if self._mailbox.lost is not None:
            self._unmeasured[iteration] = request
            return
        self._outstanding[iteration] = request
        self._mailbox.request(request)
        if len(self._outstanding) == _BEHIND:
            LOGGER.warning(
                f"warning: evaluation is {_BEHIND} checkpoints behind training, which are kept "
                "until then; raise pipeline.evaluators or evaluation.every_epochs"
            )

    def _are_lost(self) -> bool:
        self.look()
        return self._mailbox is not None and self._mailbox.lost is not None

    def _note_loss(self) -> None:
        """Rank 0: once the evaluators are lost, say so, and wait for them no more."""
        mailbox = self._mailbox
        if mailbox is None or mailbox.lost is None or self._loss_told:
            return
        self._loss_told = True
        self._unmeasured.update(self._outstanding)
        missing = ", ".join(map(str, self._outstanding))
        self._outstanding.clear()
        without = f"; without a result: iterations {missing}" if missing else ""
        LOGGER.error(
            f"error: concurrent evaluation has ended: {mailbox.lost}. Training goes on, and "
            f"evaluates in line from here on{without}"
        )

    def _measure_in_line(self) -> None:
        if self._line is None:
            self._line = InLine(self._run, self._metrics, self._pictures)
        self._line.measure()

    def _measure_again(self) -> None:
        """The last step's checkpoint is there, and nobody else will measure it."""
        run = self._run
        self._measure_in_line()
        request = self._unmeasured.pop(run.iteration, None)
        if run.stopped is None and request is not None:
            self._keep_if_best(request.path, request.iteration, run.own_ap)

    def _take_in(self, result: EvaluationReply | NoResult) -> None:
        assert self._metrics is not None, "rank 0 has them"
        run, request = self._run, result.request
        if isinstance(result, NoResult):
            LOGGER.error(
                f"error: iteration {request.iteration} is not evaluated: {result.reason}. Training "
                "goes on"
            )
            del self._outstanding[request.iteration]
            self._prune(request.iteration)
            return
        if result.dark is not None and not self._dark_told:
            self._dark_told = True
            LOGGER.warning(f"warning: validation: {result.dark}")
        run.still_ours()
        # Marked first: where this process is killed in between, the result is asked for again.
        self._keep_if_best(request.path, request.iteration, result.ap)
        self._metrics.write("eval", request.iteration, epoch=request.epoch, **result.metrics)
        LOGGER.info(
            f"validation after iteration {request.iteration} (epoch {request.epoch:.2f}): "
            f"{in_short(result.ap, result.ap50, result.images)}; training is at iteration "
            f"{run.iteration}"
        )
        del self._outstanding[request.iteration]
        self._prune(request.iteration)
        self._pictures.draw_curves()

    def _keep_if_best(self, path: Path, iteration: int, ap: float | None) -> None:
        """The untrained model is measured for comparison, not to be kept."""
        if iteration and is_better(ap, self._run.best_ap):
            self._run.still_ours()
            with self._told(iteration):
                mark_best(path)
                self._run.best_ap = ap

    def _prune(self, iteration: int) -> None:
        run = self._run
        run.still_ours()
        with self._told(iteration):
            prune_checkpoints(
                run.folder.checkpoints,
                run.config.checkpoint.keep,
                self.protected,
                own=run.own_checkpoints,
            )

    @contextmanager
    def _told(self, iteration: int) -> Iterator[None]:
        """What goes wrong with files is said: rank 0 alone knows it, and the others go on."""
        try:
            yield
        except Exception as error:
            LOGGER.error(f"error: checkpoints after iteration {iteration}: {reason_of(error)}")


def evaluate_concurrently(mailbox: TrainersMailbox | None) -> Callable[..., Evaluations]:
    """For :func:`megdet_hvd.engine.run.execute`."""

    def measure(run: Run, metrics: Metrics | None, pictures: RunPictures) -> Evaluations:
        return ConcurrentEvaluation(run, metrics, pictures, mailbox)

    return measure
