"""Which normalisation layer the detector is built with, and who shares its statistics."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, carrier_of
from megdet_hvd.comm import groups
from megdet_hvd.config.bn_groups import BnGroups, bn_groups
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError
from megdet_hvd.job.world import Machines, World
from megdet_hvd.model.norm import batch_norm, frozen_norm, no_norm
from megdet_hvd.wording import ranks_in_words

_CPU = torch.device("cpu")

_CARRIER_NOTES = {
    "peer": ", as asked for: its test sums were right; no run on GPUs is on record yet, so compare "
    "a short one with bn.carrier=horovod"
}
"""What the log says of a carrier beside its name."""


def sharing_of(config: Config) -> Callable[[Machines], Machines]:
    """Who shares BN statistics, for :func:`megdet_hvd.job.session.start`."""

    def sharing(machines: Machines) -> Machines:
        found = statistic_groups(config, machines)
        return tuple((r,) for m in machines for r in m) if found is None else found.groups

    return sharing


def statistic_groups(config: Config, machines: Machines) -> BnGroups | None:
    """The groups that ``bn.scope`` and ``bn.size`` ask for; None where nothing is shared.

    A size that can't be made gives None too: :func:`megdet_hvd.config.derive.derive` refuses it,
    on all ranks together, once they can talk.
    """
    if config.model.norm != "cgbn":
        return None
    processes = sum(map(len, machines))
    images = config.global_batch // (processes * config.learning.accumulation)
    try:
        return bn_groups(config.bn.scope, config.bn.size, max(1, images), machines)
    except UserError:
        return None


def detector_norm(
    config: Config, world: World, device: torch.device = _CPU
) -> Callable[[int], nn.Module]:
    """A factory: number of channels → layer, as ``model.norm`` and the section ``bn`` say.

    Raises:
        UserError: ``bn.carrier`` can't serve.
    """
    model = config.model
    if model.norm == "none":
        return no_norm()
    if model.norm == "frozen":
        return frozen_norm(model.norm_eps)
    if model.norm == "bn":
        return batch_norm(model.norm_eps, model.norm_momentum)
    found = statistic_groups(config, world.machines)
    split = None if found is None else found.split
    if split is None:
        group = groups.bn_group()
        carrier_of(group, config.bn.carrier)  # refused now rather than in a step
        if config.bn.carrier == "mpi" and device.type != "cpu":
            raise UserError(
                f"bn.carrier=mpi sums CPU tensors, and this run computes on {device}: set "
                "bn.carrier=horovod"
            )
        wanted = next((g for g in found.groups if world.rank in g), None) if found else None
        if group is not None and wanted is not None and group.ranks != wanted:
            raise RuntimeError(
                f"the session was started with BN group {group.ranks}, the configuration wants "
                f"{wanted}: pass bn_groups=sharing_of(config) to session.start()"
            )
    return partial(
        CrossGPUBatchNorm2d,
        eps=model.norm_eps,
        momentum=model.norm_momentum,
        carrier=config.bn.carrier,
        images_per_statistic=split,
    )


def shares_statistics(config: Config, world: World) -> bool:
    """Whether any processes of the job sum BN statistics; all of them find the same."""
    found = statistic_groups(config, world.machines)
    return found is not None and any(len(group) > 1 for group in found.groups)


def shares_statistics_with_all(config: Config, world: World) -> bool:
    """Whether every process holds the same running statistics."""
    if config.model.norm in ("frozen", "none"):
        return True
    found = statistic_groups(config, world.machines)
    return world.size == 1 if found is None else len(found.groups) == 1


def describe_norm(detector: nn.Module, config: Config, world: World, images: int) -> str:
    """One line for the log: how many layers share statistics, over whom, of how many images.

    ``images`` is what one process holds in one pass.
    """
    layers = [m for m in detector.modules() if isinstance(m, CrossGPUBatchNorm2d)]
    if not layers:
        own = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
        if own:
            return f"BN: {len(own)} layers, each process its own statistics over {images} images"
        return f"BN: none trained (model.norm={config.model.norm})"
    found = statistic_groups(config, world.machines)
    assert found is not None, "CGBN layers have groups"
    ranks = next(group for group in found.groups if world.rank in group)
    if found.split is not None:
        return (
            f"CGBN: {len(layers)} layers, each process splits its {images} images into "
            f"statistics of {found.split}; nothing is sent"
        )
    like = sum(len(group) == len(ranks) for group in found.groups)
    others = len(found.groups) - like
    if len(ranks) == 1:
        more = f"; {others} larger groups share theirs" if others else ""
        return (
            f"CGBN: {len(layers)} layers, {images} images a statistic; "
            f"{'this process sends nothing' if others else 'nothing is sent'}{more}"
        )
    machines = {m for m, own in enumerate(world.machines) if set(own) & set(ranks)}
    where = "one machine" if len(machines) == 1 else f"{len(machines)} machines"
    more = f"; {like} such groups" if like > 1 else ""
    more += f"; {others} groups of another size" if others else ""
    return (
        f"CGBN: {len(layers)} layers share statistics over {ranks_in_words(ranks)} "
        f"({where}): {len(ranks)} × {images} = {len(ranks) * images} images a statistic"
        f"{more}; bn.carrier={config.bn.carrier}{_CARRIER_NOTES.get(config.bn.carrier, '')}"
    )
