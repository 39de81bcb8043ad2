"""Parts of the package and of tests/gpu that a checkout may have or not, by name.

What is not there is left out, and the table says so.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from megdet_hvd.config.schema import Config
from megdet_hvd.job.world import World

BN_KERNELS = "megdet_hvd.engine.bn_kernels"
"""CGBN's own kernels: found right before training, then put to use."""
PEER_SUMS = "megdet_hvd.job.peer"
"""Opens sums between GPUs, ``bn.carrier=peer``."""
BN_TIMES = "tests.gpu.bn_times"
FUSED = "megdet_hvd.bn.fused_kernels"
PEER_TIMES = "tests.gpu.peer_sums"


def there(name: str) -> bool:
    """Whether there is such a module."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def use_own_kernels(detector: nn.Module, config: Config, world: World, device: torch.device) -> str:
    """As a run does it; returns what it says of it, empty where there is nothing to say."""
    if not there(BN_KERNELS):
        return ""
    found: Any = import_module(BN_KERNELS).find_bn_kernels(detector, config, world, device)
    return "" if found is None else str(found.put_to_use(detector))


def open_peer_sums(config: Config, world: World, device: torch.device) -> None:
    """As a run does it, where ``bn.carrier=peer`` is asked for; all ranks together."""
    if str(config.bn.carrier) == "peer":
        import_module(PEER_SUMS).open_peer_sums(world, device)
