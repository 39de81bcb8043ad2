"""The Cross-GPU Batch Normalisation layer (§3.3, Figure 3)."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.bn.carriers import Carrier, carrier_for
from megdet_hvd.bn.function import GroupNormalise
from megdet_hvd.bn.tape import Statistics, recording_tape, replaying_tape

_unnamed = itertools.count()


class CrossGPUBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose training statistics are those of all processes of a group.

    Input and output (N, C, H, W); N may be 0 on some processes of the group, and H and W may
    differ between them. State-dict keys are those of nn.BatchNorm2d; in eval mode it *is*
    nn.BatchNorm2d and sends nothing. The biased variance normalises, the unbiased one (with the
    group's n) goes into the running statistics.

    In training mode every process of the group must call it, in the same order: one collective
    forward and one backward, named after the layer.

    Args:
        process_set: a Horovod ProcessSet; None: the processes of this machine, as in the paper.

    Raises:
        ValueError: the whole group holds one value per channel (on all its processes).
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        process_set: Any | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        self.process_set = process_set
        self.message_name = f"cgbn.unnamed.{next(_unnamed)}"
        self._carrier: Carrier | None = None

    @property
    def carrier(self) -> Carrier:
        """Who sums for this layer; found at first use, since Horovod must be running."""
        if self._carrier is None:
            self._carrier = carrier_for(self.process_set)
        return self._carrier

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in training mode with the statistics of the group."""
        self._check_input_dim(input)
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        if not self.training and not self.track_running_stats:
            # nn.BatchNorm2d uses the batch's own statistics here, and so do we: no messages.
            return super().forward(input)
        replaying, recording = replaying_tape(), recording_tape()
        known = None if replaying is None else replaying.recall(self)
        y: Tensor
        y, n, mean, variance = GroupNormalise.apply(
            input, self.weight, self.bias, self.eps, self.carrier, self.message_name, known
        )
        if recording is not None:
            recording.note(self, Statistics(n, mean, variance))
        if self.training and self.track_running_stats and known is None:
            self._update_running(n, mean, variance)
        return y

    @torch.no_grad()
    def _update_running(self, n: Tensor, mean: Tensor, variance: Tensor) -> None:
        """Move running to (1 − m)·running + m·statistic; an empty group changes nothing."""
        if self.running_mean is None or self.running_var is None or n == 0:
            return
        factor = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None:
                factor = 1.0 / float(self.num_batches_tracked)
        unbiased = variance * (n / (n - 1))
        assert factor is not None
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles find their group anew: it belongs to a Horovod session."""
        return {**self.__dict__, "_carrier": None}
