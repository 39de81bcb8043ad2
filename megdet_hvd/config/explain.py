"""The arithmetic of a run in words: the first lines of its log."""

from collections import Counter

from megdet_hvd.config.derive import Derived, policy_of
from megdet_hvd.config.schema import Config
from megdet_hvd.schedule.scaling import scaled_rate
from megdet_hvd.wording import counted


def explain(config: Config, derived: Derived) -> list[str]:
    """One line for each number that follows from the global batch, with its sum."""
    return [
        _batch(config, derived),
        _rate(config, derived),
        _warmup(config, derived),
        f"iterations per epoch {derived.images_per_epoch}/{config.global_batch} = "
        f"{derived.iterations_per_epoch:.2f} "
        f"(data.keep_empty={str(config.data.keep_empty).lower()})",
        *_milestones(config, derived),
        _end(config, derived),
        *_normalisation(config, derived),
    ]


def _batch(config: Config, derived: Derived) -> str:
    return (
        f"global batch {config.global_batch} = {counted(derived.world_size, 'process')} × "
        f"{counted(derived.images_per_process_per_pass, 'image')} × "
        f"{counted(config.learning.accumulation, 'pass')}"
    )


def _rate(config: Config, derived: Derived) -> str:
    learning, batch = config.learning, config.global_batch
    base, reference = f"{learning.base_rate:g}", learning.base_batch
    factor = "" if learning.rate_factor == 1 else f" × {learning.rate_factor:g}"
    if learning.rate == "auto":
        result = f"{derived.peak_rate:g}"
        if learning.scaling == "none":
            product = f"{base}{factor} = {result}" if factor else result
            return f"learning rate {product}, whatever the batch (learning.scaling=none)"
        if learning.scaling == "sqrt":
            return (
                f"learning rate {base} × √({batch}/{reference}){factor} = {result} "
                "(square-root scaling, not the paper's)"
            )
        return (
            f"learning rate {base} × {batch}/{reference}{factor} = {result} (linear scaling, §3.2)"
        )
    product = f"{learning.rate:g}{factor} = " if factor else ""
    rule = _RULES[learning.scaling]
    scaled = scaled_rate(learning.scaling, learning.base_rate, reference, batch)
    return (
        f"learning rate {product}{derived.peak_rate:g} (learning.rate; "
        f"{rule} would give {scaled:g}{factor})"
    )


_RULES = {
    "linear": "linear scaling, §3.2,",
    "sqrt": "square-root scaling",
    "none": "learning.scaling=none",
}


def _warmup(config: Config, derived: Derived) -> str:
    if not derived.warmup_iterations:
        return "no warm-up"
    images = config.learning.warmup_images
    length = "" if images is None else f"{images} images / {config.global_batch} = "
    end = derived.end_iteration
    note = f": never over, training ends at iteration {end}"
    return (
        f"warm-up from {derived.warmup_start_rate:g} to {derived.peak_rate:g} over "
        f"{length}{derived.warmup_iterations} iterations (§3.2)"
        f"{note if derived.warmup_iterations >= end else ''}"
    )


def _milestones(config: Config, derived: Derived) -> list[str]:
    lines = []
    drops = policy_of(config.learning).drops
    for drop, iteration in zip(drops, derived.milestone_iterations, strict=True):
        if iteration >= derived.end_iteration:
            note = f": never reached, training ends at iteration {derived.end_iteration}"
        elif iteration < derived.warmup_iterations:
            note = ": still in the warm-up"
        else:
            note = ""
        lines.append(f"epoch {drop.epoch:g} → iteration {iteration}: rate × {drop.factor:g}{note}")
    return lines


def _end(config: Config, derived: Derived) -> str:
    policy = f"{config.learning.policy} policy"
    policy_end = derived.policy_iterations
    if derived.end_iteration < policy_end:
        return (
            f"end → iteration {derived.end_iteration} (learning.max_iterations; the {policy} "
            f"ends at epoch {derived.end_epoch:g}, iteration {policy_end})"
        )
    return f"epoch {derived.end_epoch:g} → iteration {policy_end}: end ({policy})"


def _normalisation(config: Config, derived: Derived) -> list[str]:
    norm, images = config.model.norm, derived.images_per_process_per_pass
    if norm == "none":
        return ["no normalisation (model.norm=none)"]
    if norm == "frozen":
        return ["BN statistics frozen (model.norm=frozen)"]
    machines = counted(len(derived.machine_sizes), "machine")
    if norm == "bn" or (config.bn.scope == "process" and config.bn.size is None):
        key = "model.norm=bn" if norm == "bn" else "bn.scope=process"
        return [f"BN statistics over {counted(images, 'image')}, each process its own ({key})"]
    if config.bn.size is not None:
        return [_bn_size(config.bn.size, config.bn.scope, images)]
    if config.bn.scope == "world":
        ranks = derived.world_size
        return [
            f"BN statistics over {counted(ranks, 'rank')} × {counted(images, 'image')} = "
            f"{counted(ranks * images, 'image')} (bn.scope=world, {machines})"
        ]
    sizes = Counter(derived.machine_sizes)
    return [
        f"BN statistics over {counted(ranks, 'rank')} × {counted(images, 'image')} = "
        f"{counted(ranks * images, 'image')} "
        f"(bn.scope=machine, {counted(machines_of_size, 'machine')})"
        for ranks, machines_of_size in sorted(sizes.items(), reverse=True)
    ]


def _bn_size(size: int, scope: str, images: int) -> str:
    if size > images:
        return (
            f"BN statistics over {counted(size // images, 'rank')} × {counted(images, 'image')} = "
            f"{counted(size, 'image')} (bn.size={size}, bn.scope={scope})"
        )
    if size == images:
        return (
            f"BN statistics over {counted(images, 'image')}, each process its own (bn.size={size})"
        )
    return (
        f"BN statistics over {size} of the {counted(images, 'image')} of a process, "
        f"{images // size} statistics a call (bn.size={size})"
    )
