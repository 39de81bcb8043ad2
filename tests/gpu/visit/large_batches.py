"""CGBN in bfloat16 at 8 and 12 pictures a GPU, of 800×1344."""

import gc
from collections.abc import Iterator

import torch

from megdet_hvd.bench.step import pictures_of
from megdet_hvd.bench.turns import take_turns
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value
from tests.gpu.visit.step_sides import Side, alone, build_all
from tests.gpu.visit.steps import LAST

SIDES = (
    Side("cgbn bfloat16", "bfloat16", "cgbn"),
    Side("cgbn bfloat16 channels_last", "bfloat16", "cgbn", LAST),
    Side("torchvision bfloat16", "bfloat16", ours=False),
)


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Pictures a second, beside torchvision's of as many."""
    device = torch.device(setting.device)
    sizes = (3,) if setting.small else (8, 12)
    size, turns = ((64, 96), 1) if setting.small else ((800, 1344), 8)
    for images in sizes:
        batch = pictures_of(size, images)
        with alone() as world:
            built = build_all(SIDES, batch, world, device)
            steps = {name: one.step for name, one in built.items()}
            for side in take_turns(steps, turns):
                yield f"{images} pictures, {side.name}, ms", 1e3 * side.clock
                yield f"{images} pictures, {side.name}, images/s", images / side.clock
                if device.type == "cuda":
                    yield f"{images} pictures, {side.name}, peak MiB", built[side.name].peak_mib
        del built, steps
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
