"""Which segments of the detector a run recomputes, and a line that says so."""

from functools import partial

import torch

from megdet_hvd.config.derive import Derived
from megdet_hvd.config.schema import Config
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.job.world import World
from megdet_hvd.memory import recompute_segments
from megdet_hvd.memory.auto import choose_mode, largest_work
from megdet_hvd.memory.segments import Mode
from megdet_hvd.model.detector import Detector
from megdet_hvd.model.device import autocast


def set_recomputation(
    detector: Detector,
    config: Config,
    derived: Derived,
    train: ImageIndex,
    world: World,
    device: torch.device,
) -> str:
    """Do as ``memory.checkpoint`` says; returns a line for the log. Processes call it together."""
    mode: Mode
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
