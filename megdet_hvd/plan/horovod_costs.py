"""What Horovod adds to a collective: its cycle, its negotiation, and fused messages."""

import math
from collections.abc import Sequence
from itertools import pairwise

from megdet_hvd.plan.collectives import HOP_US, Fabric, allreduce_s

BLOCKING_SUM_US = ((0.1, 448.0), (1.0, 1069.0), (5.0, 5106.0))
"""(HOROVOD_CYCLE_TIME in ms, µs of a blocking sum of a few values). Measured here: 2 processes on 2
cores (AMD EPYC), no GPU, Horovod 0.28.1 with torch 2.11; NCCL's own time comes on top."""
FUSION_BYTES = 128 * 2**20
"""Horovod's buffer at its default size (its docs/tensor-fusion.rst)."""
LAST_BYTES = 2**20
"""What is still to be sent when the backward pass ends: the stem's and the first stage's gradients,
some 225,000 values in float32."""
BACKWARD_SHARE = 2 / 3
"""Of compute: a convolution's backward pass is two convolutions of its forward pass's size."""


def wait_s(
    cycle_ms: float,
    machines: int,
    fabric: Fabric,
    measured: Sequence[tuple[float, float]] = BLOCKING_SUM_US,
) -> float:
    """Seconds that one blocking message waits for Horovod.

    Linear between the measured cycles; a shorter cycle than the shortest costs as much, a longer
    one than the longest costs itself besides. All machines agree first, up and down a tree.
    """
    known = sorted(measured)
    if cycle_ms <= known[0][0]:
        waited_us = known[0][1]
    elif cycle_ms >= known[-1][0]:
        waited_us = known[-1][1] + (cycle_ms - known[-1][0]) * 1e3
    else:
        (low, short), (high, long) = next(
            pair for pair in pairwise(known) if cycle_ms <= pair[1][0]
        )
        waited_us = short + (long - short) * (cycle_ms - low) / (high - low)
    levels = math.ceil(math.log2(machines)) if machines > 1 else 0
    hop_us = HOP_US["net"]["tree"]["LL"] * fabric.hop_factor
    return (waited_us + 2 * levels * hop_us) * 1e-6


def gradients_s(
    size_bytes: float,
    ranks: int,
    machines: int,
    fabric: Fabric,
    *,
    compute_s: float,
    waiting_s: float,
    held_back: bool,
    fusion_bytes: float = FUSION_BYTES,
) -> float:
    """Seconds of the gradients' all-reduce that show in a step.

    Args:
        size_bytes: on the wire.
        ranks: GPUs.
        machines: that they are on.
        fabric: what connects them.
        compute_s: the step's compute, behind whose backward pass it hides.
        waiting_s: Horovod's wait for each fused message.
        held_back: nothing is sent before the last gradient is there, so nothing hides.
        fusion_bytes: largest fused message.
    """
    if ranks == 1:
        return 0.0
    messages = max(1, math.ceil(size_bytes / fusion_bytes))
    each = allreduce_s(size_bytes / messages, ranks, machines, fabric)
    total = messages * (each + waiting_s)
    if held_back:
        return total
    last = waiting_s + allreduce_s(min(LAST_BYTES, size_bytes), ranks, machines, fabric)
    return max(last, total - BACKWARD_SHARE * compute_s)
