"""What Cross-GPU BN costs beside plain BN, frozen BN and a textbook version.

``python -m megdet_hvd.bench bn [--processes 1 2 4] [--step 2] [--turns 5] …`` starts the
processes itself and prints its tables: layers in isolation; a whole training step, its gradients in
flight; BN behind one large gradient; and BN calls while another machine sends large messages. Sides
take turns; times are medians, of the slowest rank.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from megdet_hvd.bench.launch import run_in_ranks
from megdet_hvd.cli import make_parser, parse

RANKS = "megdet_hvd.bench.bn_ranks"
SMALLEST = 64
"""Side of a canvas, pixels."""
PLAIN = "plain BN"

BnTimings = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the tables."""
    parser = make_parser("megdet_hvd.bench bn", (__doc__ or "").split("\n")[0], settings=False)
    parser.add_argument(
        "--processes", type=int, nargs="*", default=[1, 2, 4], help="of the first table"
    )
    parser.add_argument("--step", type=int, default=2, help="processes of the second; 0: leave out")
    parser.add_argument(
        "--no-busy", action="store_true", help="leave out the third, which takes 4 processes"
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="side of the canvas in the step")
    parser.add_argument("--images", type=int, default=2, help="pictures a process")
    parser.add_argument(
        "--backbone", choices=["resnet18", "resnet50", "resnet101"], default="resnet50"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parse(parser, arguments)
    if min(options.turns, options.images, *options.processes) < 1 or options.step < 0:
        parser.error("--processes, --turns and --images are 1 or more, --step 0 or more")
    if options.size < SMALLEST:
        parser.error(f"--size {options.size}: must be {SMALLEST} or more")
    words = [
        f"--{name}={getattr(options, name)}"
        for name in ("turns", "size", "images", "backbone", "device")
    ]
    print(_machine(), flush=True)
    most = _most_processes(options.device)
    for processes in [one for one in options.processes if one <= most]:
        found = run_in_ranks(RANKS, processes, ["isolation", *words])
        print(f"\nLayers in isolation, {processes} × {options.images} images")
        print("\n".join(isolation_table(found)), flush=True)
    if options.step and options.step <= most:
        found = run_in_ranks(RANKS, options.step, ["step", *words])
        print(
            f"\nA training step, {options.backbone} with FPN, {options.step} × {options.images} "
            f"images of {options.size}×{options.size}"
        )
        print("\n".join(step_table(found)), flush=True)
        found = run_in_ranks(RANKS, options.step, ["behind", *words])
        print(
            f"\nA backward pass whose 64 MB gradient is ready before its 20 BN layers, "
            f"{options.step} processes"
        )
        print("\n".join(behind_table(found)), flush=True)
    if not options.no_busy and most >= 4:
        found = run_in_ranks(RANKS, 4, ["busy", *words])
        print("\nA BN message of the second of two machines, 2 + 2 processes")
        print("\n".join(busy_table(found)), flush=True)
    return 0


def _most_processes(device: str) -> float:
    """As many as GPUs: NCCL refuses two processes on one."""
    import torch

    return torch.cuda.device_count() if device != "cpu" and torch.cuda.is_available() else math.inf


def _machine() -> str:
    import torch

    from megdet_hvd.bench.machine import describe_machine

    return describe_machine(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def isolation_table(found: Sequence[BnTimings]) -> list[str]:
    """Times a layer, messages and memory, and the ratio to plain BN."""
    base = _total(next(one for one in found if one["variant"] == PLAIN))
    lines = [
        "| | forward ms | backward ms | to plain | messages a layer | bytes | kept MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        layers = one["layers"]
        lines.append(
            f"| {one['variant']} | {_ms(one['forward_s'] / layers)} | "
            f"{_ms(one['backward_s'] / layers)} | {_total(one) / base:.2f} | "
            f"{one['forward_collectives'] / layers:g} + {one['backward_collectives'] / layers:g} | "
            f"{one['bytes'] // layers} | {one['saved_bytes'] / 2**20:.1f} |"
        )
    return lines


def step_table(found: Sequence[BnTimings]) -> list[str]:
    """Time of a step, what BN waits in it, and the ratio to plain BN."""
    base = next(one for one in found if one["variant"] == PLAIN)["step_s"]
    lines = [
        "| | gradients | step s | to plain | BN messages | KiB | ms a message (worst) | "
        "waits in all, ms | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        message, waits = "–", "–"
        if one["message_s"] is not None:
            message = f"{_ms(one['message_s'])} ({_ms(one['worst_message_s'])})"
            waits = f"{one['wait_s'] * 1e3:.0f}"
        lines.append(
            f"| {one['variant']} | {one['gradients']} | {one['step_s']:.3f} | "
            f"{one['step_s'] / base:.3f} | {one['collectives']} | {one['bytes'] / 2**10:.0f} | "
            f"{message} | {waits} | "
            f"{one['peak_bytes'] / 2**20:.0f} |"
        )
    return lines


def behind_table(found: Sequence[BnTimings]) -> list[str]:
    """Time of a step and of its BN messages, gradients held back or not."""
    lines = [
        "| | gradients | step s | ms a message (worst) | waits in all, ms |",
        "|---|---|---|---|---|",
    ]
    for one in found:
        lines.append(
            f"| {one['variant']} | {one['gradients']} | {one['step_s']:.3f} | "
            f"{_ms(one['message_s'])} ({_ms(one['worst_message_s'])}) | "
            f"{one['wait_s'] * 1e3:.0f} |"
        )
    return lines


def busy_table(found: Sequence[BnTimings]) -> list[str]:
    """Time of a message, with the other machine at rest and busy."""
    lines = ["| | the other machine | calls | ms a message | worst |", "|---|---|---|---|---|"]
    for one in found:
        lines.append(
            f"| {one['variant']} | {one['other machine']} | {one['calls']} | "
            f"{_ms(one['message_s'])} | "
            f"{_ms(one['worst_message_s'])} |"
        )
    return lines


def _total(one: BnTimings) -> float:
    return float(one["forward_s"] + one["backward_s"])


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
