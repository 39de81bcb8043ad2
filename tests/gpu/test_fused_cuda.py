"""CGBN's own kernels on a GPU: against float64, and beside what they replace."""

from functools import cache
from itertools import product

import pytest
import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.carriers import SingleProcessCarrier
from megdet_hvd.bn.fused_check import difference
from megdet_hvd.bn.fused_kernels import FusedKernels, load
from tests.bn.fused_emulation import DTYPES
from tests.bn.test_fused import FORMS, OFFSETS, SHAPES, errors, limits, made
from tests.gpu.bn_times import measure, table, whole
from tests.ranks import run_ranks

WHOLE = ((2, 64, 400, 672), (2, 256, 200, 336), (2, 2048, 25, 42), (512, 256, 7, 7))
"""Of training at 800×1344, and of box heads."""


@cache
def kernels(dtype: torch.dtype) -> FusedKernels:
    return load(torch.device("cuda"), [dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_check_before_training_finds_them_right(dtype: torch.dtype) -> None:
    assert difference(kernels(dtype), [dtype]) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_they_are_exact(dtype: torch.dtype) -> None:
    found = []
    for shape, offset, form in product((*SHAPES, *WHOLE), OFFSETS, FORMS):
        if dtype.itemsize < 4 and offset == 1e4:
            continue
        x, g = (
            made(shape, dtype, place, seed).contiguous(memory_format=form).cuda()
            for seed, place in enumerate((offset, 0.5))
        )
        allowed = limits(offset, dtype)
        for what, error in errors(kernels(dtype), x, g).items():
            if not error <= allowed[what]:
                case = f"{shape} +{offset:g} {form}"
                found.append(f"{what} of {case}: {error:.1e} > {allowed[what]:.1e}")
    assert not found, found


@pytest.mark.parametrize("form", FORMS)
def test_bits_are_repeated(form: torch.memory_format) -> None:
    x = made((2, 64, 400, 672), torch.float32, 3.0).contiguous(memory_format=form).cuda()
    first = kernels(torch.float32).local_moments(x)
    for _ in range(50):
        assert torch.equal(kernels(torch.float32).local_moments(x), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_layer_waits_for_nothing_and_equals_the_one_on_torchs_kernels(dtype: torch.dtype) -> None:
    outcomes = []
    for fused in (None, kernels(dtype)):
        layer = CrossGPUBatchNorm2d(24).cuda()
        layer.carrier, layer.fused = SingleProcessCarrier(), fused
        x = made((4, 24, 96, 128), dtype, 5.0).cuda().requires_grad_()
        g = made((4, 24, 96, 128), dtype, 0.0, seed=1).cuda()
        layer(x).sum()  # constants are there afterwards
        torch.cuda.set_sync_debug_mode("error")
        try:
            y = layer(x)
            y.backward(g)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        parameters = [p.grad for p in layer.parameters()]
        outcomes.append([y, x.grad, *parameters, *layer.buffers()])
    rounding = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
    for one, other in zip(*outcomes, strict=True):
        assert one is not None and other is not None
        size = float(one.double().abs().max())
        assert (one.double() - other.double()).abs().max() <= rounding * size


@pytest.mark.parametrize("form", FORMS)
def test_they_are_quicker_than_what_they_replace(form: torch.memory_format) -> None:
    """All 53 layers of ResNet-50; host's and device's time together, as they come in training."""
    dtype = torch.bfloat16
    found = measure(torch.device("cuda"), dtype, form, kernels(dtype))
    plain, cgbn, fused = whole(found)
    print(f"{dtype} {form}\n{table(found)}")
    assert fused is not None and fused < cgbn, (plain, cgbn, fused)


def test_autograds_thread_may_begin_with_one_of_them() -> None:
    """A process of its own, where nothing else has run backward."""
    done = run_ranks(["-m", "tests.gpu.first_backward"], 1, launcher="python")
    assert done.returncode == 0 and "gradients are there" in done.stdout, done.stdout


def test_a_graph_repeats_a_layer() -> None:
    """All that is kept between launches lies on the device, as noughts."""
    layer = nn.Sequential(CrossGPUBatchNorm2d(16)).cuda()[0]
    assert isinstance(layer, CrossGPUBatchNorm2d)
    layer.carrier, layer.fused = SingleProcessCarrier(), kernels(torch.float32)
    x = made((2, 16, 64, 48), torch.float32, 1.0).cuda()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side), torch.no_grad():
        expected = layer(x).clone()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        y = layer(x)
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(y, expected)
    assert layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == 4


def test_graphs_do_without_one_another() -> None:
    """The second is made on the stream of the first, and runs alone."""
    x = made((2, 16, 64, 48), torch.float32, 1.0).cuda()
    expected = kernels(torch.float32).local_moments(x)
    found = []
    for _ in range(2):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            vector = kernels(torch.float32).local_moments(x)
        found.append((graph, vector))
    graph, vector = found[1]
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(vector, expected)
