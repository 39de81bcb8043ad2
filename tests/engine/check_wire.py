"""Called by several ranks: what happens to gradients, and to a step's status, between processes.

Every rank can draw every rank's gradients from seeds, so that each knows the mean without asking.
"""

import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from megdet_hvd.config.load import load_config
from megdet_hvd.config.schema import Config
from megdet_hvd.engine.step.compression import Wire, wire_for
from megdet_hvd.engine.step.loop import apply_gradients
from megdet_hvd.engine.step.optimizer import build_optimizer
from megdet_hvd.engine.step.status import StatusMessage
from megdet_hvd.errors import RunError
from megdet_hvd.job.agree import is_agreed
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.horovod_settings import HorovodSettings
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import World
from megdet_hvd.model.balance import SampleBalance, drawn
from megdet_hvd.model.detector import LOSSES

REPEATS = 25
SHAPES = ((7, 5, 3, 3), (64, 3, 7, 7), (11, 13, 1, 1), (5, 1, 3, 3), (129, 31), (13,), (1,), ())


class Weights(nn.Module):
    """Parameters and nothing else; 4-d ones lie channels_last."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> None:
        super().__init__()
        self.all = nn.ParameterList()
        for i, shape in enumerate(shapes):
            weight = torch.full(shape, 0.5 + i, dtype=dtype)
            if weight.dim() == 4:
                weight = weight.contiguous(memory_format=torch.channels_last)
            self.all.append(nn.Parameter(weight))


def gradients_of(rank: int, shapes: Sequence[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    """What ``rank`` contributes, between -1 and 1, with all the digits a float32 has."""
    generator = torch.Generator().manual_seed(1000 + rank)
    return [torch.randn(s, generator=generator).div(3).clamp(-1, 1).to(dtype) for s in shapes]


def backward(model: Weights, gradients: Sequence[Tensor]) -> None:
    """Σ ⟨parameter, gradient⟩, whose gradient is just that."""
    parts = [(p * g).sum().double() for p, g in zip(model.all, gradients, strict=True)]
    torch.stack(parts).sum().backward()


def settings(*more: str) -> Config:
    return load_config(None, ["learning.momentum=0", "learning.weight_decay=0", *more])


def check_mean(world: World, dtype: torch.dtype, compression: str, predivide: float) -> None:
    model = Weights(SHAPES, dtype)
    config = settings(f"horovod.compression={compression}", f"horovod.predivide={predivide}")
    optimizer = build_optimizer(model, config)
    everyone = [gradients_of(rank, SHAPES, dtype) for rank in range(world.size)]
    backward(model, everyone[world.rank])
    optimizer.synchronize()
    halves = dtype == torch.float16 or (compression == "fp16" and dtype == torch.float32)
    # Values up to 1 in 11 binary digits, sums up to the number of ranks; or float's own digits.
    allowed = 2**-11 * 2 * world.size if halves else 4 * torch.finfo(dtype).eps
    for i, parameter in enumerate(model.all):
        mean = torch.stack([own[i].double() for own in everyone]).mean(dim=0)
        found = parameter.grad
        assert found is not None and found.dtype == dtype
        assert found.stride() == parameter.stride(), f"{found.stride()} {parameter.stride()}"
        error = float((found.double() - mean).abs().max())
        told = f"{dtype} {compression} predivide {predivide} {SHAPES[i]}: off by {error:.1e}"
        assert error <= allowed, told
        if halves and parameter.numel() > 100:
            assert error > 1e-6, f"{told}: it can't have travelled as float16"
    with optimizer.skip_synchronize():
        optimizer.step()
    flat = torch.cat([p.detach().flatten().double() for p in model.all])
    sums = gather_objects(flat, world, "weights")
    assert all(torch.equal(one, sums[0]) for one in sums), "ranks differ after the step"


def check_mixed_types(world: World) -> None:
    """float64 parameters beside float32 ones in one group."""
    model = Weights(((300,), (301,)), torch.float32)
    model.all[1].data = model.all[1].data.double()
    optimizer = build_optimizer(model, settings("horovod.compression=fp16"))
    torch.stack([p.double().sum() * (world.rank + 0.1) for p in model.all]).sum().backward()
    optimizer.synchronize()
    mean = (world.size - 1) / 2 + 0.1
    first, second = (p.grad for p in model.all)
    assert first is not None and second is not None
    assert (first - mean).abs().max() < 0.01 and (second - mean).abs().max() < 1e-14


def check_layouts(world: World) -> None:
    """Ranks whose gradients lie differently in memory still add up element by element."""
    import horovod.torch as hvd

    for wire in (Wire(False, 1.0, 1.0), Wire(True, 1.0, 1.0)):
        own = torch.arange(2.0 * 2 * 2 * 2).view(2, 2, 2, 2)
        if world.rank == 1:
            own = own.contiguous(memory_format=torch.channels_last)
        sent, own = wire.compress(own)
        (total,) = hvd.synchronize(hvd.grouped_allreduce_async_([sent], name="mix", op=hvd.Sum))
        expected = world.size * torch.arange(16.0).view(2, 2, 2, 2)
        assert torch.equal(wire.decompress(total, own), expected)


def check_overflow(world: World) -> None:
    """4·10⁴ on every rank: the sum is beyond float16, the mean is not."""
    shapes = ((3,), (40, 3))
    for predivide, fits in ((1, False), (world.size, True)):
        model = Weights(shapes, torch.float32)
        before = [p.detach().clone() for p in model.all]
        config = settings("horovod.compression=fp16", f"horovod.predivide={predivide}")
        optimizer = build_optimizer(model, config)
        backward(model, [torch.ones(3), torch.full((40, 3), 4e4)])
        message = StatusMessage(world, torch.device("cpu"))
        message.send()
        try:
            apply_gradients(model, optimizer, None, config, world, message, "", 7)
        except RunError as error:
            assert not fits and is_agreed(error), error
            told = str(error)
            assert told.startswith("iteration 7: the gradient of all.1, averaged"), told
            assert "horovod.predivide" in told, told
            assert all(torch.equal(p, old) for p, old in zip(model.all, before, strict=True))
        else:
            assert fits, "an infinite gradient entered the weights"
            assert model.all[1].grad is not None
            assert (model.all[1].grad / 4e4 - 1).abs().max() < 2**-10


def differing_tensors(world: World, build: Callable[[nn.Module], Any]) -> int:
    """Of 32 tensors in each of REPEATS steps, those that differ from the first step's.

    Gradients are ready in another order, and at other times, in each step and on each rank.
    """
    draw = random.Random(world.rank)
    shapes = [(2 * i**3 + 3,) for i in range(30)] + [(150_001,), (257, 131)]
    model = Weights(shapes, torch.float32)
    for parameter in model.all:
        parameter.register_hook(lambda _: time.sleep(draw.random() * 6e-4))
    optimizer = build(model)
    own = gradients_of(world.rank, shapes, torch.float32)
    first: list[Tensor] = []
    differing = 0
    for _ in range(REPEATS):
        optimizer.zero_grad()
        order = list(range(len(shapes)))
        draw.shuffle(order)
        parts = [(model.all[i] * own[i]).sum() for i in order]
        torch.stack(parts).sum().backward()
        optimizer.synchronize()
        found = [p.grad.clone() for p in model.all if p.grad is not None]
        first = first or found
        differing += sum(not torch.equal(a, b) for a, b in zip(first, found, strict=True))
    return differing


def deterministic(model: nn.Module) -> Any:
    """The optimizer under test."""
    return build_optimizer(model, settings("deterministic=true"))


def as_ready(model: nn.Module) -> Any:
    """Horovod's own way: each gradient goes as soon as it is ready, fused with what is there."""
    import horovod.torch as hvd

    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    return hvd.DistributedOptimizer(sgd, named_parameters=model.named_parameters())


