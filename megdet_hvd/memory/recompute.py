"""Segments of the detector recomputed: forward twice, statistics and random numbers once.

Autograd builds the same graph as without (``use_reentrant=False``: only what its nodes saved is
computed again), so gradients add up in the same order and come out bit for bit the same. What
repeats the first computation is in :mod:`megdet_hvd.memory.checkpointing`.
"""

from typing import Any

import torch
from torch import nn

from megdet_hvd.memory.checkpointing import checkpoint
from megdet_hvd.memory.segments import Mode, Segment, segments


class Recomputed:
    """A module's method, whose activations are dropped and computed again in the backward pass.

    It hides the method of that name on one instance (``module.forward = Recomputed(…)``). The
    module's class, state-dict keys and hooks stay; it can be copied and pickled. In evaluation
    mode, and where no gradients are asked for, it is the method itself.
    """

    def __init__(self, owner: nn.Module, method: str) -> None:
        self.owner = owner
        self.method = method

    def __call__(self, *inputs: Any) -> Any:
        """What the method gives for the ``inputs``."""
        compute = getattr(type(self.owner), self.method).__get__(self.owner)
        if not (self.owner.training and torch.is_grad_enabled()):
            return compute(*inputs)
        return checkpoint(compute, *inputs)


def recompute_segments(detector: nn.Module, mode: Mode) -> list[Segment]:
    """Recompute the segments of ``mode`` from now on; returns them. ``none`` takes it all back."""
    for module in detector.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Recomputed):
                delattr(module, name)
    found = segments(detector, mode)
    for segment in found:
        setattr(segment.owner, segment.method, Recomputed(segment.owner, segment.method))
    return found
