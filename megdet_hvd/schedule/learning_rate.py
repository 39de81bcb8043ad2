"""The learning rate as a stateless function of pictures seen.

Progress is counted in pictures, not in steps or epochs, so a run that is resumed with another
number of processes, or another batch, finds its place by arithmetic and stores no state.
"""

from dataclasses import dataclass
from fractions import Fraction

from megdet_hvd.schedule.exact import exact
from megdet_hvd.schedule.policy import Drop
from megdet_hvd.schedule.warmup import warmup_rate


@dataclass(frozen=True)
class LearningRateSchedule:
    """Warm-up to the peak, then the drops of a policy; a drop inside the warm-up acts as well."""

    peak_rate: float
    """r̂, after linear scaling."""
    warmup_start_rate: float
    """Rate of the first iteration, where there is a warm-up."""
    warmup_iterations: int
    """Iterations below the peak; 0: none."""
    drops: tuple[Drop, ...]
    """Changes of the rate, by epoch."""
    images_per_epoch: int
    """N, pictures in one pass."""
    global_batch: int
    """Pictures per iteration."""

    def rate_at(self, images_seen: int) -> float:
        """Rate of the iteration that starts after ``images_seen`` pictures, rounded once.

        With images_seen = iteration·global_batch the peak is met exactly at iteration index
        ``warmup_iterations``, and a drop at ceil(epoch·N/batch).
        """
        rate = exact(self.peak_rate)
        if self.warmup_iterations:
            progress = Fraction(images_seen, self.warmup_iterations * self.global_batch)
            rate = warmup_rate(exact(self.warmup_start_rate), rate, progress)
        for drop in self.drops:
            if images_seen >= exact(drop.epoch) * self.images_per_epoch:
                rate *= exact(drop.factor)
        return float(rate)
