"""What is allowed, and yet unlikely to go well: warnings for the start of the log."""

from megdet_hvd.config.derive import Derived
from megdet_hvd.config.schema import Config
from megdet_hvd.schedule.large_batch import LARGEST_SHOWN, SHARE_OF_RUN
from megdet_hvd.schedule.warmup import AUTO_ITERATIONS, auto_warmup_iterations

SHORT_WARMUP = 100
"""Iterations; the lab's detector diverged with 16, 48 and 100 of them, and trained with 200."""
STEEP_WARMUP = 4.0
"""Times the first rate: k = 4, and above."""


def warnings(config: Config, derived: Derived) -> list[str]:
    """One line for each, with its reason, its arithmetic and the remedy."""
    return _large_batch(config, derived) + _steep_warmup(config, derived) + _end(config, derived)


def _steep_warmup(config: Config, derived: Derived) -> list[str]:
    learning, found = config.learning, derived.warmup_iterations
    by_itself = learning.warmup_iterations == "auto" and learning.warmup_images is None
    steps = derived.peak_rate / derived.warmup_start_rate
    if not by_itself or found >= SHORT_WARMUP or steps < STEEP_WARMUP:
        return []
    return [
        f"the rate rises to {steps:g} times its first value in {found} iterations, a tenth of a "
        f"run of {derived.policy_iterations}: with so few even a detector with CGBN may diverge in "
        "its first twenty (docs/lab/why-diverged.md). If the loss grows, warm up for longer "
        "(learning.warmup_iterations=200), with more epochs (learning.policy=custom) or a smaller "
        "global_batch, or set learning.gradient_clip. A given learning.warmup_iterations silences "
        "this"
    ]


def _end(config: Config, derived: Derived) -> list[str]:
    asked, policy = config.learning.max_iterations, config.learning.policy
    if asked is None or asked <= derived.policy_iterations:
        return []
    return [
        f"learning.max_iterations={asked} changes nothing: it can only end a run earlier, and the "
        f"{policy} policy ends at epoch {derived.end_epoch:g}, iteration "
        f"{derived.policy_iterations}. A longer run: learning.policy=custom with learning.epochs "
        "and learning.milestones"
    ]


def _large_batch(config: Config, derived: Derived) -> list[str]:
    learning, batch = config.learning, config.global_batch
    if batch <= LARGEST_SHOWN or learning.large_batch == "ignore":
        return []
    sqrt = " (learning.scaling=sqrt)" if learning.scaling == "linear" else ""
    return [
        f"global batch {batch} is above {LARGEST_SHOWN}, the largest that the paper shows, where "
        "published detection recipes leave plain linear scaling (at batch 256, rates of 0.226 and "
        f"0.24 instead of 0.32). {_length(config, derived)} If the loss grows all the same, take a "
        f"lower learning.rate{sqrt}, then a layer-wise optimizer such as LARS or LAMB. "
        "learning.large_batch=ignore silences this"
    ]


def _length(config: Config, derived: Derived) -> str:
    learning, batch = config.learning, config.global_batch
    found, run = derived.warmup_iterations, derived.policy_iterations
    if learning.warmup_iterations != "auto" or learning.warmup_images is not None:
        return f"The warm-up is as configured, {found} iterations."
    if learning.large_batch == "warn":
        return f"The warm-up is not lengthened, {found} iterations (learning.large_batch=warn)."
    wanted = (
        f"{AUTO_ITERATIONS} × {batch}/{LARGEST_SHOWN} = {AUTO_ITERATIONS * batch / LARGEST_SHOWN:g}"
    )
    limit = f"{run}/{SHARE_OF_RUN} = {run / SHARE_OF_RUN:g}"
    usual = auto_warmup_iterations(run)
    return (
        f"So the warm-up is lengthened from {usual} to {found} iterations: {wanted}, "
        f"but at most a fifth of the run, {limit}."
    )
