"""Who shares BN statistics (§3.3), and over how many images: ``bn.scope`` and ``bn.size``.

The scope bounds a group; the size K, images per statistic, divides it in either direction. With
2 images a process and machines of 8: K = 16 is the paper's machine, K = 8 groups of 4 processes,
K = 2 each process by itself, K = 1 each image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from megdet_hvd.errors import UserError
from megdet_hvd.wording import counted

RanksByMachine = Sequence[Sequence[int]]
"""Ranks of each machine."""


@dataclass(frozen=True)
class BnGroups:
    """How BN statistics are shared."""

    groups: tuple[tuple[int, ...], ...]
    """Ranks that share; every rank is in one group."""
    images: tuple[int, ...]
    """Images per statistic in each group."""
    split: int | None
    """Images per statistic where a process's own images are split; None: they are not."""


def bn_groups(
    scope: str, size: int | None, images_per_process: int, machines: RanksByMachine
) -> BnGroups:
    """The groups that ``bn.scope`` and ``bn.size`` ask for.

    Args:
        scope: ``machine``, ``world`` or ``process``: what a group may not exceed.
        size: images per statistic; None: as many as the scope holds.
        images_per_process: images of one process in one backward pass. Accumulated passes never
            enlarge a statistic.
        machines: ranks of each machine.

    Raises:
        UserError: ``size`` can't be made of these; says which sizes can.
    """
    everyone = tuple(rank for machine in machines for rank in machine)
    alone: list[tuple[int, ...]] = [(rank,) for rank in everyone]
    if scope == "machine":
        bounds = [tuple(machine) for machine in machines]
    else:
        bounds = [everyone] if scope == "world" else alone
    if size is None:
        return _groups(bounds, images_per_process)
    if size <= images_per_process and images_per_process % size == 0:
        split = None if size == images_per_process else size
        return _groups(alone, size, split)
    processes, rest = divmod(size, images_per_process)
    if rest == 0 and all(len(bound) % processes == 0 for bound in bounds):
        parts = [
            bound[i : i + processes] for bound in bounds for i in range(0, len(bound), processes)
        ]
        return _groups(parts, images_per_process)
    raise UserError(
        _refusal(scope, size, images_per_process, [len(b) for b in bounds], len(everyone))
    )


def ranks_by_machine(machine_sizes: Sequence[int]) -> list[range]:
    """Ranks of each machine where they are counted through from the first machine to the last."""
    ends = list(accumulate(machine_sizes))
    return [range(end - size, end) for end, size in zip(ends, machine_sizes, strict=True)]


def possible_sizes(images_per_process: int, bound_sizes: Sequence[int]) -> list[int]:
    """All sizes that can be made, ascending.

    Args:
        images_per_process: images of one process in one pass.
        bound_sizes: processes in each of the bounds that the scope sets.
    """
    common = math.gcd(*bound_sizes)
    within = [k for k in range(1, images_per_process + 1) if images_per_process % k == 0]
    across = [images_per_process * d for d in range(2, common + 1) if common % d == 0]
    return within + across


def _groups(parts: Sequence[tuple[int, ...]], images: int, split: int | None = None) -> BnGroups:
    ordered = sorted(tuple(sorted(part)) for part in parts)
    return BnGroups(tuple(ordered), tuple(len(part) * images for part in ordered), split)


def _refusal(scope: str, size: int, images: int, bounds: Sequence[int], world: int) -> str:
    sizes = sorted(set(bounds), reverse=True)
    held = " and ".join(counted(n, "process") for n in sizes)
    where = {"machine": " on a machine", "world": " in all", "process": ""}[scope]
    can = ", ".join(map(str, possible_sizes(images, bounds)))
    wider = ""
    if scope != "world" and size in possible_sizes(images, [world]):
        wider = f"; bn.scope=world can, in groups that span machines, for bn.size={size}"
        if scope == "process":
            wider = f"; a wider bn.scope can make bn.size={size}"
    return (
        f"bn.size={size} can't be made of {held}{where} with "
        f"{counted(images, 'image')} each (bn.scope={scope}); sizes that can: "
        f"{can}{wider}"
    )
