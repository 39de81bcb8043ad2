"""The largest batch of one process that fits into memory, with and without recomputation.

``python -m megdet_hvd.bench fit [--backbone …] [--size …] [--memory GIB] [--json FILE]``: forward,
backward and SGD of made-up pictures, for real, with more and more of them. On a GPU a batch fits
where no allocation fails; elsewhere, where the live tensors of a step, with weights, gradients and
momentum, stay within ``--memory``. Time is that of a step at the largest batch.
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse

if TYPE_CHECKING:
    import torch

BOXES = 8
GIB = 2**30
COPIES = 3
"""Of the weights: themselves, gradients, momentum."""


@dataclass(frozen=True)
class LargestBatch:
    """What one mode of recomputation lets fit."""

    mode: str
    images: int
    """0: not even one."""
    peak_bytes: int
    """Of that batch, weights, gradients and momentum included."""
    step_s: float
    """A step of it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = make_parser("megdet_hvd.bench fit", (__doc__ or "").split("\n")[0], settings=False)
    add = parser.add_argument
    add("--backbone", choices=["resnet18", "resnet50", "resnet101"], default="resnet50")
    add("--norm", choices=["cgbn", "bn", "frozen"], default="cgbn")
    add("--size", type=int, default=800, help="shorter side of a 5:3 canvas, pixels")
    add("--memory", type=float, default=8.0, metavar="GIB", help="to fill, where there is no GPU")
    add("--most", type=int, default=64, metavar="N", help="try no larger batch")
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--json", type=record_file, metavar="FILE", help="write the record there, too")
    options = parse(parser, arguments)
    if options.size < 64 or not 0 < options.memory < math.inf or options.most < 1:
        parser.error("--size is 64 or more, --most 1 or more, --memory above 0")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.memory.segments import MODES
    from megdet_hvd.model.device import pick_device

    device = pick_device(options.device)
    height, width = canvas_of(options.size)
    machine = describe_machine(device)
    limit = "of the GPU" if device.type == "cuda" else f"{options.memory:g} GiB"
    print(
        f"{machine}; {options.backbone}, norm {options.norm}, {height}×{width} pixels, "
        f"{options.precision}, memory {limit}",
        flush=True,
    )
    rows = [largest_batch(options, device, mode) for mode in MODES]
    print("\n".join(table(rows)))
    if options.json is not None:
        names = ("backbone", "norm", "size", "memory", "precision")
        settings = {name: getattr(options, name) for name in names}
        write_record(options.json, machine, settings, rows=[vars(row) for row in rows])


def canvas_of(size: int) -> tuple[int, int]:
    """Height and width of 5:3, in whole strides of 32."""
    return -(-size // 32) * 32, -(-size * 5 // 3 // 32) * 32


def largest_batch(options: Any, device: "torch.device", mode: Any) -> LargestBatch:
    """Try batches until one doesn't fit."""
    from megdet_hvd.bench.detector import CLASSES, made_detector
    from megdet_hvd.memory.measure import peak_bytes
    from megdet_hvd.memory.probe import made_up
    from megdet_hvd.memory.recompute import recompute_segments
    from megdet_hvd.model.device import autocast

    detector = made_detector(options.backbone, options.norm, options.precision, device)
    recompute_segments(detector, mode)
    weights = sum(p.numel() * p.element_size() for p in detector.parameters())
    canvas = canvas_of(options.size)
    peaks: dict[int, int] = {}

    def step_of(images: int) -> Callable[[], None]:
        batch = made_up(images, canvas, BOXES, CLASSES).to(device)

        def step() -> None:
            detector.zero_grad(set_to_none=True)
            with autocast(options.precision, device):
                losses = detector(batch)
            sum(part.sum() for part in losses.values()).backward()

        return step

    def fits(images: int) -> bool:
        import torch

        found: int | None = None
        with suppress(torch.cuda.OutOfMemoryError):
            found = peak_bytes(step_of(images), detector, device)
        if found is None:  # only now is the error gone, and with it the frames that hold tensors
            torch.cuda.empty_cache()
            return False
        peaks[images] = found + COPIES * weights
        return device.type == "cuda" or peaks[images] <= options.memory * GIB

    images = search_largest(fits, options.most)
    if images == 0:
        return LargestBatch(mode, 0, 0, 0.0)
    step = step_of(images)
    step()
    began = time.perf_counter()
    step()
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return LargestBatch(mode, images, peaks[images], time.perf_counter() - began)


def search_largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to ``most`` that fits, where all below a fitting one do; 0: none."""
    good, bad = 0, most + 1
    trial = 1
    while trial < bad and fits(trial):
        good, trial = trial, min(2 * trial, most + 1)
    bad = min(bad, trial)
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good


def table(rows: Sequence[LargestBatch]) -> list[str]:
    """Lines of the table; batches are compared with the first row's."""
    lines = [
        f"{'recomputed':12}{'batch':>7}{'ratio':>7}{'peak GiB':>10}{'step s':>9}{'images/s':>10}"
    ]
    first = max(rows[0].images, 1)
    for row in rows:
        speed = row.images / row.step_s if row.step_s else 0.0
        lines.append(
            f"{row.mode:12}{row.images:7}{row.images / first:7.2f}{row.peak_bytes / GIB:10.2f}"
            f"{row.step_s:9.3f}{speed:10.2f}"
        )
    return lines
