"""CGBN's own CUDA kernels: they compile for GPUs, and from the same source compute on the CPU."""

import os
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple
from unittest import mock

import pytest
import torch
from torch import Tensor

from megdet_hvd.bn import cuda_kernels, fused_kernels
from megdet_hvd.bn.fused_check import difference
from megdet_hvd.bn.fused_kernels import FusedKernels, GroupStatistics, Moving, cut_of, layout_of
from megdet_hvd.bn.fused_source import BLOCK, kernel_names, source
from megdet_hvd.bn.later_updates import RunningStatistics
from megdet_hvd.cuda import nvrtc
from megdet_hvd.cuda.error import NoCudaLibrary
from tests.bn.fused_emulation import DTYPES, Edit, as_it_is, emulated_kernels
from tests.pretend_cuda.device import CUDA, pretended_cuda

FORMS = (torch.contiguous_format, torch.channels_last)
SHAPES = (
    (4, 3, 80, 64),  # several pieces, and the widest loads
    (2, 6, 7, 5),  # single values
    (1, 3, 1, 2),
    (5, 37, 1, 1),
    (9, 72, 6, 11),  # several tiles of channels, not all full
)
OFFSETS = (0.0, 100.0, 1e4)
EPS = 1e-5


COMPILED = [*((dtype, (9, 0)) for dtype in DTYPES), *((torch.float16, (n, 0)) for n in (8, 10))]
"""float16's source has the most in it."""


@pytest.mark.parametrize(("dtype", "capability"), COMPILED)
def test_they_compile(dtype: torch.dtype, capability: tuple[int, int]) -> None:
    try:
        nvrtc.version()
    except NoCudaLibrary as error:
        if os.environ.get("MEGDET_NEED_NVRTC"):
            raise
        pytest.skip(f"that CGBN's kernels compile was not checked: {error}")
    code = nvrtc.compile_cubin(source(dtype), capability)
    missing = [name for name in kernel_names(dtype) if name.encode() not in code]
    assert not missing


def made(shape: tuple[int, ...], dtype: torch.dtype, offset: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * 2 + offset).to(dtype)


def wide(x: Tensor) -> Tensor:
    """(C, values), float64."""
    return x.double().transpose(0, 1).reshape(x.shape[1], -1)


def exact_moments(x: Tensor) -> Tensor:
    values = wide(x)
    n, mean = values.shape[1], values.mean(1)
    deviations = (values - mean[:, None]).square().sum(1)
    count = torch.tensor([n], dtype=torch.float64)
    return torch.cat([count, n * mean, deviations + n * mean * mean])


def errors(kernels: FusedKernels, x: Tensor, g: Tensor) -> dict[str, float]:
    """Of all that is computed for one process, of the spread or of the largest value."""
    values, channels = wide(x), x.shape[1]
    deviation = values.std(1, correction=0)
    n = values.shape[1]
    total = kernels.local_moments(x)
    kept = cuda_kernels.kept_type(x)
    running = RunningStatistics(
        x.new_full((channels,), 3.0, dtype=kept),
        x.new_full((channels,), 2.0, dtype=kept),
        torch.tensor(6, device=x.device),
    )
    found = kernels.statistics(total, x, EPS, Moving(running, 0.25))
    mean, variance = values.mean(1), deviation.square()
    size = mean.abs() + deviation
    inverse = (variance + EPS).rsqrt()
    weight = x.new_ones(channels, dtype=kept)
    sums = kernels.backward_sums(g, x, found.rounded, found.inverse, weight)
    assert sums.weight is not None and sums.bias is not None and running.batches is not None
    slopes = wide(g)
    centred = slopes * (values - found.rounded[:, None])
    absolute = centred.abs().sum(1) + 1e-300
    assert int(found.n) == n and int(running.batches) == 7
    unbiased = variance * n / (n - 1)
    return {
        "mean": float(((found.mean - mean) / size).abs().max()),
        "variance": float((found.variance - variance).abs().div(variance + size**2 * 1e-15).max()),
        "rounded": float(((found.rounded - mean) / size).abs().max()),
        "inverse": float((found.inverse / inverse - 1).abs().max()),
        "running mean": float(((running.mean - (2.25 + mean / 4)) / (size + 3)).abs().max()),
        "running variance": float((running.variance / (1.5 + unbiased / 4) - 1).abs().max()),
        "sum": float((sums.vector[:channels] - slopes.sum(1)).abs().max() / slopes.abs().sum()),
        "centred": float(((sums.vector[channels:] - centred.sum(1)) / absolute).abs().max()),
        "weight": float(
            ((sums.weight - centred.sum(1) * found.inverse) / (absolute * inverse)).abs().max()
        ),
        "bias": float((sums.bias - slopes.sum(1)).abs().max() / slopes.abs().sum(1).max()),
    }


