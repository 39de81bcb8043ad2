"""Training steps of the package's own loop on the pretended device."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, name_layers, use_fused_kernels
from megdet_hvd.bn.carriers import Carrier
from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.data.batch import Batch
from megdet_hvd.engine.step.loop import Step, train_steps
from megdet_hvd.job.world import World
from megdet_hvd.model.build import build_detector, local_norm
from megdet_hvd.model.detector import Detector
from tests.bn.fused_emulation import emulated_kernels

ALONE = World(rank=0, size=1, machines=((0,),))


class SameCarrier(Carrier):
    """A group of two of which the other adds nothing: the host's part of a sum that never waits."""

    name = "same"

    def __init__(self) -> None:
        super().__init__((0, 1))

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        return vector


class Optimizer(torch.optim.SGD):
    """SGD with what Horovod's wrapper adds, for one process."""

    def synchronize(self) -> None:
        """Nothing is on its way."""

    def skip_synchronize(self) -> AbstractContextManager[None]:
        """So."""
        return nullcontext()


def cgbn_detector(config: ModelConfig, classes: int) -> Detector:
    """With CGBN layers of a group that is there; on the CPU."""
    detector = build_detector(config, classes, CrossGPUBatchNorm2d, seed=0)
    name_layers(detector)
    for layer in detector.modules():
        if isinstance(layer, CrossGPUBatchNorm2d):
            layer.carrier = SameCarrier()
    return detector


def use_emulated(
    model: nn.Module, dtype: torch.dtype, noted: Callable[[str], None] = lambda _: None
) -> None:
    """Give its CGBN layers kernels of their own, emulated; ``noted``: told of each launch."""
    # Small blocks, which take the CPU less time; a launch is a launch.
    kernels = emulated_kernels(torch.device("cuda", 0), [dtype], block=16, noted=noted)
    use_fused_kernels(model, kernels)


def plain_detector(config: ModelConfig, classes: int) -> Detector:
    """With norm layers that need no other process."""
    return build_detector(config, classes, local_norm(config), seed=0)


def steps_on(
    device: torch.device, detector: Detector, passes: Sequence[Batch], number: int
) -> Iterator[Step]:
    """Take ``number`` steps, each with the same ``passes``."""
    images = max(1, sum(map(len, passes)))
    words = (f"global_batch={images}", f"device={device.type}", "precision=float32")
    config = load_config(None, [*words])
    detector.to(device)
    optimizer = Optimizer(
        [p for p in detector.parameters() if p.requires_grad], lr=0.001, momentum=0.9
    )
    derived: Any = SimpleNamespace(schedule=SimpleNamespace(rate_at=lambda images: 0.001))
    steps = iter([list(passes)] * number)
    yield from train_steps(detector, optimizer, None, steps, config, derived, ALONE, device, 0)
