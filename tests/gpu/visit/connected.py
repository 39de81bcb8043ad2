"""Parts of the package and of tests/gpu that a checkout may have or not, by name.

What is not there is left out, and the table says so.
"""

from importlib import import_module
from importlib.util import find_spec

import torch

from megdet_hvd.config.schema import Config
from megdet_hvd.job.world import World

PEER_SUMS = "megdet_hvd.job.peer"
"""Opens sums between GPUs, ``bn.carrier=peer``."""
PEER_TIMES = "tests.gpu.peer_sums"


def there(name: str) -> bool:
    """Whether there is such a module."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package that it would be in
        return False


def open_peer_sums(config: Config, world: World, device: torch.device) -> None:
    """As a run does it, where ``bn.carrier=peer`` is asked for; all ranks together."""
    if str(config.bn.carrier) == "peer":
        import_module(PEER_SUMS).open_peer_sums(world, device)
