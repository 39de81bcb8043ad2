"""The normalisations that the BN bench compares, as factories for a detector."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from megdet_hvd.bench.textbook import TextbookBatchNorm2d, name_textbook_layers
from megdet_hvd.bn import CrossGPUBatchNorm2d, name_layers
from megdet_hvd.comm import groups
from megdet_hvd.job.world import World

PLAIN, FROZEN, OURS, OURS_MPI, TEXTBOOK = (
    "plain BN",
    "frozen BN",
    "CGBN, horovod",
    "CGBN, mpi",
    "textbook, two collectives",
)
HOROVOD_SYNC, TORCH_SYNC = "hvd.SyncBatchNorm", "torch SyncBatchNorm"

Factory = Callable[[int], nn.Module]
M = TypeVar("M", bound=nn.Module)


def variants(world: World, device: torch.device) -> dict[str, Factory]:
    """Name to factory (channels → layer), of those that this job can run."""
    found: dict[str, Factory] = {
        PLAIN: nn.BatchNorm2d,
        FROZEN: FrozenBatchNorm2d,
        OURS: CrossGPUBatchNorm2d,
    }
    group = groups.bn_group()
    if world.size > 1:
        if group is not None and group.sums is not None and device.type == "cpu":
            found[OURS_MPI] = lambda channels: CrossGPUBatchNorm2d(channels, carrier="mpi")
        found[TEXTBOOK] = TextbookBatchNorm2d
        if device.type == "cuda":
            import horovod.torch as hvd

            found[HOROVOD_SYNC] = hvd.SyncBatchNorm
            if torch.distributed.is_initialized():
                found[TORCH_SYNC] = nn.SyncBatchNorm
    return found


def settle(module: M) -> M:
    """Name the layers of ``module`` and give them their group."""
    name_layers(module)
    group = groups.bn_group()
    process_set: Any = None if group is None else group.process_set
    name_textbook_layers(module, process_set, 1 if group is None else len(group.ranks))
    return module
