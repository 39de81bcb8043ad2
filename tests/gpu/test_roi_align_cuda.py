"""ROIAlign's two kernels on a GPU: torchvision's values, repeatable bits, nobody waits."""

import torch

from megdet_hvd.model.roi_align import sparse_roi_align, torchvision_roi_align
from tests.model.test_roi_align import boxes_of, gradients, pyramid, theirs_of


def test_both_kernels_equal_torchvisions_on_a_cpu() -> None:
    levels, boxes = pyramid(2, torch.float32), boxes_of(2)
    right = theirs_of(levels, boxes)
    expected = gradients(right, levels)
    there = [level.detach().cuda().requires_grad_() for level in levels]
    for kernel in (sparse_roi_align, torchvision_roi_align):
        pooled = kernel(there, [one.cuda() for one in boxes])
        assert (pooled.cpu() - right).abs().max() < 1e-5
        upper = gradients_there(pooled, there)
        for own, theirs in zip(upper, expected, strict=True):
            assert (own.cpu() - theirs).abs().max() < 1e-4 * theirs.abs().max()


def gradients_there(pooled: torch.Tensor, levels: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(1)
    upper = torch.randn(pooled.shape, generator=random, dtype=torch.float64).to(pooled.dtype)
    return torch.autograd.grad(pooled, levels, upper.cuda())


def test_the_sparse_kernel_repeats_its_bits_and_neither_waits() -> None:
    levels = [level.detach().cuda().requires_grad_() for level in pyramid(2, torch.float32)]
    boxes = [one.cuda() for one in boxes_of(2, 400)]
    found = []
    for _ in range(3):
        pooled = sparse_roi_align(levels, boxes)
        found.append([pooled, *gradients_there(pooled, levels)])
    assert all(map(torch.equal, found[0], found[1])) and all(map(torch.equal, found[0], found[2]))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for kernel in (sparse_roi_align, torchvision_roi_align):
            kernel(levels, boxes).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
