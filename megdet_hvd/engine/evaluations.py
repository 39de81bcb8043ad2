"""How the detector is measured during a run: here and now, or alongside by other processes."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from megdet_hvd.comm.position import go_outside
from megdet_hvd.engine.metrics import Metrics
from megdet_hvd.engine.periods import due_by_epochs
from megdet_hvd.engine.pictures import RunPictures
from megdet_hvd.engine.prepare import Run
from megdet_hvd.engine.validation import Validation
from megdet_hvd.job import stopping


def evaluation_due(run: Run, iteration: int, end: int) -> bool:
    """Whether the detector is measured after step ``iteration`` of a run that ends at ``end``."""
    every = run.config.evaluation.every_epochs
    size, batch = len(run.data.train), run.config.global_batch
    return iteration == end or due_by_epochs(iteration, every, size, batch)


class Evaluations(ABC):
    """The evaluations of a run. All its processes call each method together."""

    needs_checkpoint = False
    """Whether a checkpoint must be written where an evaluation is due."""

    @property
    def protected(self) -> Collection[Path]:
        """Checkpoints that must not be deleted yet."""
        return ()

    @abstractmethod
    def begin(self) -> bool:
        """The run begins, or is carried on: make up for what is missing.

        Returns:
            Whether the detector as it is now is among it, or had been measured before.
        """

    @abstractmethod
    def measure(self) -> None:
        """An evaluation of the detector as it is now is due."""

    def saved(self, path: Path | None) -> None:
        """The checkpoint of the detector as it is now has been written; None: it could not be."""
        return None

    def look(self) -> None:
        """Between two steps: take in results that have come."""
        return None

    def finish(self) -> None:
        """The last step is done: wait for what is outstanding, or until the job shall stop."""
        return None

    def close(self) -> None:
        """The run ends, whether at its end or stopped: nothing more is measured."""
        return None


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
