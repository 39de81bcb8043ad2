"""Training pictures in memory, as training sees them: for what is measured at fixed weights."""

from typing import TYPE_CHECKING

from megdet_hvd.config.schema import Config
from megdet_hvd.errors import RunError

if TYPE_CHECKING:
    from megdet_hvd.data.batch import Batch
    from megdet_hvd.data.index import ImageIndex


def training_batches(
    index: "ImageIndex", config: Config, images: int, count: int, first: int = 0
) -> "list[Batch]":
    """``count`` batches of ``images`` pictures from the stream of epochs, from batch ``first`` on.

    Raises:
        RunError: a picture can't be read.
    """
    from megdet_hvd.data.loader import TrainLoader

    loader = TrainLoader(
        index,
        config.data,
        seed=config.seed,
        global_batch=images,
        accumulation=1,
        rank=0,
        world_size=1,
        start_iteration=first,
        end_iteration=first + count,
    )
    batches = [batch for (batch,) in loader]
    for batch in batches:
        if batch.failed or batch.unreadable:
            raise RunError(f"a picture can't be read: {[*batch.failed, *batch.unreadable][0]}")
    return batches
