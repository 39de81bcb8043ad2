"""Segments of the detector recomputed: forward twice, statistics and random numbers once.

Autograd builds the same graph as without (``use_reentrant=False``: only what its nodes saved is
computed again), so gradients add up in the same order and come out bit for bit the same. What
repeats the first computation is in :mod:`megdet_hvd.memory.checkpointing`.
"""

from typing import Any

import torch
from torch import nn
from torchvision.models.detection.faster_rcnn import (
    FastRCNNConvFCHead,
    FastRCNNPredictor,
    TwoMLPHead,
)
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import (
    Conv2dNormActivation,
    FeaturePyramidNetwork,
    FrozenBatchNorm2d,
    MultiScaleRoIAlign,
)
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from megdet_hvd.memory.checkpointing import checkpoint
from megdet_hvd.memory.segments import Mode, Segment, segments

DRAWS_NOTHING: frozenset[type[nn.Module]] = frozenset(
    (
        *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, FrozenBatchNorm2d, nn.ReLU, nn.MaxPool2d),
        *(nn.Sequential, nn.ModuleList, nn.Flatten, nn.Identity, Conv2dNormActivation),
        *(BasicBlock, Bottleneck, FeaturePyramidNetwork, LastLevelMaxPool, RPNHead),
        *(TwoMLPHead, FastRCNNConvFCHead, FastRCNNPredictor, MultiScaleRoIAlign),
    )
)
"""Layers without random numbers; ours have none either."""


class Recomputed:
    """A module's method, whose activations are dropped and computed again in the backward pass.

    It hides the method of that name on one instance (``module.forward = Recomputed(…)``). The
    module's class, state-dict keys and hooks stay; it can be copied and pickled. In evaluation
    mode, and where no gradients are asked for, it is the method itself.
    """

    def __init__(self, owner: nn.Module, method: str, *, random: bool = True) -> None:
        """``random``: whether it may draw random numbers, which the second time are the first's.

        To keep the generators' state costs a copy a call, and on a GPU another one of its own.
        """
        self.owner = owner
        self.method = method
        self.random = random

    def __call__(self, *inputs: Any) -> Any:
        """What the method gives for the ``inputs``."""
        compute = getattr(type(self.owner), self.method).__get__(self.owner)
        if not (self.owner.training and torch.is_grad_enabled()):
            return compute(*inputs)
        return checkpoint(compute, *inputs, preserve_rng_state=self.random)


def recompute_segments(detector: nn.Module, mode: Mode) -> list[Segment]:
    """Recompute the segments of ``mode`` from now on; returns them. ``none`` takes it all back."""
    for module in detector.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Recomputed):
                delattr(module, name)
    found = segments(detector, mode)
    for segment in found:
        random = any(map(may_draw, segment.parts))
        setattr(
            segment.owner, segment.method, Recomputed(segment.owner, segment.method, random=random)
        )
    return found


def may_draw(part: nn.Module) -> bool:
    """Whether ``part`` may draw random numbers: it has dropout, or layers not known here."""
    kinds = {type(module) for module in part.modules()} - DRAWS_NOTHING
    return any(not kind.__module__.startswith("megdet_hvd.") for kind in kinds)
