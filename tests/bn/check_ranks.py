"""Called by several ranks: CGBN against plain BN on the concatenated batch, in float64."""

from collections.abc import Sequence

import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, carrier_of, convert_cross_gpu_bn
from megdet_hvd.bn.running import averaged_running_statistics
from megdet_hvd.bn.tape import Tape
from megdet_hvd.comm import groups
from megdet_hvd.errors import UserError
from megdet_hvd.job.exchange import gather_objects
from megdet_hvd.job.session import start, stop
from megdet_hvd.job.world import Machines, World, machines_of
from tests.bn.sent import watched_messages
from tests.comm.peer.emulated import open_emulated

CHANNELS = 5
carrier = "horovod"
"""The one being checked."""


def group_ranks() -> tuple[int, ...]:
    group = groups.bn_group()
    assert group is not None
    return group.ranks


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
    group = group_ranks()
    if not sum(counts[r] for r in group):
        check_empty_group()
        if settings.get("affine", True):
            gather_objects(None, world, "shares")  # with the ranks of the other machines
        return
    xs, gs = parts(counts, sizes, dtype, offset)
    reference = nn.BatchNorm2d(CHANNELS, **settings).double()  # type: ignore[arg-type]
    ours = CrossGPUBatchNorm2d(CHANNELS, carrier=carrier, **settings).to(dtype)  # type: ignore[arg-type]
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
    layer = CrossGPUBatchNorm2d(CHANNELS, carrier=carrier)
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
    first = world.rank == group_ranks()[0]
    layer = CrossGPUBatchNorm2d(CHANNELS, carrier=carrier)
    try:
        layer(torch.ones(1 if first else 0, CHANNELS, 1, 1))
    except ValueError as error:
        assert "more than 1 value per channel" in str(error)
    else:
        raise AssertionError("one value per channel went through")


class Levels(nn.Module):
    """A BN layer called at three pyramid levels, another one behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.last = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [x, x[:, :, ::2], x[:, :, ::3]]
        total: torch.Tensor = self.last(
            sum(self.shared(level).mean((2, 3), True) for level in levels)
        )
        return total


def check_messages(world: World) -> None:
    """One forward and one backward message a call, numbered, the same in every step."""
    plain = nn.Sequential(Levels())
    before = {k: tuple(v.shape) for k, v in plain.state_dict().items()}
    model = convert_cross_gpu_bn(plain, carrier=carrier)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == before
    steps = 3
    with watched_messages() as sent:
        for _ in range(steps):
            model(torch.randn(2, 4, 6, 6)).square().sum().backward()
    names = [f"cgbn.0.shared.{way}.{k}" for way in ("forward", "backward") for k in range(3)]
    names += ["cgbn.0.last.forward.0", "cgbn.0.last.backward.0"]
    if len(group_ranks()) == 1:
        assert not sent.names, sent.names
    else:
        assert dict(sent.counts) == dict.fromkeys(names, steps), sent.counts
        assert sent.bytes == steps * 8 * 4 * ((1 + 2 * 4) + 2 * 4), sent.bytes


def check_tape(world: World) -> None:
    """A segment computed again takes its statistics from the tape: nothing sent, nothing moved."""
    torch.manual_seed(world.rank)
    model = convert_cross_gpu_bn(
        nn.Sequential(nn.BatchNorm2d(4), nn.BatchNorm2d(4)), carrier=carrier
    )
    x = torch.randn(2, 4, 6, 6)
    tape = Tape()
    with tape.recording():
        first = model(x)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with watched_messages() as sent:
        with tape.replaying():
            again = model(x.requires_grad_())
        assert torch.equal(first, again) and not sent.names
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        again.square().sum().backward()
    assert x.grad is not None
    expected = {f"cgbn.{k}.backward.0": 1 for k in (0, 1)} if len(group_ranks()) > 1 else {}
    assert dict(sent.counts) == expected, sent.counts


def check_exact(world: World) -> None:
    """Far from zero: statistics to 10⁻⁶, outputs and gradients no worse than torch's own."""
    group = group_ranks()
    for offset, tolerance in ((0.0, 1e-5), (100.0, 1e-5), (1e4, None), (-1e4, None)):
        for last in (False, True):
            generator = torch.Generator().manual_seed(11)
            whole = torch.randn(len(group), 8, 16, 24, generator=generator, dtype=torch.float64)
            x32 = (whole + offset).float()
            g32 = torch.randn(x32.shape, generator=generator)
            if last:
                x32 = x32.contiguous(memory_format=torch.channels_last)
            exact, torchs = nn.BatchNorm2d(8).double(), nn.BatchNorm2d(8)
            ours = CrossGPUBatchNorm2d(8, momentum=1.0, carrier=carrier)
            at = group.index(world.rank)
            wide = x32.double().requires_grad_()
            reference = exact(wide)
            reference.backward(g32.double())
            theirs_x = x32.clone().requires_grad_()
            theirs = torchs(theirs_x)
            theirs.backward(g32)
            mine_x = x32[at : at + 1].clone().requires_grad_()
            tape = Tape()
            with tape.recording():
                mine = ours(mine_x)
            mine.backward(g32[at : at + 1])
            stored = tape.recall(ours)
            spread = x32.double().std((0, 2, 3), correction=0)
            mean_error = ((stored.mean - x32.double().mean((0, 2, 3))).abs() / spread).max()
            variance_error = (stored.variance / spread.square() - 1).abs().max()
            assert mean_error < 1e-6 and variance_error < 1e-6, (offset, mean_error, variance_error)
            assert wide.grad is not None and theirs_x.grad is not None and mine_x.grad is not None
            pairs = {
                "y": (mine, theirs[at : at + 1], reference[at : at + 1]),
                "input gradient": (
                    mine_x.grad,
                    theirs_x.grad[at : at + 1],
                    wide.grad[at : at + 1],
                ),
            }
            part, own_g = x32[at : at + 1].double(), g32[at : at + 1].double()
            mean = x32.double().mean((0, 2, 3)).view(1, -1, 1, 1)
            hat = (part - mean) / (spread.square() + ours.eps).sqrt().view(1, -1, 1, 1)
            close(ours.weight.grad, (own_g * hat).sum((0, 2, 3)), 1e-5, f"weight at {offset}")
            close(ours.bias.grad, own_g.sum((0, 2, 3)), 1e-5, f"bias at {offset}")
            for what, (own, other, right) in pairs.items():
                scale = right.abs().max()
                error = float((own.double() - right).abs().max() / scale)
                rival = float((other.double() - right).abs().max() / scale)
                limit = max(rival, 1e-6) if tolerance is None else tolerance
                assert error <= limit, f"{what} at mean {offset}: {error:.2e}, torch's {rival:.2e}"


