"""The pictures of a run folder, drawn anew after each evaluation. Rank 0 only."""

from dataclasses import dataclass, field

from megdet_hvd.comm.world import World
from megdet_hvd.data.factory import DataSets
from megdet_hvd.engine.run_folder import RunFolder
from megdet_hvd.engine.spare import Spare
from megdet_hvd.evaluation.evaluate import Evaluation


@dataclass
class RunPictures:
    """Draws the curves, and detections beside their ground truth."""

    folder: RunFolder
    data: DataSets
    world: World
    _spare: Spare = field(default_factory=lambda: Spare("a picture"))

    def draw(self, found: Evaluation) -> None:
        """Refresh both after an evaluation."""
        self.draw_curves()
        if not self.world.is_main or self.data.val is None:
            return
        from megdet_hvd.report.detections import draw_detections

        with self._spare.writing():
            draw_detections(self.data.val, found.detections, self.folder.detections)

    def draw_curves(self) -> None:
        """Refresh the curves."""
        if not self.world.is_main or not self.folder.metrics.exists():
            return
        from megdet_hvd.report.curves import draw_curves

        with self._spare.writing():
            draw_curves(self.folder.metrics, self.folder.curves)
