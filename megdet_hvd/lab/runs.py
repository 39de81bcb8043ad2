"""The trainings of every experiment, as values: which settings make them, and nothing else.

A training that two experiments share has one name, and is done once.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from megdet_hvd.lab.scale import (
    BASE_BATCH,
    BATCHES,
    BN_SIZE,
    BN_SIZES,
    JUDGED_BATCHES,
    TUNED_RATES,
    LabScale,
)

POLICIES: Mapping[str, tuple[tuple[tuple[float, float], ...], float]] = {
    "normal": (((8, 0.1), (10, 0.1)), 11),
    "long": (((11, 0.1), (14, 0.1), (17, 0.5)), 18),
}
"""Drops (epoch, factor) and end, §4: here for the scales that have only a part of the epochs."""


@dataclass(frozen=True)
class LabRun:
    """One training, without its seed."""

    batch: int
    norm: str
    """``frozen`` or ``cgbn``."""
    bn_size: int | None = None
    """Images a statistic; None with frozen BN."""
    rate_factor: float = 1.0
    """Of the linearly scaled rate, k·r."""
    rate: float | None = None
    """The peak rate itself, which then has nothing to do with r; None: k·r times the factor."""
    warmup: bool = True
    """As long as the scale says, from the smaller of r and a third of the peak."""
    policy: str = "normal"
    updates: int | None = None
    """Ends after so many updates, no drop before, unevaluated; None: the policy's drops and end."""
    processes: int = 1
    every_epoch: bool = False
    """Evaluated after each epoch, not at the end alone."""
    recalibrated: bool = False
    """Measured a second time, with running statistics of the final weights (precise BN)."""

    @property
    def name(self) -> str:
        """Says all that differs between trainings; names the record."""
        words = [self.norm, f"b{self.batch}"]
        if self.bn_size is not None:
            words.append(f"s{self.bn_size}")
        if self.rate is not None:
            words.append(f"r{self.rate:g}")
        if self.rate_factor != 1:
            words.append(f"x{self.rate_factor:g}")
        if not self.warmup:
            words.append("cold")
        words.append(f"u{self.updates}" if self.updates is not None else self.policy)
        if self.processes != 1:
            words.append(f"p{self.processes}")
        return "-".join(words)

    @property
    def k(self) -> float:
        """The batch in multiples of the base batch."""
        return self.batch / BASE_BATCH

    def peak_rate(self, scale: LabScale) -> float:
        """The highest learning rate of the schedule: k·r times the factor, §3.2."""
        if self.rate is not None:
            return self.rate
        return scale.base_rate * self.k * self.rate_factor


def cgbn(batch: int, **given: Any) -> LabRun:
    """A training with CGBN, of the fixed BN size unless another is given."""
    return LabRun(batch, "cgbn", given.pop("bn_size", BN_SIZE), **given)


TABLE2 = (
    LabRun(BASE_BATCH, "frozen"),
    *(
        LabRun(batch, "frozen", rate_factor=factor, warmup=warmup)
        for batch in BATCHES[1:]
        for factor, warmup in ((1.0, True), (0.5, True), (1.0, False))
    ),
)
"""Frozen BN: the full rate and half of it with warm-up, the full rate without."""
TABLE3 = (
    cgbn(BATCHES[0], every_epoch=True),
    *(cgbn(batch, recalibrated=batch == max(BN_SIZES)) for batch in BATCHES[1:]),
)
TABLE3_TWICE = cgbn(BASE_BATCH, processes=2, every_epoch=True)
"""The first row of table 3 on two processes: the same BN size over both, messages and all."""
FIGURE4 = tuple(cgbn(batch, policy="long", every_epoch=True) for batch in (8, 64))
BN_SIZE_RUNS = tuple(cgbn(max(BN_SIZES), bn_size=size, recalibrated=True) for size in BN_SIZES)
TUNING = tuple(LabRun(BASE_BATCH, "frozen", rate=rate) for rate in TUNED_RATES)
"""The baseline at several rates, from which r is taken: with a seed that nothing else uses."""
BASELINES = (TABLE2[0], TABLE3[0])
"""Whose final weights the gradient's variance is measured at."""


def rate_runs(scale: LabScale) -> tuple[LabRun, ...]:
    """Every batch, BN on and off, at every rate; short."""
    return tuple(
        LabRun(batch, norm, size, rate_factor=factor, updates=scale.rate_updates)
        for norm, size in (("frozen", None), ("cgbn", BN_SIZE))
        for batch in BATCHES
        for factor in scale.rate_factors
    )


def judged_runs(scale: LabScale) -> tuple[LabRun, ...]:
    """The batches of k = 16 and 32, judged by whether they diverge at the scaled rate."""
    return tuple(
        LabRun(batch, norm, size, updates=scale.judged_updates)
        for norm, size in (("frozen", None), ("cgbn", BN_SIZE))
        for batch in JUDGED_BATCHES
    )


PLAIN: Mapping[str, Any] = {
    "learning.scaling": "linear",
    "learning.rate": "auto",
    "learning.warmup_iterations": "auto",
    "learning.warmup_images": None,
    "learning.warmup_start_rate": "auto",
    "learning.policy": "normal",
    "learning.milestones": [],
    "learning.epochs": "auto",
    "learning.max_iterations": None,
    "learning.accumulation": 1,
    "bn.size": None,
}
"""What a configuration file of the user's own may say of the schedule and of BN: the rows say it
anew."""


def run_settings(run: LabRun, scale: LabScale, seed: int) -> dict[str, Any]:
    """The settings of one training, by dotted name; the data's and the detector's are not here."""
    settings: dict[str, Any] = {
        "global_batch": run.batch,
        "seed": seed,
        "model.norm": run.norm,
        "learning.base_rate": scale.base_rate if run.rate is None else run.rate,
        "learning.base_batch": BASE_BATCH if run.rate is None else run.batch,
        "learning.rate_factor": run.rate_factor,
        "learning.large_batch": "ignore",
        "data.workers": 0,
        "log.every_iterations": 1,
        "log.tensorboard": False,
        "checkpoint.keep": 1,
        "checkpoint.every_epochs": 4.0 * scale.shrink,
        "evaluation.images_per_process": 8,
        "evaluation.every_epochs": 1.0 if run.every_epoch else 0.0,
    }
    if run.bn_size is not None:
        settings["bn.size"] = run.bn_size
    if run.updates is not None:
        settings |= {"learning.max_iterations": run.updates, "evaluation.max_images": 1}
    return settings | _warmup(run, scale) | _policy(run, scale.shrink)


def _warmup(run: LabRun, scale: LabScale) -> dict[str, Any]:
    if not run.warmup:
        return {"learning.warmup_iterations": 0}
    if scale.warmup_updates is not None:
        return {"learning.warmup_iterations": scale.warmup_updates}
    if run.updates is not None:  # an epoch may be longer than all of the run
        return {"learning.warmup_iterations": max(1, run.updates // 5)}
    return {"learning.warmup_images": scale.train_images}


def _policy(run: LabRun, shrink: float) -> dict[str, Any]:
    if run.updates is not None:
        # No drop, and no end before the last update: an update takes a picture at least.
        return {
            "learning.policy": "custom",
            "learning.milestones": [],
            "learning.epochs": float(run.updates * run.batch),
        }
    if shrink == 1:
        return {"learning.policy": run.policy}
    drops, end = POLICIES[run.policy]
    return {
        "learning.policy": "custom",
        "learning.milestones": [{"epoch": e * shrink, "factor": f} for e, f in drops],
        "learning.epochs": end * shrink,
    }


def as_words(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the words of a command line; JSON is YAML."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
