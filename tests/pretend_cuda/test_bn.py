"""CGBN's arithmetic for CUDA: two processes as threads, against one BN layer in float64."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from megdet_hvd.bn import CrossGPUBatchNorm2d, cuda_kernels, name_layers
from megdet_hvd.bn.carriers import Carrier, SingleProcessCarrier
from megdet_hvd.bn.statistics import local_moments
from tests.bn.fused_emulation import emulated_kernels
from tests.pretend_cuda.device import CUDA, pretended_cuda

CHANNELS = 6
SHAPES = ((3, CHANNELS, 10, 12), (2, CHANNELS, 7, 5))
"""Of the two processes' inputs."""


class Meeting:
    """Where two threads add up their vectors."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2, timeout=60)
        self.vectors: dict[int, tuple[str, Tensor]] = {}

    def sum(self, rank: int, vector: Tensor, name: str) -> Tensor:
        """Over both, in the order of ranks."""
        self.vectors[rank] = name, vector
        self.barrier.wait()
        (first, one), (second, other) = self.vectors[0], self.vectors[1]
        assert first == second, f"{first} meets {second}"
        total = one + other
        self.barrier.wait()
        return total


class ThreadCarrier(Carrier):
    """One thread's way to the meeting."""

    name = "threads"

    def __init__(self, rank: int, meeting: Meeting) -> None:
        super().__init__((0, 1))
        self.rank, self.meeting = rank, meeting

    def sum(self, vector: Tensor, name: str) -> Tensor:
        """Past the watchdog's record, which knows one thread."""
        return self.meeting.sum(self.rank, vector, name)

    def _sum(self, vector: Tensor, name: str) -> Tensor:
        raise AssertionError("sum() is overridden, and nothing else calls this")


def in_two_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(work, rank) for rank in range(2)]:
            done.result()


