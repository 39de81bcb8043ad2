"""Called by several ranks: steps of a detector that computes next to nothing, one rank late.

What is slow is a sleep, so that other work on the machine changes little.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, name_layers
from megdet_hvd.config.derive import derive
from megdet_hvd.config.load import load_config
from megdet_hvd.data.batch import Batch, ImageInfo
from megdet_hvd.engine.step.loop import train_steps
from megdet_hvd.engine.step.optimizer import build_optimizer
from megdet_hvd.engine.step.time_split import time_split
from megdet_hvd.job.session import start, stop
from megdet_hvd.model.balance import SampleBalance, drawn
from megdet_hvd.model.detector import LOSSES

STEPS = 12


class Small(nn.Module):
    """Two CGBN layers, the slow part between them, four losses."""

    def __init__(self, sleep_s: float) -> None:
        super().__init__()
        self.first = CrossGPUBatchNorm2d(3)
        self.second = CrossGPUBatchNorm2d(3)
        name_layers(self)
        self.sleep_s = sleep_s
        self.sample_balance = SampleBalance(drawn([1], [2]), drawn([1], [2]))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x = self.first(batch.images.float())
        time.sleep(self.sleep_s)
        loss = self.second(x).square().mean(dim=(1, 2, 3))
        return dict.fromkeys(LOSSES, loss)


def batches(sleep_s: float) -> Iterator[list[Batch]]:
    images = torch.arange(3 * 64, dtype=torch.uint8).view(1, 3, 8, 8)
    info = ImageInfo(0, 0, 1, 0, (8, 8), (8, 8))
    for _ in range(STEPS):
        time.sleep(sleep_s)
        yield [Batch(images, (info,), ())]


def splits(computing_s: float, pictures_s: float) -> list[dict[str, Any]]:
    """Rank 1 takes so much longer to compute, and waits so much longer for pictures."""
    world = start()
    try:
        late = world.rank == 1
        detector: Any = Small(computing_s * late)
        config = load_config(None, [f"global_batch={world.size}"])
        steps = train_steps(
            detector,
            build_optimizer(detector, config, hold=True),
            None,
            batches(pictures_s * late),
            config,
            derive(config, 100, world.size, [world.size]),
            world,
            torch.device("cpu"),
            0,
        )
        found = [time_split(step.times, world) for step in steps]
    finally:
        stop()
    return [{**asdict(split), "line": split.line(world)} for split in found if split is not None]
