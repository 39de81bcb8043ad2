"""Which segments of the detector a run recomputes, and a line that says so."""

from functools import partial

import torch
from torch import nn

from megdet_hvd.config.derive import Derived
from megdet_hvd.config.schema import Config
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.job.world import World
from megdet_hvd.memory import recompute_segments
from megdet_hvd.memory.auto import choose_mode, largest_work
from megdet_hvd.memory.segments import Mode
from megdet_hvd.model.device import autocast


def set_recomputation(
    detector: nn.Module,
    config: Config,
    derived: Derived,
    train: ImageIndex,
    world: World,
    device: torch.device,
) -> str:
    """Do as ``memory.checkpoint`` says; returns a line for the log. Processes call it together."""
    mode: Mode
    if config.model.detector is not None:
        return _of_own(detector, config)
    if config.memory.checkpoint == "auto":
        work = largest_work(train, config.data, derived.images_per_process_per_pass)
        precision = partial(autocast, config.precision, device)
        choice = choose_mode(
            detector, config.model, work, len(train.categories), world, device, precision
        )
        mode, told = choice.mode, choice.explain()
    else:
        mode = config.memory.checkpoint
        told = f"recomputation {mode} (memory.checkpoint={mode})"
    count = len(recompute_segments(detector, mode))
    return f"{told}; {count} segments" if count else told


def _of_own(detector: nn.Module, config: Config) -> str:
    """A detector of the user's own: what can be found in it, or a line that says why not."""
    wanted = config.memory.checkpoint
    if wanted == "auto":
        return (
            "recomputation none: memory.checkpoint=auto can't measure a detector of your own; give "
            "blocks or stages"
        )
    count = len(recompute_segments(detector, wanted))
    if wanted == "none" or count:
        parts = f"; {count} segments" if count else ""
        return f"recomputation {wanted} (memory.checkpoint={wanted}){parts}"
    return (
        f"recomputation none: memory.checkpoint={wanted} finds no residual blocks of torchvision's "
        "in this detector; name its pieces in a method recompute_parts(mode)"
    )
