"""Pictures from the loader's bytes to the network's numbers, on the device."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB in 0…1; torchvision's numbers, which its weights expect."""


_ROWS = 32
"""Rows of a canvas that go through all the arithmetic before the next do: a core keeps them."""


def normalise(
    images: Tensor,
    sizes: Sequence[tuple[int, int]],
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """(B, 3, H, W) uint8 to normalised floats, exactly zero outside each picture.

    Args:
        images: RGB bytes, each picture at the top left of the canvas.
        sizes: height and width of each picture on it, pixels.
        dtype: of the result; the arithmetic is done in it.
        memory_format: of the result, ``contiguous_format`` or ``channels_last``; the values are the
            same in both.

    torchvision normalises and then pads with zeros, so the padding is zero here too, whatever
    the canvas held there.
    """
    mean, std = _mean_and_std(dtype, images.device)
    if memory_format == torch.channels_last and images.device.type == "cpu":
        pixels = _by_rows(images, mean.flatten(), std.flatten())
    else:
        pixels = images.to(dtype, memory_format=memory_format, copy=True)
        pixels.div_(255).sub_(mean).div_(std)
    for picture, (height, width) in zip(pixels, sizes, strict=True):
        picture[:, height:, :] = 0
        picture[:, :, width:] = 0
    return pixels


def _by_rows(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The same in channels_last order, where loops over three values at a time would take long."""
    count, _, height, width = images.shape
    pixels = torch.empty(images.shape, dtype=mean.dtype, memory_format=torch.channels_last)
    found = pixels.permute(0, 2, 3, 1).view(count * height, width * 3)
    given = images.permute(0, 2, 3, 1).reshape(found.shape)
    means, stds = mean.repeat(width), std.repeat(width)
    for rows, own in zip(given.split(_ROWS), found.split(_ROWS), strict=True):
        own.copy_(rows).div_(255).sub_(means).div_(stds)
    return pixels


@cache
def _mean_and_std(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(1, 3, 1, 1) each. Copied to a device once: the host waits for each copy."""
    with torch.inference_mode(False):  # those made within it are of no use to training
        mean, std = (
            torch.tensor(values, dtype=dtype, device=device).view(1, 3, 1, 1)
            for values in (IMAGENET_MEAN, IMAGENET_STD)
        )
    return mean, std
