"""A run's evaluations by other ranks: training goes on, and results come when they are ready."""

import time
from collections.abc import Callable, Collection
from pathlib import Path

from megdet_hvd.checkpoint.naming import iteration_of, list_checkpoints
from megdet_hvd.checkpoint.retention import mark_best, prune_checkpoints
from megdet_hvd.comm.position import go_outside, waiting
from megdet_hvd.engine.evaluations import Evaluations, evaluation_due
from megdet_hvd.engine.log import LOGGER
from megdet_hvd.engine.metrics import Metrics
from megdet_hvd.engine.pictures import RunPictures
from megdet_hvd.engine.prepare import Run
from megdet_hvd.pipeline.desk import Order, Result, TrainersDesk
from megdet_hvd.report.metrics_file import read_metrics

_LOOK_EVERY_S = 0.05
_BEHIND = 3
"""So many checkpoints outstanding are worth a warning."""


class Alongside(Evaluations):
    """Hands checkpoints to the evaluators. All that it does, it does on rank 0.

    A checkpoint says nothing of its own mmAP, which is not known when it is written; ``best.pt``
    and the metrics are brought up to date when the result comes. What a run that was stopped did
    not get back is handed over again when it is carried on: whatever of its checkpoints was due
    and has no line in the metrics.
    """

    needs_checkpoint = True

    def __init__(
        self, run: Run, metrics: Metrics | None, pictures: RunPictures, desk: TrainersDesk | None
    ) -> None:
        """``desk`` and ``metrics`` are rank 0's; None elsewhere."""
        self._run, self._metrics, self._pictures, self._desk = run, metrics, pictures, desk
        self._due = False
        self._outstanding: dict[int, Order] = {}
        run.ap = None

    @property
    def protected(self) -> Collection[Path]:
        """The checkpoints that evaluators have not done with."""
        return [order.path for order in self._outstanding.values()]

    def begin(self) -> None:
        """Hand over again what was due and has no result."""
        run = self._run
        run.evaluation_due = False
        if self._metrics is None:
            return
        lines = read_metrics(run.folder.metrics).eval
        known = [line["AP"] for line in lines if line["iteration"] and line.get("AP") is not None]
        run.best_ap = max([*known, *([] if run.best_ap is None else [run.best_ap])], default=None)
        measured = {line["iteration"] for line in lines}
        end = run.derived.end_iteration
        for path in list_checkpoints(run.folder.checkpoints):
            iteration = iteration_of(path)
            if iteration is None or iteration > run.iteration or iteration in measured:
                continue
            if evaluation_due(run, iteration, end):
                self._hand_over(path, iteration)

    def measure(self) -> None:
        """The next checkpoint is to be evaluated."""
        self._due = True
        self._run.evaluation_due = False

    def saved(self, path: Path | None) -> None:
        """Hand it over, if an evaluation is due."""
        if self._due and path is not None and self._metrics is not None:
            self._hand_over(path, self._run.iteration)
        self._due = False

    def look(self) -> None:
        """Take in the results that have come."""
        if self._desk is not None:
            for result in self._desk.results():
                self._take_in(result)

    def finish(self) -> None:
        """Wait for all results, on rank 0; the others wait for rank 0 at the program's end."""
        if self._desk is None:
            return
        if self._outstanding:
            LOGGER.info(f"waiting for {len(self._outstanding)} evaluations")
        while self._outstanding:
            with waiting("evaluation results", self._desk.evaluators):
                while not (results := self._desk.results()):
                    time.sleep(_LOOK_EVERY_S)
            go_outside("results of evaluations")
            for result in results:
                self._take_in(result)

    def _hand_over(self, path: Path, iteration: int) -> None:
        assert self._desk is not None, "rank 0 has one"
        run = self._run
        epoch = iteration * run.config.global_batch / len(run.data.train)
        order = self._outstanding[iteration] = Order(path, iteration, epoch)
        self._desk.order(order)
        if len(self._outstanding) == _BEHIND:
            LOGGER.warning(
                f"warning: evaluation is {_BEHIND} checkpoints behind training, which are kept "
                "until then; raise pipeline.evaluators or evaluation.every_epochs"
            )

    def _take_in(self, result: Result) -> None:
        assert self._metrics is not None, "rank 0 has them"
        run, order = self._run, result.order
        self._metrics.write("eval", order.iteration, epoch=order.epoch, **result.metrics)
        LOGGER.info(
            f"validation after iteration {order.iteration} (epoch {order.epoch:.2f}): mmAP "
            f"{result.ap:.3f}, AP@.5 {result.ap50:.3f} on {result.images} pictures; training is "
            f"at iteration {run.iteration}"
        )
        # The untrained model is measured for comparison, not to be kept.
        if order.iteration and (run.best_ap is None or result.ap > run.best_ap):
            run.best_ap = result.ap
            mark_best(order.path)
        del self._outstanding[order.iteration]
        prune_checkpoints(run.folder.checkpoints, run.config.checkpoint.keep, self.protected)
        self._pictures.draw_curves()


def alongside(desk: TrainersDesk | None) -> Callable[..., Evaluations]:
    """For :func:`megdet_hvd.engine.run.execute`."""

    def measure(run: Run, metrics: Metrics | None, pictures: RunPictures) -> Evaluations:
        return Alongside(run, metrics, pictures, desk)

    return measure
