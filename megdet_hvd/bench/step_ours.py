"""One side of ``bench step``: the detector and the loop of a run of ours, on a batch in memory."""

from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING

from megdet_hvd.bench.detector import CLASSES
from megdet_hvd.bench.step_counts import StepCounts
from megdet_hvd.config.schema import Config
from megdet_hvd.data.batch import Batch

if TYPE_CHECKING:
    import torch

    from megdet_hvd.job.world import World
    from megdet_hvd.model.detector import Detector

STEPS_A_PASS = 1000
"""Of the made-up data set, so that the rate hardly moves."""


def build_ours(config: Config, device: "torch.device") -> "Detector":
    """The detector as a run builds it, in training mode."""
    from megdet_hvd.bn import convert_cross_gpu_bn
    from megdet_hvd.model.build import build_detector, local_norm

    detector = build_detector(config.model, CLASSES, local_norm(config.model), seed=config.seed)
    if config.model.norm == "cgbn":
        convert_cross_gpu_bn(detector)
    detector.to(device).train()
    return detector


def our_step(
    detector: "Detector", config: Config, world: "World", device: "torch.device", batch: Batch
) -> Callable[[], None]:
    """A call takes one step: what the engine does from the batch to the changed weights.

    CGBN's sums run on the kernels that a run would take. Horovod runs already. ``batch`` is on the
    CPU; where the device is a GPU, its pictures go into pinned memory first, where the loader lays
    them.
    """
    import torch

    from megdet_hvd.config.derive import derive
    from megdet_hvd.engine.bn_kernels import find_bn_kernels
    from megdet_hvd.engine.step.loop import train_steps
    from megdet_hvd.engine.step.optimizer import build_optimizer

    if device.type == "cuda":
        with torch.cuda.device(device):
            batch = replace(batch, images=batch.images.pin_memory())
    if kernels := find_bn_kernels(detector, config, world, device):
        kernels.put_to_use(detector)
    pictures = STEPS_A_PASS * config.global_batch
    derived = derive(config, pictures, world.size, [len(ranks) for ranks in world.machines])
    steps = train_steps(
        detector,
        build_optimizer(detector, config),
        None,
        repeat([batch]),
        config,
        derived,
        world,
        device,
        start_iteration=0,
    )

    def step() -> None:
        next(steps)

    return step


def our_counts(detector: "Detector", config: Config, batch: Batch) -> StepCounts:
    """What a step works on, by a forward pass outside of the measurement."""
    import torch

    from megdet_hvd.model.device import autocast
    from megdet_hvd.model.normalise import normalise

    device = batch.images.device
    sizes = [info.size for info in batch.infos]
    canvas = (batch.images.shape[-2], batch.images.shape[-1])
    with torch.no_grad(), autocast(config.precision, device):
        pixels = normalise(batch.images, sizes, torch.float32)
        proposals = detector.rpn.propose(detector.rpn(detector.backbone(pixels), canvas), sizes)
        detector(batch)
    balance = detector.sample_balance
    return StepCounts(
        canvas=(len(batch), *canvas),
        proposals=sum(len(own.all_valid()) for own in proposals),
        anchors=sum(drawn.all for drawn in balance.rpn),
        boxes=sum(drawn.all for drawn in balance.box),
    )
