"""Bytes to numbers, and mixed precision."""

import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from megdet_hvd.model.normalise import IMAGENET_MEAN, IMAGENET_STD, normalise
from tests.model.samples import backward, build, random_batch, slim


def test_normalised_as_torchvision_and_zero_outside() -> None:
    sizes = [(96, 128), (128, 96), (96, 96)]
    generator = torch.Generator().manual_seed(0)
    canvas = torch.randint(0, 256, (3, 3, 128, 128), generator=generator, dtype=torch.uint8)
    pictures = [canvas[i, :, :h, :w] / 255 for i, (h, w) in enumerate(sizes)]
    transform = GeneralizedRCNNTransform(96, 1333, list(IMAGENET_MEAN), list(IMAGENET_STD))
    expected = transform(pictures)[0].tensors
    assert torch.equal(normalise(canvas, sizes, torch.float32), expected)
    assert normalise(canvas[:0], [], torch.float64).shape == (0, 3, 128, 128)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_order_in_memory_changes_no_value(dtype: torch.dtype) -> None:
    sizes = [(96, 65), (40, 128)]
    canvas = torch.randint(0, 256, (2, 3, 96, 128), dtype=torch.uint8)
    together = canvas.contiguous(memory_format=torch.channels_last)
    expected = normalise(canvas, sizes, dtype)
    assert expected.is_contiguous()
    for given in (canvas, together):
        assert torch.equal(normalise(given, sizes, dtype), expected)
        found = normalise(given, sizes, dtype, torch.channels_last)
        assert torch.equal(found, expected)
        assert found.stride() == (96 * 128 * 3, 1, 128 * 3, 3)
    none = normalise(together[:0], [], dtype, torch.channels_last)
    assert none.shape == (0, 3, 96, 128)


def test_mixed_precision_keeps_losses_and_boxes_in_float32() -> None:
    """All boxes are drawn: rounding moves proposals, and with them which of fewer would be."""
    detector = build(slim(norm="frozen", roi={"boxes_per_image": 4096}))
    batch = random_batch([(96, 96), (128, 128)])
    exact = detector(batch)
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(batch)
    for name, values in losses.items():
        assert values.dtype == torch.float32
        torch.testing.assert_close(values, exact[name], rtol=0.02, atol=0.005)
    backward(losses)
    for parameter in detector.parameters():
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
    detector.eval()
    with torch.autocast("cpu", torch.bfloat16):
        found = detector(batch)
    assert all(one.boxes.dtype == one.scores.dtype == torch.float32 for one in found)


def test_evaluation_keeps_no_graph() -> None:
    found = build(slim()).eval()(random_batch([(96, 96)]))
    assert not found[0].boxes.requires_grad
    assert not found[0].scores.requires_grad
