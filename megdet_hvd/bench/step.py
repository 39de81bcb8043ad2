"""A training step: ours beside torchvision's model and loop, in one process.

``python -m megdet_hvd.bench step [--size 320x512] [--images 2] [--precision float32] [--norm bn]
[--turns 5] [--profile N] [--json FILE] [key.sub=value …]``: from a batch in memory to changed
weights, sides in turn; settings are ours.
Both have the same weights, pictures, boxes and settings; that they work on the same canvas, as many
proposals, and as many sampled anchors and boxes is looked at first.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from megdet_hvd.bench.record import record_file, write_record
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.config.load import override
from megdet_hvd.config.schema import Config
from megdet_hvd.errors import UserError

if TYPE_CHECKING:
    import torch

    from megdet_hvd.data.batch import Batch

BOXES = 8
"""Of each picture, about COCO's mean."""
SMALLEST = 64
"""Pixels; below, the last level holds nothing."""
RATE = 1e-6
"""So low that weights, and with them the work, stay as they are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table."""
    parser = make_parser("megdet_hvd.bench step", (__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--size", type=_size, default=(320, 512), metavar="HxW", help="of the pictures, pixels")
    add("--images", type=int, default=2, help="pictures in a step")
    add("--precision", choices=["float32", "bfloat16"], default="float32")
    add(
        "--norm",
        choices=["bn", "cgbn", "frozen"],
        default="bn",
        help="torchvision: frozen with frozen, else its plain BN",
    )
    add("--turns", type=int, default=5)
    add("--profile", type=int, default=0, metavar="N", help="the N costliest operators of a step")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--json", type=record_file, metavar="FILE", help="write the record there, too")
    options = parse(parser, arguments)
    for name in ("images", "turns"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: must be at least 1")
    if min(options.size) < SMALLEST:
        parser.error(f"--size {_shown(options.size)}: sides must be {SMALLEST} or more")
    _measure(options)
    return 0


def step_config(options: argparse.Namespace) -> Config:
    """The settings of a run of ours that trains what torchvision's function builds."""
    words = [
        f"global_batch={options.images}",
        f"precision={options.precision}",
        f"model.norm={options.norm}",
        f"model.frozen_stages={2 if options.norm == 'frozen' else 0}",
        f"learning.rate={RATE}",
    ]
    return override(Config(), [*words, *options.overrides])


def _measure(options: argparse.Namespace) -> None:
    import torch

    from megdet_hvd.bench.detector import CLASSES
    from megdet_hvd.bench.machine import describe_machine
    from megdet_hvd.bench.step_counts import require_same_work
    from megdet_hvd.bench.step_ours import build_ours, our_counts, our_step
    from megdet_hvd.bench.step_torchvision import as_lists, build_peer, peer_counts, peer_step
    from megdet_hvd.bench.turns import take_turns, turns_table
    from megdet_hvd.job.session import start, stop
    from megdet_hvd.model.device import autocast, pick_device

    device = pick_device(options.device)
    machine = describe_machine(device)
    print(
        f"{machine}; ResNet-50 with FPN, norm {options.norm}, {options.images} × "
        f"{_shown(options.size)} pixels, {options.precision}, {options.turns} turns",
        flush=True,
    )
    config, batch = step_config(options), pictures_of(options.size, options.images)
    detector = build_ours(config, device)
    lists = as_lists(batch)
    mixed = partial(autocast, options.precision, device)
    peer = build_peer(
        detector.state_dict(), CLASSES, options.size, frozen=options.norm == "frozen", device=device
    )
    moved = batch.to(device)
    ours, theirs = our_counts(detector, config, moved), peer_counts(peer, mixed, *as_lists(moved))
    require_same_work(ours, theirs)
    print(f"a step: {ours}", flush=True)
    sgd = torch.optim.SGD(
        [p for p in peer.parameters() if p.requires_grad],
        lr=RATE,
        momentum=config.learning.momentum,
        weight_decay=config.learning.weight_decay,
    )
    world = start()
    try:
        if world.size > 1:
            raise UserError(
                f"bench step measures one process, and {world.size} were started: run it without "
                "a launcher"
            )
        steps = {
            "ours": waited_for(our_step(detector, config, world, device, batch), device),
            "torchvision": waited_for(peer_step(peer, sgd, mixed, device, *lists), device),
        }
        sides = take_turns(steps, options.turns)
        print("\n".join(turns_table(sides)), flush=True)
        profiles = profiled(steps, options.profile, device) if options.profile else {}
    finally:
        stop()
    for name, lines in profiles.items():
        whose = "GPU" if device.type == "cuda" else "processor"
        print("\n".join([f"\n{name}, one step, {whose} ms of its costliest operators:", *lines]))
    if options.json is not None:
        names = ("size", "images", "precision", "norm", "overrides")
        settings = {name: getattr(options, name) for name in names}
        write_record(options.json, machine, settings, sides=sides, work=str(ours))


def pictures_of(size: tuple[int, int], images: int) -> "Batch":
    """Noise of that size with boxes anywhere, on the canvas that the loader would take."""
    import torch

    from megdet_hvd.bench.detector import CLASSES
    from megdet_hvd.data.batch import Batch
    from megdet_hvd.data.canvas import STRIDE
    from megdet_hvd.memory.probe import made_up

    height, width = size
    made = made_up(images, size, BOXES, CLASSES)
    canvas = torch.zeros(
        images, 3, *(-(-side // STRIDE) * STRIDE for side in size), dtype=torch.uint8
    )
    canvas[:, :, :height, :width] = made.images
    return Batch(canvas, made.infos, made.targets)


def profiled(
    steps: Mapping[str, Callable[[], None]], number: int, device: "torch.device"
) -> dict[str, list[str]]:
    """Lines with the operators, and on a GPU kernels, that take most of a step, of each side."""
    from torch.profiler import ProfilerActivity, profile

    activities, own = [ProfilerActivity.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities, own = [*activities, ProfilerActivity.CUDA], "self_device_time_total"
    found = {}
    for name, step in steps.items():
        with profile(activities=activities) as seen:
            step()
        operators = sorted(seen.key_averages(), key=lambda one: -getattr(one, own))
        found[name] = [
            f"  {getattr(one, own) / 1e3:9.1f}  {one.count:5} × {one.key}"
            for one in operators[:number]
        ]
    return found


def waited_for(step: Callable[[], None], device: "torch.device") -> Callable[[], None]:
    """``step``, and on a GPU its end."""
    if device.type != "cuda":
        return step
    import torch

    def whole() -> None:
        step()
        torch.cuda.synchronize(device)

    return whole


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().replace("×", "x").partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give height x width, as 320x512")
    return int(height), int(width)


def _shown(size: tuple[int, int]) -> str:
    return "×".join(map(str, size))
