"""What rank 0 shows while training: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from megdet_hvd.config.schema import Config
from megdet_hvd.engine.run_folder.best_effort import BestEffort
from megdet_hvd.engine.step.status import StepStatus
from megdet_hvd.job.log import LOGGER
from megdet_hvd.wording import hours_minutes_seconds


def wants_bar(choice: str, launcher: str, is_terminal: bool) -> bool:
    """Whether to draw a bar.

    Under a launcher standard output may look like a terminal (mpirun gives its processes one)
    and still be tagged, merged or kept in a file; so ``auto`` draws only without a launcher.
    """
    if choice == "auto":
        return is_terminal and launcher == "python"
    return choice == "bar"


@dataclass
class Interval:
    """Sums over the steps since the last line."""

    steps: int = 0
    images: int = 0
    wait_s: float = 0.0
    """Time the loop waited for pictures."""
    evaluated_s: float = 0.0
    """Time spent outside training steps: evaluation, checkpoints."""


class TrainingProgress:
    """Averages over ``log.every_iterations`` steps, and shows them."""

    def __init__(self, config: Config, launcher: str, start: int, end: int, shown: bool) -> None:
        """``shown`` is true on rank 0 only."""
        self._every = config.log.every_iterations
        self._end = end
        self._losses: dict[str, float] = {}
        self._balance: dict[str, float] = {}
        self._interval = Interval()
        self._since = time.monotonic()
        self._trained_s = 0.0
        self._trained_steps = 0
        self._bar: Any = None
        self._shown = shown
        self._best_effort = BestEffort("the progress bar", "shown")
        if shown and wants_bar(config.log.progress, launcher, sys.stdout.isatty()):
            with self._best_effort.writing():
                self._bar = tqdm(
                    total=end, initial=start, unit="it", dynamic_ncols=True, file=sys.stdout
                )

    def outside(self, seconds: float) -> None:
        """Time since the last step that was not training."""
        self._interval.evaluated_s += seconds

    def is_due(self, iteration: int) -> bool:
        """Whether a line follows this step."""
        return iteration % self._every == 0 or iteration == self._end

    def step(
        self,
        iteration: int,
        status: StepStatus,
        rate: float,
        wait_s: float,
        split: str | None = None,
    ) -> dict[str, float] | None:
        """Count a finished step; the metrics of the interval when a line is due, else None.

        ``split``: a line on where the time of this step went.
        """
        interval = self._interval
        interval.steps += 1
        interval.images += status.images
        interval.wait_s += wait_s
        for part, value in status.losses.items():
            self._losses[part] = self._losses.get(part, 0.0) + value
        for name, value in status.balance.items():
            self._balance[name] = self._balance.get(name, 0.0) + value
        if self._bar is not None:
            with self._best_effort.writing():
                self._bar.update(1)
        if not self.is_due(iteration):
            return None
        elapsed = max(time.monotonic() - self._since - interval.evaluated_s, 1e-9)
        mean = {part: value / interval.steps for part, value in self._losses.items()}
        metrics = {
            "loss": sum(mean.values()),
            **mean,
            **{name: value / interval.steps for name, value in self._balance.items()},
            "rate": rate,
            "images_per_s": interval.images / elapsed,
            "step_s": elapsed / interval.steps,
            "data_s": interval.wait_s / interval.steps,
        }
        self._trained_s += elapsed
        self._trained_steps += interval.steps
        left_s = (self._end - iteration) * self._trained_s / self._trained_steps
        self._show(iteration, metrics, mean, left_s, split)
        self._losses = {}
        self._balance = {}
        self._interval = Interval()
        self._since = time.monotonic()
        return metrics

    def _show(
        self,
        iteration: int,
        metrics: dict[str, float],
        losses: dict[str, float],
        left_s: float,
        split: str | None,
    ) -> None:
        waiting = 100 * metrics["data_s"] / metrics["step_s"]
        if self._bar is not None:
            with self._best_effort.writing():
                self._bar.set_postfix_str(
                    f"loss {metrics['loss']:.3f}, rate {metrics['rate']:.2g}, "
                    f"{metrics['images_per_s']:.1f} images/s"
                )
        elif self._shown:
            parts = " ".join(f"{part} {value:.3f}" for part, value in losses.items())
            LOGGER.info(
                f"iteration {iteration}/{self._end}  loss {metrics['loss']:.3f} ({parts})  "
                f"rate {metrics['rate']:.4g}  {metrics['images_per_s']:.1f} images/s  "
                f"{waiting:.0f} % waiting for data  {hours_minutes_seconds(left_s)} left"
            )
            if split is not None:
                LOGGER.info(f"  {split}")

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            with self._best_effort.writing():
                self._bar.close()
