"""Pictures from the loader's bytes to the network's numbers, on the device."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB in 0…1; torchvision's numbers, which its weights expect."""


def normalise(images: Tensor, sizes: Sequence[tuple[int, int]], dtype: torch.dtype) -> Tensor:
    """(B, 3, H, W) uint8 to normalised floats, exactly zero outside each picture.

    Args:
        images: RGB bytes, each picture at the top left of the canvas.
        sizes: height and width of each picture on it, pixels.
        dtype: of the result; the arithmetic is done in it.

    torchvision normalises and then pads with zeros, so the padding is zero here too, whatever
    the canvas held there.
    """
    mean, std = _mean_and_std(dtype, images.device)
    pixels = images.to(dtype, copy=True).div_(255).sub_(mean).div_(std)
    for picture, (height, width) in zip(pixels, sizes, strict=True):
        picture[:, height:, :] = 0
        picture[:, :, width:] = 0
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
