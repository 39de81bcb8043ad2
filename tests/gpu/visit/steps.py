"""Training steps of 2 pictures of 800×1344, beside torchvision's, sides in turn."""

from collections.abc import Iterator

import torch

from megdet_hvd.bench.step import pictures_of
from megdet_hvd.bench.step_counts import require_same_work
from megdet_hvd.bench.turns import take_turns
from tests.gpu.visit.parts import Setting
from tests.gpu.visit.record import Value
from tests.gpu.visit.step_sides import Side, alone, build_all

LAST = ("model.memory_format=channels_last",)
SIDES = (
    Side("torchvision float32", "float32", ours=False),
    Side("torchvision bfloat16", "bfloat16", ours=False),
    Side("torchvision frozen bfloat16", "bfloat16", "frozen", ours=False),
    Side("frozen bfloat16", "bfloat16", "frozen"),
    Side("bn bfloat16", "bfloat16"),
    Side("cgbn float32", "float32", "cgbn"),
    Side("cgbn bfloat16", "bfloat16", "cgbn"),
    Side("cgbn bfloat16 torch's kernels", "bfloat16", "cgbn", ("bn.kernels=torch",)),
    Side("cgbn bfloat16 channels_last", "bfloat16", "cgbn", LAST),
    Side("cgbn bfloat16 recomputed", "bfloat16", "cgbn", blocks=True),
)
RATIOS = (
    ("torchvision float32", "cgbn float32"),
    ("torchvision float32", "cgbn bfloat16"),
    ("torchvision bfloat16", "cgbn bfloat16"),
    ("torchvision bfloat16", "bn bfloat16"),
    ("torchvision frozen bfloat16", "frozen bfloat16"),
    ("cgbn bfloat16 torch's kernels", "cgbn bfloat16"),
    ("cgbn bfloat16", "cgbn bfloat16 channels_last"),
    ("cgbn bfloat16 recomputed", "cgbn bfloat16"),
    ("cgbn bfloat16", "bn bfloat16"),
)
"""So many times as long the first takes as the second."""


def measure(setting: Setting) -> Iterator[tuple[str, Value]]:
    """Medians over the turns; peaks with weights, gradients and momentum."""
    device = torch.device(setting.device)
    size, turns = ((64, 96), 1) if setting.small else ((800, 1344), 20)
    batch = pictures_of(size, 2)
    with alone() as world:
        built = build_all(SIDES, batch, world, device)
        torchvisions = built["torchvision float32"].counts
        require_same_work(built["cgbn float32"].counts, torchvisions)
        yield "work", str(torchvisions)
        found = {
            side.name: side
            for side in take_turns({name: one.step for name, one in built.items()}, turns)
        }
    for name, side in found.items():
        yield f"{name}, ms", 1e3 * side.clock
        yield f"{name}, images/s", len(batch) / side.clock
        yield f"{name}, host ms", 1e3 * side.processor
        if device.type == "cuda":
            yield f"{name}, peak MiB", built[name].peak_mib
    for slower, quicker in RATIOS:
        yield f"{slower} to {quicker}, times", found[slower].clock / found[quicker].clock
