"""Run by several ranks: CGBN against plain BN on the concatenated batch, in float64.

Arguments: the machine of each rank (``0,0,1,1``), or ``-`` for what the machines say.
"""

import sys
import threading
import traceback
from typing import Any

import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, convert_cross_gpu_bn
from megdet_hvd.bn.running import averaged_running_statistics
from megdet_hvd.comm.abort import end_job
from megdet_hvd.comm.exchange import gather_objects
from megdet_hvd.comm.session import start, stop
from megdet_hvd.comm.world import World

CHANNELS = 5


def close(
    found: torch.Tensor | None, expected: torch.Tensor | None, tolerance: float, what: str
) -> None:
    assert found is not None and expected is not None, what
    scale = expected.abs().max().clamp(min=1e-30) if expected.numel() else torch.tensor(1.0)
    error = (found.double() - expected.double()).abs().max() / scale if found.numel() else 0.0
    assert error <= tolerance, f"{what}: off by {float(error):.2e} of the largest value"


def parts(
    counts: list[int], sizes: list[tuple[int, int]], dtype: torch.dtype, offset: float
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The same random parts on every rank: inputs and output gradients, one of each a rank."""
    generator = torch.Generator().manual_seed(7)
    shapes = [(n, CHANNELS, h, w) for n, (h, w) in zip(counts, sizes, strict=True)]
    xs = [torch.randn(s, generator=generator, dtype=torch.float64) * 2 + offset for s in shapes]
    gs = [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]
    return [x.to(dtype) for x in xs], [g.to(dtype) for g in gs]


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    """(N, C, H, W) of any sizes as one (1, C, 1, pixels): BN sees the same values."""
    return torch.cat([t.transpose(0, 1).reshape(CHANNELS, -1) for t in tensors], 1)[None, :, None]


def split_like(whole: torch.Tensor, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    pieces = whole[0, :, 0].split([t.numel() // CHANNELS for t in tensors], 1)
    return [
        p.reshape(CHANNELS, t.shape[0], *t.shape[2:]).transpose(0, 1)
        for p, t in zip(pieces, tensors, strict=True)
    ]


def weights(layer: nn.BatchNorm2d) -> None:
    if layer.affine:
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            layer.weight.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
            layer.bias.copy_(torch.randn(CHANNELS, generator=generator))


def check_equal(
    world: World,
    counts: list[int],
    sizes: list[tuple[int, int]],
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-12,
    offset: float = 3.0,
    channels_last: bool = False,
    **settings: object,
) -> None:
    """Two steps of ours on this rank's part against plain float64 BN on the group's parts."""
    group = world.local_ranks
    if not sum(counts[r] for r in group):
        check_empty_group()
        if settings.get("affine", True):
            gather_objects(None, world, "shares")  # with the ranks of the other machines
        return
    xs, gs = parts(counts, sizes, dtype, offset)
    reference = nn.BatchNorm2d(CHANNELS, **settings).double()  # type: ignore[arg-type]
    ours = CrossGPUBatchNorm2d(CHANNELS, **settings).to(dtype)  # type: ignore[arg-type]
    weights(reference)
    weights(ours)
    own = xs[world.rank].clone()
    if channels_last:
        own = own.contiguous(memory_format=torch.channels_last)
    for step in range(2):
        whole = flat([xs[r].double() for r in group]).requires_grad_()
        expected = reference(whole)
        expected.backward(flat([gs[r].double() for r in group]))
        assert whole.grad is not None
        mine = own.detach().requires_grad_()
        y = ours(mine)
        y.backward(gs[world.rank])
        assert mine.grad is not None and y.shape == mine.shape
        at = group.index(world.rank)
        where = f"step {step}, counts {counts}, {settings}"
        close(y, split_like(expected.detach(), [xs[r] for r in group])[at], tolerance, where + " y")
        close(
            mine.grad,
            split_like(whole.grad, [xs[r] for r in group])[at],
            tolerance,
            where + " input gradient",
        )
    if reference.affine:
        shares = gather_objects((ours.weight.grad, ours.bias.grad), world, "shares")
        for name, k, whole_grad in (
            ("weight", 0, reference.weight.grad),
            ("bias", 1, reference.bias.grad),
        ):
            total = sum(shares[r][k].double() for r in group)
            close(total, whole_grad, tolerance * 10, f"{name} gradients, summed over the group")
        pixels = flat([xs[r].double() for r in group])
        mean, var = pixels.mean((0, 2, 3)), pixels.var((0, 2, 3), correction=0)
        hat = (xs[world.rank].double() - mean.view(-1, 1, 1)) / (var + ours.eps).sqrt().view(
            -1, 1, 1
        )
        share = 2 * (gs[world.rank].double() * hat).sum((0, 2, 3))
        close(shares[world.rank][0], share, tolerance * 10, "weight gradient share")
    if reference.track_running_stats:
        close(ours.running_mean, reference.running_mean, tolerance * 10, "running mean")
        close(ours.running_var, reference.running_var, tolerance * 10, "running variance")
        tracked = (ours.num_batches_tracked, reference.num_batches_tracked)
        assert [int(t) for t in tracked if t is not None] == [2, 2]


def check_empty_group() -> None:
    """A group without any image: nothing comes out, and no statistic moves."""
    layer = CrossGPUBatchNorm2d(CHANNELS)
    x = torch.zeros(0, CHANNELS, 4, 6, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape
    assert layer.weight.grad is not None and not layer.weight.grad.any()
    assert layer.running_mean is not None and not layer.running_mean.any()
    assert layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == 0


def check_eval(world: World) -> None:
    """Eval mode is nn.BatchNorm2d to the bit, and needs no other rank."""
    if world.rank == world.size - 1:
        return  # were anything sent, the others would wait for this rank for ever
    torch.manual_seed(world.rank)
    plain = nn.BatchNorm2d(CHANNELS)
    plain(torch.randn(4, CHANNELS, 3, 3) * 3)
    ours = CrossGPUBatchNorm2d(CHANNELS)
    ours.load_state_dict(plain.state_dict(), strict=True)
    x = torch.randn(2, CHANNELS, 4, 4)
    assert torch.equal(ours.eval()(x), plain.eval()(x))


def check_single_value(world: World) -> None:
    """A group with one value per channel raises nn.BatchNorm's error on all its ranks."""
    first = world.rank == world.local_ranks[0]
    layer = CrossGPUBatchNorm2d(CHANNELS)
    try:
        layer(torch.ones(1 if first else 0, CHANNELS, 1, 1))
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
    else:
        raise AssertionError("one value per channel went through")


def check_names(world: World) -> None:
    """Every message is named after its layer: one forward and one backward each."""
    import horovod.torch as hvd

    plain = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    before = {k: tuple(v.shape) for k, v in plain.state_dict().items()}
    model = convert_cross_gpu_bn(plain)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == before
    names: list[str] = []
    true_allreduce = hvd.allreduce

    def counted(tensor: torch.Tensor, **words: Any) -> Any:
        names.append(words["name"])
        return true_allreduce(tensor, **words)

    hvd.allreduce = counted
    try:
        model(torch.randn(2, 3, 4, 4)).sum().backward()
    finally:
        hvd.allreduce = true_allreduce
    if world.local_size == 1:
        assert names == [], names
    else:
        assert names == [
            "cgbn.1.forward",
            "cgbn.3.forward",
            "cgbn.3.backward",
            "cgbn.1.backward",
        ], names


def check_running_average(world: World) -> None:
    """Evaluation sees the mean of all machines' statistics; training goes on from its own."""
    layer = nn.BatchNorm2d(2)
    assert layer.running_mean is not None
    layer.running_mean.fill_(float(world.machine))
    machines = [m for m, ranks in enumerate(world.machines) for _ in ranks]
    with averaged_running_statistics(layer, world, shared=len(world.machines) == 1):
        assert torch.allclose(layer.running_mean, torch.full((2,), sum(machines) / world.size))
    assert torch.equal(layer.running_mean, torch.full((2,), float(world.machine)))


def main() -> None:
    told = None if sys.argv[1] == "-" else [int(m) for m in sys.argv[1].split(",")]
    world = start(machine_of_rank=told)
    n = world.size
    even, odd = [(4, 6)] * n, [(3 + r, 5 + 2 * r) for r in range(n)]
    check_equal(world, [2] * n, even)
    check_equal(world, [1 + r for r in range(n)], odd)
    check_equal(world, [0] + [2] * (n - 1), odd)
    check_equal(world, [3] + [0] * (n - 1), odd)
    check_equal(world, [2] * n, odd, momentum=None)
    check_equal(world, [2] * n, odd, affine=False)
    check_equal(world, [2] * n, odd, track_running_stats=False)
    check_equal(world, [2] * n, odd, channels_last=True)
    check_equal(world, [2] * n, odd, torch.float32, 1e-5)
    check_equal(world, [2] * n, odd, torch.float32, 1e-5, channels_last=True)
    check_single_value(world)
    check_names(world)
    check_running_average(world)
    check_eval(world)
    gather_objects(None, world, "end")
    print(f"rank {world.rank} of {n} on machine {world.machine}: all equal", flush=True)
    stop()


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        print(f"{threading.current_thread().name} {traceback.format_exc()}", flush=True)
        end_job(1)
