"""ROIAlign against torchvision's: values, gradients, repeatable bits, and which kernel runs."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, roi_align
from torchvision.ops.poolers import LevelMapper

from megdet_hvd.model.device import autocast
from megdet_hvd.model.roi_align import RoiAlign, sparse_roi_align, torchvision_roi_align
from megdet_hvd.model.roi_gather import gather_cells
from megdet_hvd.model.roi_levels import STRIDES, levels_of
from megdet_hvd.model.roi_weights import cell_weights

CANVAS = (96, 160)
CHANNELS = 5
ODD = torch.tensor(
    [
        [0.0, 0.0, 160.0, 96.0],
        [0.0, 0.0, 0.0, 0.0],
        [160.0, 96.0, 160.0, 96.0],
        [40.0, 30.0, 40.0, 70.0],
        [40.0, 30.0, 40.5, 30.25],
        [-30.0, -20.0, 25.0, 30.0],
        [150.0, 80.0, 240.0, 130.0],
        [-90.0, -90.0, -60.0, -60.0],
        [300.0, 10.0, 340.0, 40.0],
        [-500.0, -500.0, 700.0, 700.0],
        [3.0, 40.0, 157.0, 41.5],
        [159.0, 95.0, 160.0, 96.0],
        [8.0, 8.0, 24.0, 24.0],
    ]
)
"""The whole canvas, points, lines, within a pixel, over the border, outside, on pixels exactly."""


def pyramid(images: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    random = torch.Generator().manual_seed(images)
    return [
        torch.randn(
            *(images, CHANNELS, CANVAS[0] // stride, CANVAS[1] // stride),
            generator=random,
            dtype=torch.float64,
        )
        .to(dtype)
        .requires_grad_()
        for stride in STRIDES
    ]


def boxes_of(images: int, number: int = 60) -> list[Tensor]:
    """Of all sizes, float32, and the odd ones."""
    random = torch.Generator().manual_seed(7)
    found = []
    for _ in range(images):
        side = torch.exp(torch.rand(number, 2, generator=random) * 7)  # 1 to 1097 pixels
        middle = torch.rand(number, 2, generator=random) * torch.tensor([160.0, 96.0])
        found.append(torch.cat((torch.cat((middle - side / 2, middle + side / 2), 1), ODD)))
    return found


def gradients(pooled: Tensor, levels: Sequence[Tensor]) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(1)
    upper = torch.randn(pooled.shape, generator=random, dtype=torch.float64).to(pooled.dtype)
    return torch.autograd.grad(pooled, levels, upper)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("side", "samples"), [(7, 2), (3, 1), (2, 3)])
def test_values_and_gradients_are_torchvisions(aligned: bool, side: int, samples: int) -> None:
    levels, boxes = pyramid(2), [one.double() for one in boxes_of(2)]
    every = torch.cat(boxes)
    pictures = torch.arange(2, dtype=torch.int32).repeat_interleave(len(boxes[0]))
    level_of = levels_of(every)
    assert set(level_of.tolist()) == {0, 1, 2, 3}
    right = every.new_zeros(len(every), CHANNELS, side, side)
    for number, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
        own = torch.where(level_of == number)[0]
        rois = torch.cat((pictures[own, None].double(), every[own]), 1)
        part = roi_align(level, rois, side, 1 / stride, samples, aligned)
        right = right.index_put((own,), part)
    cells = cell_weights(
        every,
        pictures,
        [(level.shape[2], level.shape[3]) for level in levels],
        2,
        side=side,
        samples=samples,
        aligned=aligned,
    )
    summed = gather_cells(levels, cells.rows, cells.weights)
    pooled = summed.view(-1, side, side, CHANNELS).permute(0, 3, 1, 2)
    assert (pooled - right).abs().max() < 1e-12
    for own, theirs in zip(gradients(pooled, levels), gradients(right, levels), strict=True):
        assert theirs.abs().max() > 0.1 and (own - theirs).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_over_the_levels_it_equals_torchvision_up_to_rounding(dtype: torch.dtype) -> None:
    levels, boxes = pyramid(2, dtype), boxes_of(2)
    boxes = [one.double() for one in boxes] if dtype == torch.float64 else boxes
    with autocast("bfloat16" if dtype == torch.bfloat16 else "float32", torch.device("cpu")):
        right = theirs_of(levels, boxes)
        pooled = sparse_roi_align(levels, boxes)
    assert pooled.dtype == right.dtype == dtype
    rounding = torch.finfo(dtype).eps
    assert (pooled - right).abs().max() <= 8 * rounding
    for own, theirs in zip(gradients(pooled, levels), gradients(right, levels), strict=True):
        assert own.dtype == dtype
        assert (own - theirs).abs().max() <= 32 * rounding * theirs.abs().max()


def theirs_of(levels: Sequence[Tensor], boxes: list[Tensor]) -> Tensor:
    features = {str(number): level for number, level in enumerate(levels)}
    pooled: Tensor = MultiScaleRoIAlign(list("0123"), 7, 2)(features, boxes, [CANVAS])
    return pooled


def test_torchvisions_kernel_without_waiting_is_torchvisions_to_the_bit() -> None:
    levels, boxes = pyramid(2, torch.float32), boxes_of(2)
    boxes[1][3] = torch.tensor([20.0, 30.0, 10.0, 60.0])  # of no level
    right, pooled = theirs_of(levels, boxes), torchvision_roi_align(levels, boxes)
    assert torch.equal(pooled, right) and right.abs().max() > 1
    for own, theirs in zip(gradients(pooled, levels), gradients(right, levels), strict=True):
        assert torch.equal(own, theirs)
    assert torch.equal(sparse_roi_align(levels, boxes)[len(boxes[0]) + 3], torch.zeros(5, 7, 7))


@pytest.fixture
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_threads")
def test_bits_depend_on_neither_threads_nor_memory_format() -> None:
    found = []
    for threads, last in [(1, False), (1, False), (2, False), (3, True), (1, True)]:
        torch.set_num_threads(threads)
        levels, boxes = pyramid(2, torch.float32), boxes_of(2, 400)
        kind = torch.channels_last if last else torch.contiguous_format
        levels = [
            level.detach().contiguous(memory_format=kind).requires_grad_() for level in levels
        ]
        pooled = sparse_roi_align(levels, boxes)
        grads = gradients(pooled, levels)
        assert all(grad.is_contiguous(memory_format=kind) for grad in grads)
        found.append([pooled, *grads])
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("kernel", ["auto", "torchvision"])
def test_without_boxes_or_pictures_gradients_are_zeros(images: int, kernel: str) -> None:
    levels = pyramid(images, torch.float32)
    boxes = [torch.zeros(0, 4)] * max(images, 1)
    features = {str(number): level for number, level in enumerate(levels)}
    pooled = RoiAlign("torchvision" if kernel == "torchvision" else "auto")(features, boxes, CANVAS)
    assert pooled.shape == (0, CHANNELS, 7, 7) and pooled.requires_grad
    for level, grad in zip(levels, torch.autograd.grad(pooled.sum(), levels), strict=True):
        assert torch.equal(grad, torch.zeros_like(level))


def test_boxes_that_are_no_numbers_break_nothing() -> None:
    levels = pyramid(1, torch.float32)
    boxes = torch.full((3, 4), torch.nan)
    boxes[1] = torch.tensor([10.0, 10.0, torch.inf, 50.0])
    boxes[2] = torch.tensor([10.0, 10.0, 60.0, 50.0])
    pooled = sparse_roi_align(levels, [boxes])
    assert torch.equal(pooled[0], torch.zeros(CHANNELS, 7, 7))
    assert torch.equal(pooled[2], sparse_roi_align(levels, [boxes[2:]])[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sums_are_in_float32_at_least(dtype: torch.dtype) -> None:
    # 600 ones and a half: bfloat16 counts to 256 by ones, float16 loses the half beyond 1,024.
    level = torch.full((1, 1, 1, 2), 2.0, dtype=dtype, requires_grad=True)
    weights = torch.ones(1, 601)
    weights[0, 0] = 0.25
    summed = gather_cells([level], torch.zeros(1, 601, dtype=torch.int32), weights)
    assert summed.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert summed.item() == 1200.5
    summed.sum().backward()
    assert level.grad is not None and level.grad.dtype == dtype
    assert level.grad.flatten().tolist() == [torch.tensor(600.25, dtype=dtype).item(), 0.0]


def test_levels_are_torchvisions() -> None:
    exact = [torch.tensor([[0.0, 0.0, 112 * 2.0**k, 112 * 2.0**k]]) for k in range(-3, 4)]
    boxes = torch.cat([*boxes_of(1, 3000), *exact])
    assert torch.equal(levels_of(boxes), LevelMapper(2, 5)([boxes]))
    assert levels_of(torch.tensor([[0.0, 0.0, torch.nan, 1.0], [5.0, 0.0, 1.0, 1.0]])).tolist() == [
        -1,
        -1,
    ]


def test_which_kernel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    pool = RoiAlign("auto")
    assert (pool.kernel_on(cpu), pool.kernel_on(gpu)) == ("sparse", "torchvision")
    pool.choice.begun_with = "torchvision"
    assert (pool.kernel_on(cpu), pool.kernel_on(gpu)) == ("torchvision", "torchvision")
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert (pool.kernel_on(cpu), pool.kernel_on(gpu)) == ("torchvision", "sparse")
    pool.choice.setting = "sparse"
    assert (pool.kernel_on(cpu), pool.kernel_on(gpu)) == ("sparse", "sparse")
    levels, boxes = pyramid(1, torch.float32), boxes_of(1)
    features = {str(number): level for number, level in enumerate(levels)}
    for kernel, right in (("sparse", sparse_roi_align), ("torchvision", theirs_of)):
        pool.choice.setting = "sparse" if kernel == "sparse" else "torchvision"
        assert torch.equal(pool(features, boxes, CANVAS), right(levels, boxes))
