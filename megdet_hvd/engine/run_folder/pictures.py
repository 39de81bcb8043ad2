"""The pictures of a run folder, drawn anew after each evaluation. Rank 0 only."""

from dataclasses import dataclass, field
from pathlib import Path

from megdet_hvd.data.factory import DataSets
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.engine.run_folder.best_effort import BestEffort
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.evaluation.evaluate import Evaluation
from megdet_hvd.job.world import World
from megdet_hvd.report.growing_metrics import GrowingMetrics


@dataclass
class RunPictures:
    """Draws the curves, and detections beside their ground truth."""

    folder: RunFolder
    data: DataSets
    world: World
    _curves: BestEffort = field(default_factory=lambda: BestEffort("the picture of the curves"))
    _metrics: GrowingMetrics = field(init=False)
    _detections: BestEffort = field(default_factory=lambda: BestEffort("the picture of detections"))

    def __post_init__(self) -> None:
        self._metrics = GrowingMetrics(self.folder.metrics)

    def draw(self, found: Evaluation) -> None:
        """Refresh both after an evaluation."""
        self.draw_curves()
        if self.world.is_main and self.data.val is not None:
            draw_found(self.data.val, found, self.folder.detections, self._detections)

    def draw_curves(self) -> None:
        """Refresh the curves."""
        if not self.world.is_main:
            return
        with self._curves.writing():
            from megdet_hvd.report.curves import draw_curves

            if self.folder.metrics.exists():
                draw_curves(self._metrics.read(), self.folder.curves)


def draw_found(index: ImageIndex, found: Evaluation, file: Path, best_effort: BestEffort) -> None:
    """Detections on pictures of ``index`` beside their ground truth, into ``file``."""
    with best_effort.writing():
        from megdet_hvd.report.detections import draw_detections

        draw_detections(index, found.detections, file)
