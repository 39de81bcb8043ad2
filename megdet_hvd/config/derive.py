"""What follows from the global batch: the dial's arithmetic (MegDet §3.2, §3.3, §4).

All of it is exact: integers and decimals as written, rounded once at the end.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from megdet_hvd.config.bn_groups import bn_groups, ranks_by_machine
from megdet_hvd.config.schema import Config, LearningConfig
from megdet_hvd.errors import UserError
from megdet_hvd.schedule.exact import exact
from megdet_hvd.schedule.large_batch import LARGEST_SHOWN, lengthened_warmup_iterations
from megdet_hvd.schedule.learning_rate import LearningRateSchedule
from megdet_hvd.schedule.policy import LONG, NORMAL, Drop, Policy, milestone_iteration
from megdet_hvd.schedule.scaling import scaled_rate
from megdet_hvd.schedule.warmup import auto_warmup_iterations, warmup_iterations_for
from megdet_hvd.wording import counted


@dataclass(frozen=True)
class Derived:
    """The numbers a run is made of."""

    world_size: int
    """Processes."""
    machine_sizes: tuple[int, ...]
    """Processes on each machine."""
    images_per_epoch: int
    """N, training pictures."""
    images_per_process_per_pass: int
    """Pictures in one backward pass of one process."""
    peak_rate: float
    """Learning rate after the warm-up."""
    warmup_iterations: int
    """Iterations of warm-up; 0: none."""
    warmup_start_rate: float
    """Rate of the first iteration."""
    iterations_per_epoch: float
    """N / global batch; not whole, as a batch may straddle two epochs."""
    milestone_iterations: tuple[int, ...]
    """First iteration with the lower rate, for each drop of the policy, reached or not."""
    end_epoch: float
    """Where the policy ends."""
    policy_iterations: int
    """Number of iterations of the whole policy: ceil(end_epoch·N/batch)."""
    end_iteration: int
    """Number of iterations: those of the policy, or ``learning.max_iterations`` if fewer."""
    bn_images: tuple[int, ...]
    """Pictures per BN statistic on each machine; empty where no statistics are taken."""
    schedule: LearningRateSchedule
    """The learning rate as a function of pictures seen."""


def derive(
    config: Config, images_per_epoch: int, world_size: int, machine_sizes: Sequence[int]
) -> Derived:
    """All that follows from ``config.global_batch`` on this job.

    Args:
        config: the whole configuration.
        images_per_epoch: N, the training pictures that are kept.
        world_size: processes of the job.
        machine_sizes: processes on each machine; their sum is ``world_size``.

    Raises:
        UserError: the batch does not divide over the processes, the data set is empty, or the
            rates do not fit each other.
    """
    assert world_size > 0 and sum(machine_sizes) == world_size, (world_size, machine_sizes)
    if images_per_epoch <= 0:
        raise UserError(
            "the training data set has 0 pictures left: at least 1 is needed. Check data.train, "
            "or set data.keep_empty=true if its pictures have no boxes"
        )
    learning = config.learning
    images = _images_per_process_per_pass(config.global_batch, world_size, learning.accumulation)
    policy = policy_of(learning)
    peak_rate = _peak_rate(learning, config.global_batch)
    policy_end = milestone_iteration(policy.end_epoch, images_per_epoch, config.global_batch)
    warmup_iterations = _warmup_iterations(learning, config.global_batch, policy_end)
    warmup_start_rate = _warmup_start_rate(learning, peak_rate) if warmup_iterations else peak_rate
    return Derived(
        world_size=world_size,
        machine_sizes=tuple(machine_sizes),
        images_per_epoch=images_per_epoch,
        images_per_process_per_pass=images,
        peak_rate=peak_rate,
        warmup_iterations=warmup_iterations,
        warmup_start_rate=warmup_start_rate,
        iterations_per_epoch=images_per_epoch / config.global_batch,
        milestone_iterations=tuple(
            milestone_iteration(drop.epoch, images_per_epoch, config.global_batch)
            for drop in policy.drops
        ),
        end_epoch=policy.end_epoch,
        policy_iterations=policy_end,
        end_iteration=min(policy_end, learning.max_iterations or policy_end),
        bn_images=_bn_images(config, images, machine_sizes),
        schedule=LearningRateSchedule(
            peak_rate=peak_rate,
            warmup_start_rate=warmup_start_rate,
            warmup_iterations=warmup_iterations,
            drops=policy.drops,
            images_per_epoch=images_per_epoch,
            global_batch=config.global_batch,
        ),
    )


def policy_of(learning: LearningConfig) -> Policy:
    """The policy that is configured, with the drops of a custom one in order of epochs."""
    if learning.policy != "custom":
        return {"normal": NORMAL, "long": LONG}[learning.policy]
    assert learning.epochs != "auto", "the schema asks for learning.epochs with policy=custom"
    drops = tuple(Drop(m.epoch, m.factor) for m in learning.milestones)
    return Policy(tuple(sorted(drops, key=lambda drop: drop.epoch)), learning.epochs)


def _images_per_process_per_pass(global_batch: int, world_size: int, accumulation: int) -> int:
    unit = world_size * accumulation
    images, rest = divmod(global_batch, unit)
    if rest == 0:
        return images
    below, above = images * unit, (images + 1) * unit
    nearest = [above] if below == 0 else sorted((above, below), key=lambda b: abs(b - global_batch))
    raise UserError(
        f"global_batch={global_batch} does not divide over {counted(world_size, 'process')} × "
        f"accumulation {accumulation} ({global_batch} % {unit} = {rest}); "
        f"try {' or '.join(map(str, nearest))}"
    )


def _peak_rate(learning: LearningConfig, global_batch: int) -> float:
    try:
        rate = (
            scaled_rate(learning.scaling, learning.base_rate, learning.base_batch, global_batch)
            if learning.rate == "auto"
            else learning.rate
        )
        peak = float(exact(rate) * exact(learning.rate_factor))
    except OverflowError:
        peak = math.inf
    if not 0 < peak < math.inf:
        raise UserError(
            f"the peak learning rate comes to {peak}, and must be positive and finite: change "
            f"learning.base_rate={learning.base_rate:g}, learning.rate={learning.rate} or "
            f"learning.rate_factor={learning.rate_factor:g}"
        )
    return peak


def _warmup_iterations(learning: LearningConfig, global_batch: int, policy_end: int) -> int:
    if learning.warmup_images is not None:
        return warmup_iterations_for(learning.warmup_images, global_batch)
    if learning.warmup_iterations != "auto":
        return learning.warmup_iterations
    if global_batch > LARGEST_SHOWN and learning.large_batch == "lengthen":
        return lengthened_warmup_iterations(global_batch, policy_end)
    return auto_warmup_iterations(policy_end)


def _warmup_start_rate(learning: LearningConfig, peak_rate: float) -> float:
    if learning.warmup_start_rate == "auto":
        return min(learning.base_rate, float(exact(peak_rate) / 3))
    if learning.warmup_start_rate > peak_rate:
        raise UserError(
            f"learning.warmup_start_rate={learning.warmup_start_rate:g} exceeds the peak rate "
            f"{peak_rate:g}, and a warm-up must rise: give at most {peak_rate:g}, or auto"
        )
    return learning.warmup_start_rate


def _bn_images(config: Config, images: int, machine_sizes: Sequence[int]) -> tuple[int, ...]:
    if config.model.norm in ("frozen", "none"):
        return ()
    if config.model.norm == "bn":
        return tuple(images for _ in machine_sizes)
    machines = ranks_by_machine(machine_sizes)
    shared = bn_groups(config.bn.scope, config.bn.size, images, machines)
    of_rank = {
        rank: k for group, k in zip(shared.groups, shared.images, strict=True) for rank in group
    }
    return tuple(of_rank[ranks[0]] for ranks in machines)
