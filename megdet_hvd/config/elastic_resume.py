"""A run carried on with other processes: how its batch, and its BN size, lie on them.

The global batch stays, and with it rate, schedule and order of images, which follow from it
alone. What is found here is how it is cut: accumulated passes and images per process, and the
groups that share BN statistics. Pure, so that a job can be checked before it waits in a queue.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from megdet_hvd.config import elastic_resume_words as words
from megdet_hvd.config.bn_groups import RanksByMachine, bn_groups, possible_sizes
from megdet_hvd.config.layout import Layout
from megdet_hvd.config.load import override
from megdet_hvd.config.saved_layout import SavedLayout
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

ACCUMULATION = "learning.accumulation"
MAY_STAND = (ACCUMULATION, "bn.size", "bn.scope")
"""Settings that a resume's own command line may decide; others are fitted around them."""


@dataclass(frozen=True)
class ElasticResume:
    """How a run goes on."""

    config: Config
    """The configuration, with what was changed."""
    lines: tuple[str, ...] = ()
    """For the log, with the sums; none where nothing differs from before."""
    warning: str | None = None
    """Where the BN size changes: from what to what, and what would keep it."""


def elastic_resume(
    config: Config, before: SavedLayout, machines: RanksByMachine, given: Collection[str] = ()
) -> ElasticResume:
    """How a run goes on with the processes that there are now.

    In this order: the BN size stays, within ``bn.scope``; a process holds no more images in a
    pass than before; it holds nearly as many. Where the BN size can't stay, memory still comes
    first, as a run that ends for want of it is no better; then the BN size nearest to the old one.
    Accumulated passes never enlarge a statistic.

    Args:
        config: the run's own configuration. An earlier resume may have changed the checkpoint's.
        before: what the checkpoint to carry on from says of its processes.
        machines: ranks of each machine, as they are now.
        given: those of MAY_STAND that the user decided for this resume; they stand.

    Raises:
        UserError: the batch does not divide over the processes, a given setting can't be made,
            or the BN size changes and ``resume.other_bn_size`` is ``refuse``.
    """
    if before.global_batch != config.global_batch:
        return ElasticResume(config)  # refused, with the reason, where the checkpoint is taken up
    chosen = min(
        _layouts(config, before, machines, given),
        key=lambda layout: _preference(layout, before, config),
    )
    changes = []
    if chosen.accumulation != config.learning.accumulation:
        changes.append(f"{ACCUMULATION}={chosen.accumulation}")
    if chosen.bn_size != config.bn.size:
        changes.append(f"bn.size={'null' if chosen.bn_size is None else chosen.bn_size}")
    fitted = override(config, changes) if changes else config
    if chosen.is_as(before):
        return ElasticResume(fitted)
    lines = words.batch(before, chosen)
    if not before.bn_images or before.norm != config.model.norm or _keeps(chosen, before):
        return ElasticResume(fitted, (*lines, *words.bn_kept(before, chosen, fitted)))
    if {"bn.size", "bn.scope"} & set(given):
        return ElasticResume(
            fitted, (*lines, f"{words.bn_changes(before, chosen, fitted)}, as given")
        )
    change = words.bn_changes(before, chosen, fitted, _wider_scope(config, before, machines))
    if config.resume.other_bn_size == "refuse":
        raise UserError(words.refusal(before, chosen, change))
    return ElasticResume(fitted, lines, change)


def _layouts(
    config: Config, before: SavedLayout, machines: RanksByMachine, given: Collection[str]
) -> list[Layout]:
    """All that the new processes allow; at least one."""
    processes, batch = sum(map(len, machines)), config.global_batch
    passes = config.learning.accumulation if ACCUMULATION in given else None
    share, rest = divmod(batch, processes * (passes or 1))
    if rest:
        raise UserError(words.does_not_divide(batch, processes, passes))
    cuts = [(a, share // a) for a in range(1, share + 1) if share % a == 0]
    cuts = cuts if passes is None else [(passes, share)]
    cuts.sort(key=lambda cut: _memory(cut[1], before))
    found: list[Layout] = []
    refused: list[UserError] = []
    for accumulation, images in cuts:
        for size in _bn_sizes(config, before, images, machines, given):
            try:
                sizes = _bn_images(config, size, images, machines)
            except UserError as error:
                refused.append(error)
                continue
            found.append(Layout(machines, accumulation, images, size, sizes))
    if not found:
        raise refused[0]
    return found


def _bn_sizes(
    config: Config,
    before: SavedLayout,
    images: int,
    machines: RanksByMachine,
    given: Collection[str],
) -> Iterator[int | None]:
    """Values of ``bn.size`` worth a try."""
    yield config.bn.size
    decided = {"bn.size", "bn.scope"} & set(given)
    if config.model.norm == "cgbn" and before.bn_images and not decided:
        yield from possible_sizes(images, _bounds(config.bn.scope, machines))


def _bounds(scope: str, machines: RanksByMachine) -> list[int]:
    """Processes in each of the bounds that ``bn.scope`` sets."""
    sizes = [len(ranks) for ranks in machines]
    return {"machine": sizes, "world": [sum(sizes)], "process": [1]}[scope]


def _bn_images(
    config: Config, size: int | None, images: int, machines: RanksByMachine
) -> tuple[int, ...]:
    if config.model.norm in ("frozen", "none"):
        return ()
    if config.model.norm == "bn":
        return (images,)
    return tuple(sorted(set(bn_groups(config.bn.scope, size, images, machines).images)))


def _preference(layout: Layout, before: SavedLayout, config: Config) -> tuple[float, ...]:
    """The smallest is best."""
    kept = not before.bn_images or _keeps(layout, before)
    return (
        not kept,
        *_memory(layout.images, before),
        0.0 if kept else _distance(layout.bn_images, before.bn_images or ()),
        layout.bn_size != config.bn.size,
    )


def _memory(images: int, before: SavedLayout) -> tuple[bool, int]:
    return images > before.images, abs(images - before.images)


def _distance(now: tuple[int, ...], before: tuple[int, ...]) -> float:
    """How many times larger or smaller the BN size becomes, in octaves, where it does most."""
    return max(
        (min(abs(math.log2(new / old)) for old in before) for new in now if before), default=0.0
    )


def _keeps(layout: Layout, before: SavedLayout) -> bool:
    return layout.bn_images == before.bn_images


def _wider_scope(config: Config, before: SavedLayout, machines: RanksByMachine) -> str | None:
    """The next wider ``bn.scope`` that would keep the BN size; None: there is none."""
    if config.model.norm != "cgbn" or before.bn_images is None or len(before.bn_images) != 1:
        return None
    share = config.global_batch // sum(map(len, machines))
    wider = {"process": ("machine", "world"), "machine": ("world",), "world": ()}
    for scope in wider[config.bn.scope]:
        for images in (m for m in range(1, share + 1) if share % m == 0):
            if before.bn_images[0] in possible_sizes(images, _bounds(scope, machines)):
                return scope
    return None
