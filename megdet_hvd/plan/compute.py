"""Compute of a step, with its small-batch loss: b · (n + n₀) seconds for n images a GPU."""

from dataclasses import dataclass

from megdet_hvd.plan.stragglers import straggler_images


@dataclass(frozen=True)
class Compute:
    """A software stack on a GPU."""

    image_s: float
    """b: seconds of one more image."""
    overhead_s: float
    """a = b·n₀: seconds of a step whatever its images."""

    def seconds(self, images: int) -> float:
        """Of one GPU with ``images``."""
        return self.overhead_s + self.image_s * images

    def stragglers_s(self, images: int, ranks: int, spread: float) -> float:
        """That the slowest of ``ranks`` GPUs takes longer; ``spread``: of an image, in means."""
        return spread * self.image_s * straggler_images(images, ranks)


@dataclass(frozen=True)
class TimedStep:
    """A known step."""

    images: int
    """Of one GPU."""
    ranks: int
    step_s: float
    """Seconds, less what is not compute or stragglers."""


def from_one(point: TimedStep, overhead_images: float, spread: float) -> Compute:
    """From one step and the shared n₀ and σ."""
    units = point.images + overhead_images + spread * straggler_images(point.images, point.ranks)
    image_s = point.step_s / units
    return Compute(image_s, image_s * overhead_images)


def from_two(one: TimedStep, two: TimedStep, spread: float) -> Compute:
    """From two steps of different images: a and b exactly, given σ.

    a may come out below 0, and b too, where the two don't behave as the model says.
    """
    first = one.images + spread * straggler_images(one.images, one.ranks)
    second = two.images + spread * straggler_images(two.images, two.ranks)
    image_s = (one.step_s - two.step_s) / (first - second)
    return Compute(image_s, one.step_s - image_s * first)