def parts(
    dtype: torch.dtype, offset: float, shapes: Sequence[Sequence[int]], seed: int = 3
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [(value * 2 + offset).to(dtype) for value in made]


def flat(values: Sequence[Tensor]) -> Tensor:
    """All of several (N, C, H, W) as one (1, C, 1, values), in float64."""
    wide = [v.double().transpose(0, 1).reshape(v.shape[1], -1) for v in values]
    return torch.cat(wide, 1)[None, :, None]


def worst(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max() / exact.abs().max())


WIDE, HALF = (torch.float32, torch.float64), (torch.float16, torch.bfloat16)
CASES = [(d, o) for d in WIDE for o in (0.0, 100.0, 1e4)] + [(d, o) for d in HALF for o in (0, 100)]
"""Types and how far values lie from 0; half precision has a handful of values at 1e4."""


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(("dtype", "offset"), CASES)
def test_two_processes_are_one_layer(
    dtype: torch.dtype, offset: float, last: bool, fused: bool
) -> None:
    xs = parts(dtype, offset, SHAPES)
    gs = parts(dtype, 0.0, SHAPES, seed=4)
    narrow = dtype != torch.float64
    kept = torch.float32 if narrow else torch.float64
    weight, bias = parts(kept, 1.0, [(CHANNELS,), (CHANNELS,)])
    right = nn.BatchNorm2d(CHANNELS, momentum=0.3).double()
    wide = flat(xs).requires_grad_()
    with torch.no_grad():
        right.weight.copy_(weight)
        right.bias.copy_(bias)
    expected = right(wide)
    expected.backward(flat(gs))
    assert wide.grad is not None and right.weight.grad is not None
    assert right.bias.grad is not None

    form = torch.channels_last if last else torch.contiguous_format
    meeting = Meeting()
    ys: dict[int, Tensor] = {}
    inputs: dict[int, Tensor] = {}
    layers: dict[int, CrossGPUBatchNorm2d] = {}
    with pretended_cuda():
        for rank in range(2):
            layer = CrossGPUBatchNorm2d(CHANNELS, momentum=0.3).to(kept)
            with torch.no_grad():
                layer.weight.copy_(weight)
                layer.bias.copy_(bias)
            layers[rank] = layer.to(CUDA)
            layer.message_name, layer.carrier = "cgbn.it", ThreadCarrier(rank, meeting)
            layer.fused = emulated_kernels(CUDA, [dtype]) if fused else None
            inputs[rank] = xs[rank].to(CUDA).contiguous(memory_format=form).requires_grad_()
        grads = [g.to(CUDA).contiguous(memory_format=form) for g in gs]

        def work(rank: int) -> None:
            ys[rank] = layers[rank](inputs[rank])
            ys[rank].backward(grads[rank])

        in_two_threads(work)
        both = [layers[0], layers[1]]
        assert all(ys[rank].dtype == dtype for rank in ys)
        found = {
            "y": (flat([ys[0].detach().cpu(), ys[1].detach().cpu()]), expected.detach()),
            "x": (flat([v.grad.cpu() for v in inputs.values() if v.grad is not None]), wide.grad),
            "weight": (
                torch.stack([one.weight.grad.cpu() for one in both if one.weight.grad is not None])
                .double()
                .sum(0),
                right.weight.grad,
            ),
            "bias": (
                torch.stack([one.bias.grad.cpu() for one in both if one.bias.grad is not None])
                .double()
                .sum(0),
                right.bias.grad,
            ),
        }
        for layer in both:
            assert layer.running_mean is not None and layer.running_var is not None
            assert right.running_mean is not None and right.running_var is not None
            # Σx²/n − μ² in float64, beside what float32 holds of running statistics.
            close = 1e-12 + offset**2 * 1e-15 + (1e-7 * (1 + offset) if narrow else 0)
            spread = right.running_var.sqrt()
            off = (layer.running_mean.cpu().double() - right.running_mean).abs() / spread
            assert off.max() < close
            assert (
                layer.running_var.cpu() / right.running_var - 1
            ).abs().max() < close + 3e-7 * narrow
            assert layer.num_batches_tracked is not None
            assert int(layer.num_batches_tracked) == 1
    # y and gradients of half precision are rounded once; float32 inputs lose |μ|/σ·6e-8.
    rounding = {torch.float64: 1e-10 + offset**2 * 1e-16, torch.float32: 2e-6, torch.float16: 1e-3}
    limit = rounding.get(dtype, 8e-3) + offset * 3e-7 * narrow
    for what, (value, exact) in found.items():
        assert worst(value, exact) < limit, f"{what}: {worst(value, exact):.2e} > {limit:.2e}"


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_statistics_are_exact_before_they_are_stored(offset: float) -> None:
    """Whole, and in groups of images."""
    (x,) = parts(torch.float32, offset, [(5, CHANNELS, 40, 30)])
    wide = flat([x])[0, :, 0]
    spread = wide.std(1, correction=0)
    for most in (1 << 26, CHANNELS * 40 * 30 * 2):
        with pretended_cuda(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(cuda_kernels, "Z_ELEMENTS", most)
            there = x.to(CUDA)
            n, mean, variance, rounded = cuda_kernels.group_moments(local_moments(there), there)
            assert int(n) == wide.shape[1] and rounded.dtype == torch.float32
            assert ((mean.cpu() - wide.mean(1)).abs() / spread).max() < 1e-6
            assert (variance.cpu() / spread.square() - 1).abs().max() < 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_a_process_without_values_takes_part(fused: bool) -> None:
    xs = [*parts(torch.float64, 3.0, SHAPES[:1]), torch.zeros(0, CHANNELS, 4, 4).double()]
    expected = nn.BatchNorm2d(CHANNELS).double()(xs[0])
    meeting = Meeting()
    shapes: dict[int, torch.Size] = {}
    with pretended_cuda():
        layers = [CrossGPUBatchNorm2d(CHANNELS).double().to(CUDA) for _ in range(2)]
        there = [x.to(CUDA).requires_grad_() for x in xs]

        def work(rank: int) -> None:
            layers[rank].message_name = "cgbn.it"
            layers[rank].carrier = ThreadCarrier(rank, meeting)
            layers[rank].fused = emulated_kernels(CUDA, [torch.float64]) if fused else None
            y = layers[rank](there[rank])
            shapes[rank] = y.shape
            if rank == 0:
                torch.testing.assert_close(y.detach().cpu(), expected.detach())
            y.sum().backward()

        in_two_threads(work)
        assert shapes == {0: xs[0].shape, 1: xs[1].shape}
        for value in (layers[1].weight.grad, layers[1].bias.grad):
            assert value is not None and not value.cpu().any()
        assert layers[0].running_mean is not None and layers[1].running_mean is not None
        assert layers[0].running_mean.tolist() == layers[1].running_mean.tolist()


@pytest.mark.parametrize("fused", [False, True])
def test_one_value_over_the_group_is_refused(fused: bool) -> None:
    with pretended_cuda():
        layer = CrossGPUBatchNorm2d(3).to(CUDA)
        layer.carrier = SingleProcessCarrier()
        layer.fused = emulated_kernels(CUDA, [torch.float32]) if fused else None
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            layer(torch.ones(1, 3, 1, 1, device=CUDA))
        assert layer.running_var is not None and layer.running_var.tolist() == [1.0] * 3


class Twice(nn.Module):
    """Layers of several sizes and momenta, one of them called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.one = CrossGPUBatchNorm2d(4)
        self.two = CrossGPUBatchNorm2d(4, momentum=0.5)
        self.three = CrossGPUBatchNorm2d(4, momentum=None)
        self.four = CrossGPUBatchNorm2d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.four(self.three(self.two(self.one(self.one(x) * 3 + 1) * 2)))
        return found


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_running_statistics_moved_together_are_those_moved_alone(named: bool, fused: bool) -> None:
    """On the CPU layer by layer; with named layers on the device, at the end of the forward."""
    torch.manual_seed(1)
    xs = [torch.randn(3, 4, 5, 5) for _ in range(3)]
    plain = Twice()
    for layer in (plain.one, plain.two, plain.three, plain.four):
        layer.carrier = SingleProcessCarrier()
    with pretended_cuda():
        there = Twice().to(CUDA)
        for layer in (there.one, there.two, there.three, there.four):
            layer.carrier = SingleProcessCarrier()
            layer.fused = emulated_kernels(CUDA, [torch.float32]) if fused else None
        if named:
            name_layers(there)
        for x in xs:
            plain(x)
            there(x.to(CUDA))
            assert there.one.later is None
        expected = dict(plain.named_buffers())
        for name, buffer in there.named_buffers():
            torch.testing.assert_close(buffer.cpu(), expected[name], rtol=1e-5, atol=1e-6)
        assert int(there.get_buffer("one.num_batches_tracked")) == 6
        mean = there.get_buffer("one.running_mean")
        before = mean.cpu().clone()
        there.eval()(xs[0].to(CUDA))
        assert torch.equal(mean.cpu(), before)


@pytest.mark.parametrize("kind", ["statistics of half precision", "several statistics"])
def test_what_own_kernels_do_not_move_is_moved_once(kind: str) -> None:
    several = kind.startswith("several")
    dtype = torch.float32 if several else torch.float16
    (x,) = parts(dtype, 1.0, [(4, CHANNELS, 5, 5)])
    outcomes = []
    with pretended_cuda():
        for fused in (False, True):
            layer = CrossGPUBatchNorm2d(CHANNELS, images_per_statistic=2 if several else None)
            layer.to(dtype).to(CUDA)
            layer.carrier = SingleProcessCarrier()
            layer.fused = emulated_kernels(CUDA, [dtype]) if fused else None
            layer(x.to(CUDA))
            outcomes.append([buffer.cpu() for buffer in layer.buffers()])
    for one, other in zip(*outcomes, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=2e-3, atol=1e-3)
    assert int(outcomes[1][2]) == 1
