"""The BN bench's part that runs in every process: ``bench bn`` starts it, nobody else need.

Sides take turns, call by call; times are medians over the turns of the slowest rank. Those of
messages are the host's: on a GPU, which it does not wait for, they are its share alone.
"""

import json
import math
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from megdet_hvd.bench.bn_variants import OURS, OURS_MPI, settle, variants
from megdet_hvd.bench.collectives import watched_collectives
from megdet_hvd.bench.detector import put_run_kernels_to_use
from megdet_hvd.bench.launch import measure_or_end_all
from megdet_hvd.cli import make_parser, parse
from megdet_hvd.job.exchange import barrier, broadcast_object, gather_objects
from megdet_hvd.job.horovod_settings import settings_on
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.model.device import pick_device

SHAPES = ((64, 128), (256, 64), (1024, 16), (2048, 8))
"""Channels and side, from ResNet-50 at 256 pixels… and the large early layer at 512."""
BUSY_ELEMENTS = 16 << 20
"""64 MB of float32, the message of the other machine."""

RankTimings = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """One of PARTS in this process; rank 0 writes the file."""
    parser = make_parser(
        "megdet_hvd.bench.bn_ranks", (__doc__ or "").split("\n")[0], settings=False
    )
    parser.add_argument("part", choices=list(PARTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--device", default="auto")
    return measure_or_end_all(_measure, parse(parser, argv))


def _measure(options: Any) -> int:
    busy = options.part == "busy"
    world = start(
        machine_of_rank=[0, 0, 1, 1] if busy else None,
        settings=settings_on(gpu=torch.cuda.is_available() and options.device != "cpu"),
    )
    torch.set_num_threads(world.cores)
    device = pick_device(options.device, world.local_rank, world.local_size)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        _start_torch_distributed(world)
    found = PARTS[options.part](world, device, options)
    if world.is_main:
        options.out.write_text(json.dumps(found), encoding="utf-8")
    barrier(world, "bench end")
    stop()
    return 0


def _start_torch_distributed(world: World) -> None:
    """Torch's own synchronised BN, for comparison, talks through torch.distributed."""
    if world.size == 1 or len(world.machines) > 1:
        return
    address = broadcast_object(f"tcp://127.0.0.1:{free_port()}", world, "address")
    torch.distributed.init_process_group(
        "nccl", init_method=address, rank=world.rank, world_size=world.size
    )


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def isolation(world: World, device: torch.device, options: Any) -> list[RankTimings]:
    """Each layer by itself, forward and backward, all shapes one after the other."""
    made = {
        name: settle(nn.ModuleList(factory(c) for c, _ in SHAPES)).to(device).train()
        for name, factory in variants(world, device).items()
    }
    put_run_kernels_to_use(nn.ModuleList(made.values()), "float32", device, world)
    inputs = [
        torch.randn(options.images, c, side, side, device=device, requires_grad=True)
        for c, side in SHAPES
    ]
    grads = [torch.randn_like(x) for x in inputs]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    traffic: dict[str, tuple[int, int, int]] = {}
    for turn in range(4 * options.turns + 1):
        for name, layers in made.items():
            for x in inputs:
                x.grad = None
            barrier(world, "turn")
            with watched_collectives() as seen:
                forward, outputs = _timed(partial(_forward, layers, inputs), device)
                ahead = seen.count
                backward, _ = _timed(partial(torch.autograd.backward, outputs, grads), device)
            if turn:
                times[name].append((forward, backward))
            traffic[name] = (ahead, seen.count - ahead, seen.size_bytes)
    return [
        {
            "variant": name,
            "forward_s": _slowest(world, [f for f, _ in times[name]]),
            "backward_s": _slowest(world, [b for _, b in times[name]]),
            "layers": len(SHAPES),
            "forward_collectives": traffic[name][0],
            "backward_collectives": traffic[name][1],
            "bytes": traffic[name][2],
            "saved_bytes": _saved_bytes(layers, inputs),
        }
        for name, layers in made.items()
    ]


def _forward(layers: Iterable[nn.Module], inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [layer(x) for layer, x in zip(layers, inputs, strict=True)]


def step(world: World, device: torch.device, options: Any) -> list[RankTimings]:
    """A whole training step of the detector, gradients averaged by Horovod."""
    sides = []
    for name, factory in variants(world, device).items():
        sides.append((name, factory, True))
        if name in (OURS, OURS_MPI) and world.size > 1:
            sides.append((name, factory, False))
    steps = [
        (name, held, *_training_step(world, device, options, factory, held))
        for name, factory, held in sides
    ]
    whole = nn.ModuleList(detector for *_, detector in steps)
    put_run_kernels_to_use(whole, "float32", device, world)
    times: list[list[float]] = [[] for _ in steps]
    waits: list[list[float]] = [[] for _ in steps]
    sums: list[list[float]] = [[] for _ in steps]
    counts = [(0, 0)] * len(steps)
    for turn in range(options.turns + 1):
        for i, (_, _, take, _) in enumerate(steps):
            barrier(world, "turn")
            with watched_collectives() as seen:
                seconds, _ = _timed(take, device)
            counts[i] = (seen.count, seen.size_bytes)
            if turn:
                times[i].append(seconds)
                waits[i] += seen.seconds
                sums[i].append(sum(seen.seconds))
    from megdet_hvd.memory.measure import peak_bytes

    results = []
    for i, (name, held, take, detector) in enumerate(steps):
        results.append(
            {
                "variant": name,
                "gradients": "held back" if held else "as they come",
                "step_s": _slowest(world, times[i]),
                "collectives": counts[i][0],
                "bytes": counts[i][1],
                "message_s": _slowest(world, waits[i]) if waits[i] else None,
                "wait_s": _slowest(world, sums[i]),
                "worst_message_s": max(gather_objects(max(waits[i], default=0.0), world, "worst")),
                "peak_bytes": peak_bytes(take, detector, device),
            }
        )
    return results


def _training_step(
    world: World,
    device: torch.device,
    options: Any,
    factory: Callable[[int], nn.Module],
    held: bool,
) -> tuple[Callable[[], None], nn.Module]:
    import horovod.torch as hvd

    from megdet_hvd.config.schema import ModelConfig
    from megdet_hvd.memory.probe import made_up
    from megdet_hvd.model.build import build_detector

    config = ModelConfig(backbone=options.backbone, norm="bn")
    detector = settle(build_detector(config, 80, factory, seed=0)).to(device).train()
    optimizer = hvd.DistributedOptimizer(
        torch.optim.SGD(detector.parameters(), lr=1e-6),
        named_parameters=detector.named_parameters(),
        num_groups=1 if held else 0,
    )
    batch = made_up(options.images, (options.size, options.size), 8, 80).to(device)

    def take() -> None:
        optimizer.zero_grad()
        sum(part.sum() for part in detector(batch).values()).backward()
        optimizer.step()

    return take, detector


class BehindLarge(nn.Module):
    """20 BN layers, and behind them a layer of 64 MB, whose gradient is ready first."""

    def __init__(self, factory: Callable[[int], nn.Module]) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, padding=1)]
        for _ in range(20):
            layers += [factory(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1)]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(16), nn.Flatten())
        self.large = nn.Linear(32 * 16 * 16, BUSY_ELEMENTS // (32 * 16 * 16))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, …)."""
        found: torch.Tensor = self.large(self.body(images))
        return found


def behind_large_gradient(world: World, device: torch.device, options: Any) -> list[RankTimings]:
    """BN sums of a backward pass whose 64 MB gradient is ready before them."""
    import horovod.torch as hvd

    images = torch.randn(options.images, 3, 64, 64, device=device)
    sides = []
    for name, factory in variants(world, device).items():
        for held in (True, False) if name in (OURS, OURS_MPI) else ():
            model = settle(BehindLarge(factory)).to(device).train()
            optimizer = hvd.DistributedOptimizer(
                torch.optim.SGD(model.parameters(), lr=1e-9),
                named_parameters=model.named_parameters(),
                num_groups=1 if held else 0,
            )
            sides.append((name, held, model, optimizer))
    whole = nn.ModuleList(model for _, _, model, _ in sides)
    put_run_kernels_to_use(whole, "float32", device, world)
    times: list[list[float]] = [[] for _ in sides]
    waits: list[list[float]] = [[] for _ in sides]
    for turn in range(2 * options.turns + 1):
        for i, (_, _, model, optimizer) in enumerate(sides):
            barrier(world, "turn")
            optimizer.zero_grad()
            with watched_collectives() as seen:
                seconds, _ = _timed(partial(_step_behind, model, images, optimizer), device)
            if turn:
                times[i].append(seconds)
                waits[i] += seen.seconds
    return [
        {
            "variant": name,
            "gradients": "held back" if held else "as they come",
            "step_s": _slowest(world, times[i]),
            "message_s": _slowest(world, waits[i]),
            "worst_message_s": max(gather_objects(max(waits[i]), world, "worst")),
            "wait_s": sum(waits[i]) / len(times[i]),
        }
        for i, (name, held, _, _) in enumerate(sides)
    ]


def _step_behind(model: nn.Module, images: torch.Tensor, optimizer: Any) -> None:
    model(images).square().mean().backward()
    optimizer.step()


def beside_busy_machine(world: World, device: torch.device, options: Any) -> list[RankTimings]:
    """BN calls of the second machine while the first reduces 64 MB messages, and while it rests."""
    import horovod.torch as hvd

    from megdet_hvd.comm import groups

    chosen = {k: v for k, v in variants(world, device).items() if k in (OURS, OURS_MPI)}
    made = {name: settle(factory(256)).to(device).train() for name, factory in chosen.items()}
    put_run_kernels_to_use(nn.ModuleList(made.values()), "float32", device, world)
    x = torch.randn(options.images, 256, 64, 64, device=device, requires_grad=True)
    large = torch.zeros(BUSY_ELEMENTS, device=device)
    group = groups.bn_group()
    results = []
    for name, layer in made.items():
        for busy in (False, True):
            barrier(world, "turn")
            calls: list[tuple[float, float]] = []
            span = (-math.inf, math.inf)
            if world.machine == 0 and busy:
                assert group is not None
                began = time.time()
                for k in range(4 * options.turns):
                    hvd.allreduce(
                        large, name=f"busy.{k}", op=hvd.Sum, process_set=group.process_set
                    )
                span = (began, time.time())
            elif world.machine == 1:
                for _ in range(8 * options.turns):
                    began = time.time()
                    with watched_collectives() as seen:
                        layer(x).sum().backward()
                    calls += [(began, s) for s in seen.seconds]
            # One machine pretends to be two, so that they have one clock. Calls that began while
            # the other had nothing left to send are not counted.
            first, last = gather_objects(span, world, "span")[0]
            every = [
                seconds
                for own in gather_objects(calls, world, "calls")
                for began, seconds in own
                if first <= began <= last
            ]
            results.append(
                {
                    "variant": name,
                    "other machine": "64 MB messages" if busy else "at rest",
                    "calls": len(every),
                    "message_s": statistics.median(every),
                    "worst_message_s": max(every),
                }
            )
    return results


PARTS = {
    "isolation": isolation,
    "step": step,
    "behind": behind_large_gradient,
    "busy": beside_busy_machine,
}


def _timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    result = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, result


def _slowest(world: World, seconds: Sequence[float]) -> float:
    """The largest of the ranks' medians."""
    return float(max(gather_objects(statistics.median(seconds), world, "slowest")))


def _saved_bytes(layers: nn.ModuleList, inputs: Sequence[torch.Tensor]) -> int:
    """What the layers keep for their backward besides the inputs and parameters themselves."""
    known = {
        x.untyped_storage().data_ptr() for x in [*inputs, *layers.parameters(), *layers.buffers()]
    }
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = _forward(layers, inputs)
        assert outputs
    return sum(kept.values())


if __name__ == "__main__":
    sys.exit(main())