def check_balance(world: World) -> None:
    """Rank r holds r pictures in each of two passes; rank 0 none at all."""
    message = StatusMessage(world, torch.device("cpu"))
    counts = {
        (rank, step): [(rank + step + i, 4 + rank + i) for i in range(rank)]
        for rank in range(world.size)
        for step in range(2)
    }
    for step in range(2):
        mine = counts[world.rank, step]
        losses = {part: torch.zeros(len(mine)) for part in LOSSES}
        rpn = drawn([p for p, _ in mine], [2 * n for _, n in mine])
        box = drawn([p for p, _ in mine], [4 * n for _, n in mine])
        message.add(losses, SampleBalance(rpn, box), len(mine), 0)
    message.send()
    status = message.read(1, "")
    shares = [p / n for pictures in counts.values() for p, n in pictures]
    assert status.images == len(shares) == world.size * (world.size - 1)
    for stage, divisor in (("rpn", 2), ("box", 4)):
        expected = [share / divisor for share in shares]
        mean, spread = statistics.fmean(expected), statistics.pstdev(expected)
        assert abs(status.balance[f"{stage}_foreground"] - mean) < 1e-12
        assert abs(status.balance[f"{stage}_foreground_spread"] - spread) < 1e-12


def the_wire_holds() -> None:
    """Everything above."""
    world = start(settings=HorovodSettings(deterministic=True))
    for predivide in (1, 2, world.size):
        for compression in ("none", "fp16"):
            for dtype in (torch.float32, torch.float64):
                check_mean(world, dtype, compression, predivide)
    check_mean(world, torch.float16, "fp16", 1)
    check_mixed_types(world)
    check_layouts(world)
    check_overflow(world)
    check_balance(world)
    assert wire_for(settings().horovod, world.size).after * world.size == 1
    differing = differing_tensors(world, deterministic)
    assert differing == 0, f"{differing} of {(REPEATS - 1) * 32} tensors differ in some bit"
    stop()
    if world.launcher == "mpirun" and world.size == 3:
        # The same with Horovod's own settings does differ: the check above can fail.
        start()
        assert differing_tensors(world, as_ready) > 0, "the order of sums was never another one"
        stop()
