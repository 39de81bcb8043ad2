"""Whether a training has diverged, by a rule that was fixed before the runs.

Diverged is a loss that is not finite, or one that stands above its first value once the warm-up is
over. Single losses scatter, so both are means: of the first few updates, and of the newest few.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

FIRST = 3
"""Updates whose mean loss is the initial one."""
NEWEST = 10
"""Updates whose mean loss is held against it."""


@dataclass(frozen=True)
class Divergence:
    """Where and why a training counts as diverged."""

    iteration: int
    reason: str


def find_divergence(
    iterations: Sequence[int],
    losses: Sequence[float | None],
    rates: Sequence[float],
    peak_rate: float,
) -> Divergence | None:
    """Look at a training so far; None: it has not diverged.

    Args:
        iterations: numbers of the updates, rising.
        losses: their losses; None where one was not finite.
        rates: the learning rates that they were taken with.
        peak_rate: the highest of the schedule; the warm-up ends where it is reached.
    """
    for iteration, loss in zip(iterations, losses, strict=True):
        if loss is None or not math.isfinite(loss):
            return Divergence(iteration, "the loss is not finite")
    known = [loss for loss in losses if loss is not None]
    initial = initial_loss(known)
    if initial is None:
        return None
    warm = next((i for i, rate in enumerate(rates) if rate >= 0.999 * peak_rate), None)
    if warm is None:
        return None
    for end in range(max(warm, FIRST) + NEWEST, len(known) + 1):
        if statistics.fmean(known[end - NEWEST : end]) > initial:
            return Divergence(
                iterations[end - 1],
                f"the mean loss of {NEWEST} updates is above the initial {initial:.3g}",
            )
    return None


def initial_loss(losses: Sequence[float]) -> float | None:
    """Mean loss of the first updates; None: there are too few yet."""
    return statistics.fmean(losses[:FIRST]) if len(losses) >= FIRST else None