def check_half(world: World) -> None:
    """float16 and bfloat16 in and out, float32 statistics; under autocast too."""
    group = group_ranks()
    for dtype, step in ((torch.float16, 2**-10), (torch.bfloat16, 2**-7)):
        generator = torch.Generator().manual_seed(5)
        whole = (torch.randn(len(group), 6, 9, 7, generator=generator) * 3 + 5).to(dtype)
        g = torch.randn(whole.shape, generator=generator).to(dtype)
        wide = whole.double().requires_grad_()
        right = nn.BatchNorm2d(6).double()(wide)
        right.backward(g.double())
        at = group.index(world.rank)
        x = whole[at : at + 1].clone().requires_grad_()
        layer = CrossGPUBatchNorm2d(6, carrier=carrier)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = layer(x)
        assert y.dtype == dtype and layer.running_mean is not None
        assert layer.running_mean.dtype == torch.float32
        y.backward(g[at : at + 1])
        assert x.grad is not None and x.grad.dtype == dtype and wide.grad is not None
        close(y, right[at : at + 1].detach(), step, f"{dtype} y")
        close(x.grad, wide.grad[at : at + 1], step, f"{dtype} gradient")


def check_refused() -> None:
    """The MPI carrier says why it can't serve."""
    group = groups.bn_group()
    try:
        carrier_of(group, "mpi")
    except UserError as error:
        assert "bn.carrier=horovod" in str(error)
    else:
        assert group is None or len(group.ranks) == 1, "mpi without MPI went through"


def check_running_average(world: World) -> None:
    """Evaluation sees the mean of all machines' statistics; training goes on from its own."""
    layer = nn.BatchNorm2d(2)
    assert layer.running_mean is not None
    layer.running_mean.fill_(float(world.machine))
    machines = [m for m, ranks in enumerate(world.machines) for _ in ranks]
    with averaged_running_statistics(layer, world.size, shared=len(world.machines) == 1):
        assert torch.allclose(layer.running_mean, torch.full((2,), sum(machines) / world.size))
    assert torch.equal(layer.running_mean, torch.full((2,), float(world.machine)))


def check_all(world: World) -> None:
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
    check_exact(world)
    check_half(world)
    check_single_value(world)
    check_messages(world)
    check_tape(world)


def equal_to_plain_bn(
    machines: Sequence[int] | None, words: Sequence[str], sharing: Sequence[int] | None = None
) -> None:
    """Everything above.

    ``machines``: of each rank; None: what the machines say. ``words``: the carriers to check, or
    ``refused`` where ``mpi`` can't serve; ``peer``'s kernel runs on the CPU. ``sharing``: the group
    of each rank, where it is not its machine.
    """
    global carrier
    shares: Machines | None = None if sharing is None else machines_of(sharing)
    world = start(
        machine_of_rank=machines, bn_groups=None if shares is None else lambda machines: shares
    )
    for word in words:
        if word == "refused":
            check_refused()
            continue
        carrier = word
        if word == "peer":
            open_emulated(world)
        check_all(world)
    check_running_average(world)
    check_eval(world)
    gather_objects(None, world, "end")
    stop()
