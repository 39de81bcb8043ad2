"""Which normalisation layer the detector is built with."""

from collections.abc import Callable
from functools import partial

from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.comm.world import World, describe_ranks
from megdet_hvd.config.schema import Config
from megdet_hvd.model.norm import batch_norm, frozen_norm, no_norm


def detector_norm(config: Config) -> Callable[[int], nn.Module]:
    """A factory: number of channels → layer, as ``model.norm`` and ``bn.scope`` say."""
    model = config.model
    if model.norm == "none":
        return no_norm()
    if model.norm == "frozen":
        return frozen_norm(model.norm_eps)
    if model.norm == "bn" or config.bn.scope == "process":
        return batch_norm(model.norm_eps, model.norm_momentum)
    process_set = None
    if config.bn.scope == "world":
        import horovod.torch as hvd

        process_set = hvd.global_process_set if hvd.size() > 1 else None
    return partial(
        CrossGPUBatchNorm2d,
        eps=model.norm_eps,
        momentum=model.norm_momentum,
        process_set=process_set,
    )


def shares_statistics_with_all(config: Config, world: World) -> bool:
    """Whether every process holds the same running statistics."""
    if config.model.norm in ("frozen", "none"):
        return True
    if config.model.norm == "bn" or config.bn.scope == "process":
        return world.size == 1
    return config.bn.scope == "world" or len(world.machines) == 1


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
    ranks = tuple(range(world.size)) if config.bn.scope == "world" else world.local_ranks
    where = "all machines" if config.bn.scope == "world" else "one machine"
    groups = len(world.machines) if config.bn.scope == "machine" else 1
    more = f"; {groups} such groups" if groups > 1 else ""
    return (
        f"CGBN: {len(layers)} layers share statistics over ranks {describe_ranks(ranks)} "
        f"({where}): {len(ranks)} × {images} = {len(ranks) * images} images a statistic{more}"
    )
