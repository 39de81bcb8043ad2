"""What a step takes on this machine, for ``python -m megdet_hvd.plan --profile FILE``.

``python -m megdet_hvd.bench profile --out FILE [--images 2 4] [--size 800] [--processes 2] …``:
forward, backward and SGD of made-up pictures in one process, for each number of images; one
picture in evaluation; the memory's bandwidth; and, over ``--processes`` ranks of this machine, a
blocking sum of one BN message's size and an all-reduce of 64 MiB through Horovod. All medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from megdet_hvd.cli import make_parser, parse

if TYPE_CHECKING:
    import torch

RANKS = "megdet_hvd.bench.profile_ranks"
BOXES = 8
STRIDE = 32
SMALLEST = 64
"""Pixels; below, a statistic of one image has a single value."""
COPY_BYTES = 1 << 28
UNKNOWN_BUS_GB_S = 24.0
"""Where one process can't measure it: PCIe 4 ×16, as the plan takes it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and write the file."""
    parser = make_parser("megdet_hvd.bench profile", (__doc__ or "").split("\n")[0], settings=False)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="FILE", help="the profile, JSON")
    add("--name", default="measured", help="what the plan calls it")
    add("--images", type=int, nargs="+", default=[2, 4], help="of a process; two numbers tell more")
    add("--size", type=int, default=800, help="shorter side of a 4:3 canvas, pixels")
    add("--backbone", choices=["resnet18", "resnet50", "resnet101"], default="resnet50")
    add(
        "--norm", choices=["cgbn", "frozen"], default="cgbn", help="cgbn: its own work, no messages"
    )
    add("--precision", choices=["auto", "float32", "bfloat16", "float16"], default="auto")
    add("--processes", type=int, default=2, help="of the messages; 1: leave them out")
    add("--network", default="8xhdr", help="between machines, as the plan knows it")
    add("--link", choices=["nvlink", "pci"], default="nvlink", help="between GPUs of a machine")
    add("--repeats", type=int, default=10)
    add("--device", default="auto", help="auto, cpu or cuda")
    options = parse(parser, arguments)
    if min(*options.images, options.processes, options.repeats) < 1 or options.size < SMALLEST:
        parser.error(
            f"--images, --processes and --repeats are 1 or more, --size {SMALLEST} or more"
        )
    if options.out.is_dir() or not options.out.absolute().parent.is_dir():
        parser.error(f"--out {options.out}: give a file in a folder that is there")
    profile = measure(options)
    try:
        options.out.write_text(json.dumps(profile, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        parser.error(f"--out {options.out}: can't be written ({error.strerror})")
    for step in profile["steps"]:
        print(f"{step['images']} images: {1e3 * step['seconds']['value']:.1f} ms a step")
    print(f"profile: {options.out}; python -m megdet_hvd.plan --profile {options.out}")
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The profile as the plan reads it, each number marked measured with this machine."""
    import torch

    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.model.device import pick_device

    device = pick_device(options.device)
    machine = describe_machine(device)
    print(machine, flush=True)
    precision = _precision(options.precision, device)
    canvas = canvas_of(options.size)
    steps, inference_s = _steps(options, device, precision, canvas)

    def measured(value: float) -> dict[str, Any]:
        return {"value": value, "measured": machine}

    profile: dict[str, Any] = {
        "name": options.name,
        "about": f"{options.backbone} with FPN, {precision}, {canvas[0]}×{canvas[1]}; {machine}",
        "precision": precision,
        "bfloat16": device.type == "cuda" and torch.cuda.is_bf16_supported(),
        "norm": options.norm,
        "link": options.link,
        "network": options.network,
        "backbone": options.backbone,
        "min_sizes": [canvas[0]],
        "max_size": canvas[1],
        "memory_gib": measured(_memory_bytes(device) / 2**30),
        "memory_gb_s": measured(_copy_gb_s(device)),
        "inside_gb_s": {"value": UNKNOWN_BUS_GB_S, "assumed": "one process can't measure it"},
        "model_factor": measured(1.0),
        "inference_s": measured(inference_s),
        "steps": [
            {"images": images, "gpus": 1, "early": True, "seconds": measured(seconds)}
            for images, seconds in steps
        ],
    }
    most = torch.cuda.device_count() if device.type == "cuda" else options.processes
    if 1 < options.processes <= most:
        from megdet_hvd.bench.launch import run_in_ranks

        words = [f"--repeats={options.repeats}", f"--device={options.device}"]
        found = run_in_ranks(RANKS, options.processes, words)
        profile["inside_gb_s"] = measured(found["bus_gb_s"])
        profile["blocking_sum_us"] = [[found["cycle_ms"], found["sum_us"]]]
        profile["waits_from"] = f"measured, {options.processes} processes; {machine}"
    return profile


def canvas_of(size: int) -> tuple[int, int]:
    """Height and width, 4 : 3, multiples of 32."""
    height = max(size // STRIDE, 1) * STRIDE
    return height, max(round(height * 4 / 3 / STRIDE), 1) * STRIDE


def _precision(wanted: str, device: "torch.device") -> str:
    import torch

    if wanted != "auto":
        return wanted
    has = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return "bfloat16" if has else "float32"


def _steps(
    options: argparse.Namespace,
    device: "torch.device",
    precision: str,
    canvas: tuple[int, int],
) -> tuple[list[tuple[int, float]], float]:
    """Seconds of a step by images, and of one picture in evaluation."""
    import torch

    from megdet_hvd.bench.detector import CLASSES, made_detector
    from megdet_hvd.memory.probe import made_up
    from megdet_hvd.model.device import autocast

    detector = made_detector(options.backbone, options.norm, precision, device)
    sgd = torch.optim.SGD(
        [p for p in detector.parameters() if p.requires_grad], lr=1e-6, momentum=0.9
    )
    found = []
    for images in sorted(set(options.images)):
        batch = made_up(images, canvas, BOXES, CLASSES).to(device)

        def step(batch: Any = batch) -> None:
            sgd.zero_grad()
            with autocast(precision, device):
                losses = detector(batch)
            torch.stack([part.sum() for part in losses.values()]).sum().backward()
            sgd.step()

        found.append((images, median_s(step, device, options.repeats)))
    detector.eval()
    picture = made_up(1, canvas, BOXES, CLASSES).to(device)

    def look() -> None:
        with torch.no_grad(), autocast(precision, device):
            detector(picture)

    return found, median_s(look, device, options.repeats)


def median_s(step: Callable[[], None], device: "torch.device", repeats: int) -> float:
    """Clock seconds of ``step``, after two that don't count."""
    import torch

    taken = []
    for turn in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn > 1:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _memory_bytes(device: "torch.device") -> int:
    import psutil
    import torch

    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def _copy_gb_s(device: "torch.device") -> float:
    """Bytes read and written in a copy, 10⁹ a second."""
    import torch

    source = torch.zeros(COPY_BYTES // 4, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    seconds = median_s(copy, device, 5)
    return 2 * COPY_BYTES / seconds / 1e9