def limits(offset: float, dtype: torch.dtype) -> dict[str, float]:
    """σ² = S2/n − μ² in float64 loses (μ/σ)²·1e-16; what is stored is rounded once."""
    lost = 1e-13 + offset**2 * 1e-14
    rounding = 2e-15 if dtype == torch.float64 else 1.3e-7
    exact = {"mean": 1e-14, "variance": lost, "sum": 1e-14, "centred": 1e-13}
    stored = {"rounded", "running mean", "running variance", "weight", "bias", "inverse"}
    return exact | dict.fromkeys(stored, rounding + lost)


@pytest.fixture(autouse=True)
def _nothing_left_in_memory() -> Iterator[None]:
    """torch fills new memory with NaN: what a kernel does not write shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


def failures(
    dtypes: Sequence[torch.dtype] = DTYPES,
    edit: Edit = as_it_is,
    fault: int = 0,
    block: int = BLOCK,
) -> Iterator[str]:
    """What is off, over types, layouts, offsets and sizes, and either order of threads."""
    for dtype, backwards in product(dtypes, (False, True)):
        kernels = emulated_kernels(
            dtypes=[dtype], edit=edit, fault=fault, backwards=backwards, block=block, processors=3
        )
        for shape, offset, form in product(SHAPES, OFFSETS, FORMS):
            if dtype.itemsize < 4 and offset == 1e4:  # a handful of values there, or but one
                continue
            x = made(shape, dtype, offset).contiguous(memory_format=form)
            g = made(shape, dtype, 0.5, seed=1).contiguous(memory_format=form)
            allowed = limits(offset, dtype)
            for what, error in errors(kernels, x, g).items():
                if not error <= allowed[what]:
                    case = f"{dtype} {shape} +{offset:g} {form}"
                    yield f"{what} of {case}: {error:.1e} > {allowed[what]:.1e}"


def test_they_are_exact() -> None:
    assert not (found := list(failures())), found
    assert not (found := list(failures([torch.float32, torch.float64], block=16))), found


def test_the_check_before_training_finds_nothing() -> None:
    with pretended_cuda():
        assert difference(emulated_kernels(CUDA), DTYPES) is None


class Fault(NamedTuple):
    """A mistake that the source could have."""

    where: str
    """Stands there once, and has ``right`` in it once."""
    right: str
    wrong: str
    """A statement or two, or, as ``right``, a value."""

    @property
    def is_value(self) -> bool:
        return not self.right.endswith(";")


FAULTS = (
    Fault("b = fma(d, d, b);", "b = fma(d, d, b);", "b = (float)fma(d, d, b);"),
    Fault("const { a += d;", "a += d;", "a = (float)(a + d);"),
    Fault("mean = centre(c) + residual", "centre(c)", "0"),
    Fault("m2 = b - a * residual", "a * residual", "0"),
    Fault("last = atomicAdd(ticket, 1u) ==", "atomicAdd(ticket, 1u)", "atomicAdd(ticket, 1u) + 1"),
    Fault("if (last) *ticket = 0;", "*ticket = 0;", "*ticket = 1;"),
    Fault("half /= 2) {\n    __syncthreads();", "__syncthreads();", ""),
    Fault("within -= plane;\n      ++image;", "++image;", ""),
    Fault("unbiased = variance * (n / (n - 1))", "(n / (n - 1))", "1"),
    Fault("if (group < groups) {", "group < groups", "group < groups / 2"),
    Fault("&& column < packs; row", "column < packs", "column < packs - 1"),
    Fault("row < end &&", "row < end", "row < end - 1"),
    Fault("grad_weight[c] = (Kept)(b * inverse[c])", "inverse[c]", "1"),
    Fault("b = fma(g, d, b)", "fma(g, d, b)", "fma(g, (float)d + 1e-7, b)"),
    Fault("mean = total[1 + c] / safe;", "total[1 + c] / safe", "0.0 / 0.0"),
)


def with_faults(text: str) -> str:
    """Each is there where ``emulated_fault`` is its number, from 1 on."""
    for number, fault in enumerate(FAULTS, 1):
        assert text.count(fault.where) == 1 and fault.where.count(fault.right) == 1, fault
        mark = f"emulated_fault == {number}"
        if fault.is_value:
            changed = f"({mark} ? ({fault.wrong}) : ({fault.right}))"
        else:
            changed = f"{{ if ({mark}) {{ {fault.wrong} }} else {{ {fault.right} }} }}"
        text = text.replace(fault.where, fault.where.replace(fault.right, changed))
    return text


@pytest.mark.parametrize("number", range(len(FAULTS) + 1))
def test_planted_faults_are_found(number: int) -> None:
    found = next(failures((torch.float32,), with_faults, number), None)
    assert (found is None) == (number == 0), found
    with pretended_cuda():
        kernels = emulated_kernels(CUDA, [torch.float32], edit=with_faults, fault=number)
        told = difference(kernels, [torch.float32])
    assert (told is None) == (number == 0), told


def test_bits_do_not_depend_on_which_block_ends_last() -> None:
    x = made((6, 3, 80, 64), torch.float32, 7.0)
    for form in FORMS:
        there = x.contiguous(memory_format=form)
        forward, backward = (
            emulated_kernels(dtypes=[x.dtype], processors=8, backwards=way).local_moments(there)
            for way in (False, True)
        )
        assert cut_of(layout_of(there), 8).pieces > 1
        assert torch.equal(forward, backward)


def test_every_value_of_half_precision_is_read_as_torch_reads_it() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        kernels = emulated_kernels(dtypes=[dtype])
        bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
        every = bits.view(dtype)
        x = torch.stack([torch.zeros_like(every), every]).view(2, -1, 1, 1)
        found = kernels.local_moments(x)[1 : 1 + len(every)]
        expected = every.double()
        finite = expected.isfinite()
        assert torch.equal(found[finite], expected[finite])
        assert not found[~finite].isfinite().any() and (~finite).any()


def test_there_are_tickets_for_all_blocks() -> None:
    """A block without one would write beside them."""
    kernels = emulated_kernels(dtypes=[torch.float32])
    like = torch.zeros(1)
    most = fused_kernels.MOST_CHANNELS
    assert len(kernels._tickets_of(0, 3, like)) == most
    more = kernels._tickets_of(0, most + 5, like)
    assert len(more) == most + 5 and not more.any()
    assert kernels._tickets_of(0, most, like) is more, "a kernel may have it still"
    assert kernels._tickets_of(1, 3, like) is not more, "streams run at the same time"


def test_what_a_graph_has_as_noughts_serves_that_graph_alone() -> None:
    """Nothing is set to nought when a graph is made: only when it runs, in its own memory."""
    making = True
    kernels = emulated_kernels(dtypes=[torch.float32], captured=lambda: making)
    x = made((4, 3, 80, 64), torch.float32, 1.0)
    assert cut_of(layout_of(x), 2).pieces > 1
    zeros = torch.Tensor.new_zeros

    def not_yet(like: Tensor, *size: int, **options: Any) -> Tensor:
        return zeros(like, *size, **options).fill_(77)

    with mock.patch.object(torch.Tensor, "new_zeros", not_yet):
        kernels.local_moments(x)  # as a graph's first launch: what it leaves is not to be used
    torch.testing.assert_close(kernels.local_moments(x), exact_moments(x))
    making = False
    torch.testing.assert_close(kernels.local_moments(x), exact_moments(x))


def test_gradients_that_lie_otherwise_are_brought_into_line() -> None:
    kernels = emulated_kernels(dtypes=[torch.float32])
    x, g = made((2, 6, 8, 5), torch.float32, 1.0), made((2, 6, 8, 5), torch.float32, 0.0, seed=2)
    expected = wide(g).sum(1)
    mean, inverse = torch.zeros(6), torch.ones(6)
    ways = [
        (x.contiguous(memory_format=first), g.contiguous(memory_format=second))
        for first, second in product(FORMS, FORMS)
    ]
    gaps = (x.repeat(1, 1, 1, 2)[..., :5], g[:, :1].expand(2, 6, 8, 5))
    for one, other in [*ways, gaps]:
        right = expected if other is not gaps[1] else wide(gaps[1]).sum(1)
        found = kernels.backward_sums(other, one, mean, inverse, None)
        assert found.weight is None and found.bias is None
        torch.testing.assert_close(found.vector[:6], right, rtol=1e-12, atol=1e-12)


def test_loads_are_as_wide_as_addresses_and_sizes_allow() -> None:
    whole = torch.zeros(2 * 8 * 4 * 6 + 1, dtype=torch.float16)
    x = whole[:-1].view(2, 8, 4, 6)
    odd = whole[1:].view(2, 8, 4, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    assert (layout_of(x).name, layout_of(x).width) == ("planes", 8)
    assert layout_of(odd).width == layout_of((x, odd)).width == 1
    assert layout_of(x[..., :3].contiguous()).width == 2
    assert (layout_of(last).name, layout_of(last).width) == ("rows", 8)
    assert layout_of(x.view(-1, 6, 1, 1)).name == "rows"


@pytest.mark.parametrize("processors", [1, 132])
def test_cuts_cover_all_and_are_no_finer_than_needed(processors: int) -> None:
    for shape in ((2, 64, 200, 336), (2, 2048, 25, 42), (1, 3, 1, 1), (512, 256, 7, 7)):
        for form in FORMS:
            x = torch.empty(shape, dtype=torch.bfloat16, device="meta").to(memory_format=form)
            layout = layout_of(x)
            cut = cut_of(layout, processors)
            assert cut.grid == cut.tickets * cut.pieces and cut.lanes <= 32
            blocks = fused_kernels.BLOCKS_A_PROCESSOR * processors
            assert cut.pieces == 1 or cut.grid < blocks + cut.tickets
            assert cut.tickets * cut.lanes * layout.width >= (
                layout.channels if layout.name == "rows" else cut.tickets
            )


def test_a_group_of_one_value_or_none_moves_nothing() -> None:
    kernels = emulated_kernels(dtypes=[torch.float32])
    for total in ([0.0, 0.0, 0.0], [1.0, 3.0, 9.0]):
        running = RunningStatistics(torch.tensor([5.0]), torch.tensor([6.0]), torch.tensor(2))
        like = torch.zeros(0, 1, 2, 2)
        vector = torch.tensor(total, dtype=torch.float64)
        found: GroupStatistics = kernels.statistics(vector, like, EPS, Moving(running, 0.5))
        assert [None if one is None else one.item() for one in running] == [5.0, 6.0, 2]
        assert found.mean.item() == total[1] and found.variance.item() == 0
    assert kernels.local_moments(torch.zeros(0, 2, 3, 3)).tolist() == [0.0] * 5
    empty = torch.zeros(0, 2, 3, 3)
    ones = torch.ones(2)
    assert kernels.backward_sums(empty, empty, ones, ones, ones).vector.tolist() == [0.0] * 4
