"""The Cross-GPU Batch Normalisation layer (§3.3, Figure 3)."""

import itertools
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.bn.carriers import Carrier, SingleProcessCarrier, carrier_of
from megdet_hvd.bn.cuda_kernels import kept_type
from megdet_hvd.bn.eager import outside_graphs, unobserved
from megdet_hvd.bn.function import GroupNormalise
from megdet_hvd.bn.fused_kernels import FusedKernels, Moving
from megdet_hvd.bn.image_groups import parts_of
from megdet_hvd.bn.later_updates import LaterUpdates, RunningStatistics
from megdet_hvd.bn.tape import (
    Statistics,
    in_segment,
    recording_tapes,
    refuse_recomputation,
    replaying_tape,
)
from megdet_hvd.comm import groups

_unnamed = itertools.count()


class CrossGPUBatchNorm2d(nn.BatchNorm2d):
    """nn.BatchNorm2d whose training statistics are those of all processes of a group.

    Input and output (N, C, H, W); N may be 0 on some processes of the group, and H and W may
    differ between them. State-dict keys are those of nn.BatchNorm2d; in eval mode it *is*
    nn.BatchNorm2d and sends nothing. The biased variance normalises, the unbiased one (with the
    group's n) goes into the running statistics.

    In training mode every process of the group must call it, in the same order: one collective
    forward and one backward, named after the layer and the number of its call.

    Args:
        process_set: a Horovod ProcessSet; None: the group that the session was started with,
            by default the processes of this machine, as in the paper.
        carrier: who sums: ``horovod``, or ``mpi`` (with ``process_set`` None only).
        images_per_statistic: split the process's own images into groups of so many, for BN sizes
            smaller than a process holds. Nothing is sent then. Where rows are boxes,
            :mod:`megdet_hvd.image_rows` says whose.

    Raises:
        ValueError: the whole group holds one value per channel (on all its processes).
        RuntimeError: a backward pass computes it again, and not through
            :func:`megdet_hvd.memory.checkpoint`.
        UserError: the carrier can't serve this job.
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
        carrier: str = "horovod",
        images_per_statistic: int | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        self.process_set = process_set
        self.carrier_kind = carrier
        self.images_per_statistic = images_per_statistic
        self.message_name = f"cgbn.unnamed.{next(_unnamed)}"
        self.next_call = 0
        self.counts_calls = False
        self.fused: FusedKernels | None = None
        """Kernels of a GPU, where :mod:`megdet_hvd.bn.fused_kernels` serves; else torch's do."""
        self.later: LaterUpdates | None = None
        """Takes updates of running statistics on a GPU, while the whole model runs forward."""
        self._carrier: Carrier | None = None
        self._session = -1

    @property
    def carrier(self) -> Carrier:
        """Who sums for this layer; found at first use, since Horovod must be running."""
        if self._carrier is None or self._session != groups.session():
            self._session = groups.session()
            if self.images_per_statistic is not None:
                self._carrier = SingleProcessCarrier()
            elif self.process_set is not None:
                self._carrier = carrier_of(groups.group_of(self.process_set), self.carrier_kind)
            else:
                self._carrier = carrier_of(groups.bn_group(), self.carrier_kind)
        return self._carrier

    @carrier.setter
    def carrier(self, carrier: Carrier) -> None:
        self._carrier, self._session = carrier, groups.session()

    def forward(self, input: Tensor) -> Tensor:
        """Normalise; in training mode with the statistics of the group."""
        self._check_input_dim(input)
        if not self.training:
            return super().forward(input)
        return self._normalise(input)

    @outside_graphs
    def _normalise(self, x: Tensor) -> Tensor:
        refuse_recomputation(self.message_name)
        with unobserved() if in_segment() else nullcontext():
            return self._of_parts(x)

    def _of_parts(self, x: Tensor) -> Tensor:
        parts = parts_of(x, self.images_per_statistic)
        moving = self._moving(x) if len(parts) == 1 else None
        done = [self._one_statistic(part, moving) for part in parts]
        if self.track_running_stats and replaying_tape() is None and moving is None:
            self._update_running([statistics for _, statistics in done])
        return done[0][0] if len(done) == 1 else torch.cat([y for y, _ in done])

    def _fused_for(self, x: Tensor) -> FusedKernels | None:
        return self.fused if self.fused is not None and self.fused.serve(x) else None

    def _moving(self, x: Tensor) -> Moving | None:
        """What fused kernels are to move in one go with the statistics; None: nothing.

        The same on all processes of the group, with images or without.
        """
        mean, variance = self.running_mean, self.running_var
        if self._fused_for(x) is None or replaying_tape() is not None or self.momentum is None:
            return None
        if not self.track_running_stats or mean is None or variance is None:
            return None
        if mean.dtype != kept_type(x) or mean.device != x.device:
            return None
        return Moving(RunningStatistics(mean, variance, self.num_batches_tracked), self.momentum)

    def _one_statistic(self, x: Tensor, moving: Moving | None) -> tuple[Tensor, Statistics]:
        replayed = replaying_tape()
        known = None if replayed is None else replayed.recall(self)
        call = self._call() if known is None else known.call
        y, n, mean, variance, rounded, inverse = GroupNormalise.apply(
            x,
            self.weight,
            self.bias,
            self.eps,
            self.carrier,
            self.message_name,
            call,
            known,
            self._fused_for(x),
            moving,
        )
        values = x.numel() // x.shape[1]
        statistics = Statistics(n, mean, variance, call, values, rounded, inverse)
        for tape in recording_tapes():
            tape.note(self, statistics)
        return y, statistics

    def _call(self) -> int:
        """Number of this call since the model's forward began: levels of a pyramid differ."""
        call = self.next_call
        if self.counts_calls:
            self.next_call += 1
        return call

    @torch.no_grad()
    def _update_running(self, found: list[Statistics]) -> None:
        """Move running to (1 − m)·running + m·statistic, the mean of ``found`` where several.

        Groups without values change nothing.
        """
        found = [one for one in found if one.values or one.n > 0]
        if self.running_mean is None or self.running_var is None or not found:
            return
        on_gpu = found[0].rounded is not None
        if self.later is not None and on_gpu and self.momentum is not None and len(found) == 1:
            running = RunningStatistics(
                self.running_mean, self.running_var, self.num_batches_tracked
            )
            self.later.add(running, found[0], self.momentum)
            return
        factor: float | Tensor | None = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if factor is None and on_gpu:  # nobody is to wait for it
                factor = self.num_batches_tracked.to(self.running_mean.dtype).reciprocal()
            elif factor is None:
                factor = 1.0 / float(self.num_batches_tracked)
        assert factor is not None
        mean = torch.stack([one.mean for one in found]).mean(0)
        unbiased = torch.stack([one.variance * (one.n / (one.n - 1)) for one in found]).mean(0)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles find their group anew: it belongs to a Horovod session.

        Nor do they take kernels along, which belong to a process and its GPU.
        """
        return {**self.__dict__, "_carrier": None, "later": None, "fused": None}
