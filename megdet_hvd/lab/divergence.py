"""Whether a training has diverged, by a rule that was fixed before the runs.

Diverged is a loss that is not finite, or one that stands above its first value once the warm-up is
over. Single losses scatter, so it is the mean of the newest few; the first value is that of the
first update, before any weight has changed: the next may already be what diverges.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

NEWEST = 10
"""Updates whose mean loss is held against the first."""


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

    What is found is the first update at which the rule holds, however late it is looked at.

    Args:
        iterations: numbers of the updates, rising.
        losses: their losses; None where one was not finite.
        rates: the learning rates that they were taken with.
        peak_rate: the highest of the schedule; the warm-up ends where it is reached.
    """
    known: list[float] = []
    for loss in losses:
        if loss is None or not math.isfinite(loss):
            break
        known.append(loss)
    warm = next((i for i, rate in enumerate(rates) if rate >= 0.999 * peak_rate), len(known))
    for end in range(max(warm, 1) + NEWEST, len(known) + 1):
        if statistics.fmean(known[end - NEWEST : end]) > known[0]:
            return Divergence(
                iterations[end - 1],
                f"the mean loss of {NEWEST} updates is above the initial {known[0]:.3g}",
            )
    if len(known) < len(losses):
        return Divergence(iterations[len(known)], "the loss is not finite")
    return None
