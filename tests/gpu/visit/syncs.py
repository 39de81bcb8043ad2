"""Where a training step makes the host wait for the GPU, as torch itself reports it.

On a CPU the pretended device stands in: what it counts is what is expected here.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from megdet_hvd.config.schema import ModelConfig
from megdet_hvd.memory.probe import made_up
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value
from tests.pretend_cuda.device import CUDA, pretended_cuda
from tests.pretend_cuda.tally import Tally
from tests.pretend_cuda.training import cgbn_detector, plain_detector, steps_on

PICTURES = 2


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """In the second step; constants are on the device by then."""
    counted = pretended_cuda if setting.device == "cpu" else reported_syncs
    for norm, make in (("cgbn", cgbn_detector), ("bn", plain_detector)):
        backbone = "resnet18" if setting.small else "resnet50"
        thin = {"fpn_channels": 32} if setting.small else {}
        config = ModelConfig(backbone=backbone, norm=norm, **thin)  # type: ignore[arg-type]
        size = (64, 96) if setting.small else (800, 1344)
        with counted() as tally:
            for step in steps_on(CUDA, make(config, 80), [made_up(PICTURES, size, 8, 80)], 3):
                if step.iteration == 1:
                    tally.clear()
                if step.iteration == 2:
                    break
        print(tally.syncs_table())
        yield f"{norm}, waits a step", tally.syncs.total()
        for (place, kind), count in tally.syncs.most_common():
            yield f"{norm}, {place} {kind}".strip(), count


@contextmanager
def reported_syncs() -> Iterator[Tally]:
    """Counts what ``torch.cuda.set_sync_debug_mode`` warns of, with the package's line."""
    tally = Tally()
    show: Any = warnings.showwarning

    def note(message: Warning | str, *others: Any, **more: Any) -> None:
        if "synchronizing" in str(message):
            tally.note_sync("")
        else:
            show(message, *others, **more)

    always = torch.is_warn_always_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.set_warn_always(True)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield tally
        finally:
            torch.cuda.set_sync_debug_mode("default")
            torch.set_warn_always(always)
            sys.stdout.flush()
