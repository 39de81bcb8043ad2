"""Running statistics of all layers of a model on a GPU, moved together when its forward pass ends.

Layer by layer that is four small kernels each, two hundred in a ResNet-50; together they are ten.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from megdet_hvd.bn.tape import Statistics


class RunningStatistics(NamedTuple):
    """A layer's buffers."""

    mean: Tensor
    """(C,)."""
    variance: Tensor
    """(C,), unbiased."""
    batches: Tensor | None
    """() int64, how many went into them."""


class LaterUpdates:
    """Updates that wait for :meth:`make`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[RunningStatistics, Statistics, float]] = []

    def add(self, running: RunningStatistics, found: Statistics, factor: float) -> None:
        """``running`` is to become (1 − factor)·running + factor·found."""
        if any(other.mean is running.mean for other, _, _ in self._waiting):
            self.make()  # a layer called twice: one after the other
        self._waiting.append((running, found, factor))

    @torch.no_grad()
    def make(self) -> None:
        """Make them now."""
        waiting, self._waiting = self._waiting, []
        alike: dict[tuple[float, torch.dtype], list[tuple[RunningStatistics, Statistics]]] = {}
        for running, found, factor in waiting:
            alike.setdefault((factor, running.mean.dtype), []).append((running, found))
        for (factor, _), pairs in alike.items():
            move_running([running for running, _ in pairs], [found for _, found in pairs], factor)
        batches = [running.batches for running, _, _ in waiting if running.batches is not None]
        if batches:
            torch._foreach_add_(batches, 1)


def move_running(
    running: Sequence[RunningStatistics], found: Sequence[Statistics], factor: float | Tensor
) -> None:
    """Each of ``running``, all of one type, to (1 − factor)·running + factor·found.

    ``factor`` may be () on the device.
    """
    kept = running[0].mean.dtype
    old = [*(one.mean for one in running), *(one.variance for one in running)]
    means = [one.mean if one.rounded is None else one.rounded for one in found]
    new = [*(mean.to(kept) for mean in means), *_unbiased(found, kept)]
    if isinstance(factor, Tensor):
        for target, value in zip(old, new, strict=True):
            target.lerp_(value, factor)
    else:
        torch._foreach_lerp_(old, new, factor)


def _unbiased(found: Sequence[Statistics], kept: torch.dtype) -> list[Tensor]:
    """σ²·n/(n − 1) of each, (C,)."""
    n = torch.stack([one.n for one in found])
    sizes = [len(one.variance) for one in found]
    ratios = [r.expand(size) for r, size in zip((n / (n - 1)).unbind(), sizes, strict=True)]
    variances = torch.cat([one.variance for one in found]).mul_(torch.cat(ratios))
    return list(variances.to(kept).split(sizes))
