"""``memory.checkpoint=auto``: recompute only where activations would not fit otherwise."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from megdet_hvd.config.schema import DataConfig, ModelConfig
from megdet_hvd.data.canvas import STRIDE
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.transforms import resized_size
from megdet_hvd.job.agree import together
from megdet_hvd.job.exchange import broadcast_object, gather_objects
from megdet_hvd.job.world import World
from megdet_hvd.memory.available import activation_budget
from megdet_hvd.memory.probe import Workload, estimate_peaks
from megdet_hvd.memory.segments import Mode

GIB = 2**30


@dataclass(frozen=True)
class Choice:
    """What was decided, and from which numbers."""

    mode: Mode
    work: Workload
    peaks: Mapping[Mode, int]
    """Bytes that each mode needs for activations."""
    budget: int
    """Bytes there are for them, on the process that has least."""

    @property
    def fits(self) -> bool:
        """Whether even the chosen mode is likely to fit."""
        return self.peaks[self.mode] <= self.budget

    def explain(self) -> str:
        """One line for the log."""
        height, width = self.work.canvas
        needs = ", ".join(f"{n / GIB:.2f} GiB with {mode}" for mode, n in self.peaks.items())
        verdict = "" if self.fits else "; NONE FITS: fewer images a process would"
        return (
            f"recomputation {self.mode} (memory.checkpoint=auto): {self.work.images} × {height}×"
            f"{width} pixels, the largest canvas, need about {needs}; there are "
            f"{self.budget / GIB:.2f} GiB a process, margin taken off{verdict}"
        )


def choose_mode(
    detector: nn.Module,
    model: ModelConfig,
    work: Workload,
    num_classes: int,
    world: World,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[object]],
) -> Choice:
    """The same choice on all processes, which call this together.

    Rank 0 measures; the process with the least memory decides.
    """
    with together(world, "memory"):
        peaks = (
            estimate_peaks(model, num_classes, work, device, autocast) if world.is_main else None
        )
        if device.type == "cuda":
            torch.cuda.empty_cache()
    known = broadcast_object(peaks, world, "memory")
    budgets = gather_objects(activation_budget(detector, device, world.local_size), world, "budget")
    return Choice(cheapest(known, min(budgets)), work, known, min(budgets))


def cheapest(peaks: Mapping[Mode, int], budget: int) -> Mode:
    """``none`` where it fits; else the mode that needs least, since both cost the same time."""
    if peaks["none"] <= budget:
        return "none"
    return min((mode for mode in peaks if mode != "none"), key=lambda mode: peaks[mode])


def largest_work(index: ImageIndex, data: DataConfig, images: int) -> Workload:
    """The most that ``images`` training pictures can ask for.

    Several pictures share a canvas as high as the highest and as wide as the widest of them.
    """
    pictures = {
        resized_size(int(w), int(h), max(data.min_sizes), data.max_size)
        for w, h in set(zip(index.widths.tolist(), index.heights.tolist(), strict=True))
    }
    sizes = [tuple(-(-side // STRIDE) * STRIDE for side in picture) for picture in pictures]
    if images == 1:
        width, height = max(sizes, key=lambda size: size[0] * size[1])
    else:
        width, height = (max(sides) for sides in zip(*sizes, strict=True))
    return Workload(images, (height, width), int(np.diff(index.offsets).max()))
