"""The peak that ``memory.checkpoint=auto`` predicts, beside that of the step itself."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from megdet_hvd.bench.detector import CLASSES
from megdet_hvd.bench.step import BOXES, pictures_of
from megdet_hvd.bench.step_ours import build_ours
from megdet_hvd.data.batch import Batch
from megdet_hvd.memory.measure import peak_bytes
from megdet_hvd.memory.probe import Workload, estimate_peaks
from megdet_hvd.memory.recompute import recompute_segments
from megdet_hvd.memory.segments import MODES
from megdet_hvd.model.device import autocast
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value
from tests.gpu.visit.step_sides import Side, config_of

MIB = 2**20


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Above weights, gradients and momentum, as the choice takes it."""
    device = torch.device(setting.device)
    precisions = ("float32",) if setting.small else ("float32", "bfloat16")
    size = (64, 96) if setting.small else (800, 1344)
    for precision in precisions:
        mixed = partial(autocast, precision, device)
        for images in (1,) if setting.small else (2, 8):
            config = config_of(Side("", precision, "cgbn"), images)
            work = Workload(images, size, BOXES)
            predicted = estimate_peaks(config.model, CLASSES, work, device, mixed)
            detector = build_ours(config, device)
            batch = pictures_of(size, images).to(device)
            step = partial(forward_and_backward, detector, batch, mixed)
            for mode in MODES:
                recompute_segments(detector, mode)
                found = peak_bytes(step, detector, device)
                name = f"{images} pictures {precision} {mode}"
                yield f"{name}, peak MiB", found / MIB
                yield f"{name}, predicted MiB", predicted[mode] / MIB
                yield f"{name}, predicted to peak", predicted[mode] / found
            recompute_segments(detector, "none")
            del detector, batch, step
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()


def forward_and_backward(
    detector: nn.Module, batch: Batch, mixed: Callable[[], AbstractContextManager[Any]]
) -> None:
    """As the choice's own probes have it."""
    with mixed():
        losses = detector(batch)
    torch.stack([part.sum() for part in losses.values()]).sum().backward()
