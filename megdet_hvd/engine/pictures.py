"""The pictures of a run folder, drawn anew after each evaluation. Rank 0 only."""

from dataclasses import dataclass

from megdet_hvd.comm.world import World
from megdet_hvd.data.factory import DataSets
from megdet_hvd.engine.log import LOGGER
from megdet_hvd.engine.run_folder import RunFolder
from megdet_hvd.evaluation.evaluate import Evaluation


@dataclass
class RunPictures:
    """Draws the curves, and detections beside their ground truth."""

    folder: RunFolder
    data: DataSets
    world: World

    def draw(self, found: Evaluation) -> None:
        """Refresh both; a picture that can't be drawn is named in the log and costs nothing."""
        if not self.world.is_main or self.data.val is None:
            return
        from megdet_hvd.report.curves import draw_curves
        from megdet_hvd.report.detections import draw_detections

        try:
            draw_curves(self.folder.metrics, self.folder.curves)
            draw_detections(self.data.val, found.detections, self.folder.detections)
        except OSError as error:
            LOGGER.warning(f"the pictures could not be drawn: {error}")
