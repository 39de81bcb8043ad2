"""BN sizes smaller than a process holds."""

import pytest
import torch
from torch import nn

from megdet_hvd.bn import CrossGPUBatchNorm2d
from megdet_hvd.bn.tape import Tape
from megdet_hvd.image_rows import current_rows, rows_per_image


def check(x: torch.Tensor, counts: list[int], layer: CrossGPUBatchNorm2d) -> None:
    """Against plain BN in float64 on each part by itself."""
    plain = [nn.BatchNorm2d(x.shape[1], momentum=1.0).double() for _ in counts]
    reference = x.detach().double().requires_grad_()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    torch.cat(
        [
            one(part) if len(part) else part
            for one, part in zip(plain, reference.split(counts), strict=True)
        ]
    ).backward(g.double())
    mine = x.detach().requires_grad_()
    y = layer(mine)
    y.backward(g)
    assert mine.grad is not None and reference.grad is not None
    assert torch.allclose(mine.grad.double(), reference.grad, atol=1e-5)
    used = [one for one, count in zip(plain, counts, strict=True) if count]
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(one, name) for one in used]).mean(0)
        assert torch.allclose(getattr(layer, name).double(), mean, atol=1e-5), name
    assert int(layer.num_batches_tracked) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "counts"), [(2, [2, 2, 2]), (1, [1] * 6), (4, [4, 2])])
@pytest.mark.parametrize("last", [False, True])
def test_rows_are_images(images: int, counts: list[int], last: bool) -> None:
    x = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    check(x, counts, CrossGPUBatchNorm2d(3, momentum=1.0, images_per_statistic=images))


def test_rows_are_boxes_of_images() -> None:
    x = torch.randn(9, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    layer = CrossGPUBatchNorm2d(3, momentum=1.0, images_per_statistic=2)
    with rows_per_image([3, 1, 0, 0, 5]):  # images 0 and 1; 2 and 3 without boxes; 4
        check(x, [4, 0, 5], layer)
    assert current_rows() is None


def test_a_recomputed_split_layer_knows_its_boxes_and_moves_nothing() -> None:
    x = torch.randn(5, 3, 7, 7)
    layer = CrossGPUBatchNorm2d(3, images_per_statistic=1)
    tape = Tape()
    with rows_per_image([2, 3]), tape.recording():
        first = layer(x)
    moved = layer.running_mean.clone()  # type: ignore[union-attr]
    with tape.replaying():
        assert torch.equal(layer(x), first)
    assert torch.equal(layer.running_mean, moved)  # type: ignore[arg-type]
    assert not torch.allclose(first, CrossGPUBatchNorm2d(3)(x))
