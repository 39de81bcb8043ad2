"""Evaluation during a run: numbers into the metrics, pictures into the run folder."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from megdet_hvd.bn.running import averaged_running_statistics
from megdet_hvd.config.schema import Config
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.engine.run_folder.folder import RunFolder
from megdet_hvd.engine.run_folder.metrics import Metrics
from megdet_hvd.evaluation.coco_ap import in_short
from megdet_hvd.evaluation.evaluate import Evaluation, evaluate_detector
from megdet_hvd.evaluation.measures import OwnMeasure, own_numbers
from megdet_hvd.job.log import LOGGER
from megdet_hvd.job.world import World


@dataclass
class Validation:
    """Measures the detector on the validation pictures, whenever asked."""

    index: ImageIndex
    config: Config
    world: World
    folder: RunFolder
    metrics: Metrics | None
    """None on ranks other than 0."""
    shared_statistics: bool
    measures: Sequence[tuple[str, OwnMeasure]] = ()
    """Of the user's own, each by its name."""
    _dark_told: bool = False

    def run(self, detector: nn.Module, iteration: int, epoch: float) -> Evaluation:
        """Evaluate after ``iteration`` steps. Every process calls it together."""
        with averaged_running_statistics(detector, self.world.size, self.shared_statistics):
            found = evaluate_detector(detector, self.index, self.config, self.world)
        if self.metrics is not None:
            result = found.result
            if found.dark is not None and not self._dark_told:
                self._dark_told = True
                LOGGER.warning(f"warning: validation: {found.dark}")
            numbers = result.as_metrics()
            numbers |= own_numbers(self.measures, found, ("kind", "iteration", "epoch", *numbers))
            self.metrics.write("eval", iteration, epoch=epoch, **numbers)
            LOGGER.info(
                f"validation after iteration {iteration} (epoch {epoch:.2f}): "
                f"{in_short(result.ap, result.ap50, result.images)}"
            )
        return found
