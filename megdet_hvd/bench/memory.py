"""Peak memory and time of a training step, with and without recomputation.

``python -m megdet_hvd.bench memory [--backbone …] [--size …] [--images …] [--repeats …]``: one
process, forward and backward of made-up pictures; the modes take turns, so that a change of the
machine's speed meets all of them. Times are medians over the turns, of the clock and of the
processor; on a machine that does other work, only the second says something. The peak is that of
live tensors, above weights and gradients (on a GPU, of the allocator).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from megdet_hvd.cli import make_parser, parse

if TYPE_CHECKING:
    import torch

BOXES = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = make_parser("megdet_hvd.bench memory", (__doc__ or "").split("\n")[0], settings=False)
    parser.add_argument(
        "--backbone", choices=["resnet18", "resnet50", "resnet101"], default="resnet50"
    )
    parser.add_argument("--norm", choices=["cgbn", "bn", "frozen"], default="cgbn")
    parser.add_argument("--size", type=_positive, default=512, help="side of the canvas, pixels")
    parser.add_argument("--images", type=_positive, default=2, help="pictures in a step")
    parser.add_argument("--repeats", type=_positive, default=5, help="turns")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument(
        "--held",
        type=int,
        default=0,
        metavar="N",
        help="list the N largest kinds of tensors alive at each peak (CPU)",
    )
    options = parse(parser, arguments)
    if options.size % 32:
        parser.error(f"--size {options.size}: a canvas has sides in multiples of 32")
    _measure(options)
    return 0


def _measure(options: argparse.Namespace) -> None:
    from megdet_hvd.bench.detector import CLASSES, made_detector
    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.memory.measure import LiveBytes, peak_bytes
    from megdet_hvd.memory.probe import made_up
    from megdet_hvd.memory.recompute import recompute_segments
    from megdet_hvd.memory.segments import MODES, Mode
    from megdet_hvd.model.device import autocast, pick_device

    device = pick_device(options.device)
    canvas = (options.size, options.size)
    print(
        f"{describe_machine(device)}; {options.backbone}, norm {options.norm}, "
        f"{options.images} × {options.size}×{options.size} pixels, {options.precision}, "
        f"{options.repeats} turns",
        flush=True,
    )
    detector = made_detector(options.backbone, options.norm, options.precision, device)
    batch = made_up(options.images, canvas, BOXES, CLASSES).to(device)

    def step() -> None:
        with autocast(options.precision, device):
            losses = detector(batch)
        sum(part.sum() for part in losses.values()).backward()

    def timed(mode: Mode) -> tuple[float, float]:
        recompute_segments(detector, mode)
        detector.zero_grad(set_to_none=True)
        return _seconds(step, device)

    timed("none")  # the first step of all is slower
    times: dict[Mode, list[tuple[float, float]]] = {mode: [] for mode in MODES}
    for _ in range(options.repeats):
        for mode in MODES:
            times[mode].append(timed(mode))
    rows = []
    for mode in MODES:
        recompute_segments(detector, mode)
        peak = peak_bytes(step, detector, device)
        clock, processor = (statistics.median(column) for column in zip(*times[mode], strict=True))
        rows.append(Row(mode, peak, clock, processor))
    print("\n".join(table(rows)))
    if options.held:
        for mode in MODES:
            recompute_segments(detector, mode)
            detector.zero_grad(set_to_none=True)
            with LiveBytes(detector) as live:
                step()
            print(f"alive at the peak, {mode}:")
            for label, count, nbytes in live.at_peak()[: options.held]:
                print(f"  {nbytes / 2**20:8.1f} MiB in {count:3}  {label}")


@dataclass(frozen=True)
class Row:
    """One mode's results."""

    mode: str
    peak_bytes: int
    clock_s: float
    """Of a step."""
    processor_s: float
    """Processor time of a step, all threads together."""


def table(rows: Sequence[Row]) -> list[str]:
    """Lines of the table; each number is compared with that of the first row."""
    first = rows[0]
    lines = [
        f"{'recomputed':12}{'peak MiB':>10}{'ratio':>7}{'step s':>10}{'ratio':>7}"
        f"{'processor s':>13}{'ratio':>7}"
    ]
    for row in rows:
        lines.append(
            f"{row.mode:12}"
            f"{row.peak_bytes / 2**20:10.1f}{row.peak_bytes / first.peak_bytes:7.2f}"
            f"{row.clock_s:10.3f}{row.clock_s / first.clock_s:7.2f}"
            f"{row.processor_s:13.3f}{row.processor_s / first.processor_s:7.2f}"
        )
    return lines


def _seconds(step: Callable[[], None], device: "torch.device") -> tuple[float, float]:
    """Clock and processor time of a step."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began, processor = time.perf_counter(), time.process_time()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, time.process_time() - processor


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value
