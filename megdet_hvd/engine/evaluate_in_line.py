"""The detector is measured here and now: all processes stop training meanwhile."""

from megdet_hvd.comm.position import go_outside
from megdet_hvd.engine.evaluations import Evaluations
from megdet_hvd.engine.periods import due_by_epochs
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.engine.run_folder.pictures import RunPictures
from megdet_hvd.engine.validation import Validation
from megdet_hvd.job import stopping


def evaluation_due(run: Run, iteration: int, end: int) -> bool:
    """Whether the detector is measured after step ``iteration`` of a run that ends at ``end``."""
    every = run.config.evaluation.every_epochs
    size, batch = len(run.data.train), run.config.global_batch
    return iteration == end or due_by_epochs(iteration, every, size, batch)


class InLine(Evaluations):
    """All processes stop training, measure, and go on."""

    def __init__(self, run: Run, metrics: Metrics | None, pictures: RunPictures) -> None:
        assert run.data.val is not None, "there is something to measure on"
        self._run, self._pictures = run, pictures
        self._validation = Validation(
            run.data.val, run.config, run.world, run.folder, metrics, run.shared_statistics
        )

    def begin(self) -> bool:
        """Make up for an evaluation that was broken off."""
        due = self._run.evaluation_due
        if due:
            self.measure()
        return due

    def measure(self) -> None:
        """Evaluate; the result is the run's newest mmAP. A wish to stop breaks it off."""
        run = self._run
        go_outside("evaluation")
        run.evaluation_due = True
        try:
            found = self._validation.run(run.detector, run.iteration, run.epoch)
        except stopping.StopRequested as broken_off:
            run.stopped = str(broken_off)
            return
        run.evaluation_due = False
        run.ap, run.measured_at = found.result.ap, run.iteration
        self._pictures.draw(found)
