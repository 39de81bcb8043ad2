"""Linear gradual warm-up (MegDet §3.2, "Warmup Strategy").

The scaled rate is too large for the first steps, when the weights change most. So training
starts at a small rate, about r, and adds a constant amount every iteration up to r̂.

Its length may be given in iterations or in pictures, or follow from the batch: up to batch 256 it
is that of :func:`auto_warmup_iterations`, above it see :mod:`megdet_hvd.schedule.large_batch`.
"""

import math
from fractions import Fraction

AUTO_ITERATIONS = 500
"""Usual length. MegDet gives none; 500 iterations are the habit of the peers."""


def auto_warmup_iterations(end_iteration: int) -> int:
    """500 iterations, but at most a tenth of a run of ``end_iteration`` iterations."""
    return min(AUTO_ITERATIONS, end_iteration // 10)


def warmup_iterations_for(images: int, global_batch: int) -> int:
    """Iterations that see at least ``images`` pictures: ceil(images/batch)."""
    return math.ceil(Fraction(images, global_batch))


def warmup_rate(start: Fraction, peak: Fraction, progress: Fraction) -> Fraction:
    """The rate after ``progress`` = iterations done / warm-up iterations, 0 ≤ progress.

    The first iteration has ``start``; from progress 1 on the rate is ``peak``, exactly.
    """
    return peak if progress >= 1 else start + (peak - start) * progress
