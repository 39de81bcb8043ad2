"""Pictures brought to another size, bilinear, antialiased where they shrink; bytes all the way.

``torch``: its own kernel for bytes, three times as quick as Pillow's and made after it: weights of
the same shape, rounded to 16 bits where Pillow has 22. Of 640×480 at 800/1333 pixels 4 values in
10,000 differ, by one level of 255; the values are the same on every processor. ``pillow``: what
all runs did before there was a choice.

Pixels lie as decoders leave them, the three values of one beside each other. torch's vectors work
on just that; sorting the values into planes would take twice as long as all the rest.
"""

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from megdet_hvd.config.sections.data import ResizeSetting

Resizer = Literal["torch", "pillow"]


def resizer_of(setting: ResizeSetting) -> Resizer:
    """Who resizes, by ``data.resize``."""
    return "torch" if setting == "auto" else setting


def resized(pixels: Tensor, size: tuple[int, int], resizer: Resizer) -> Tensor:
    """(3, h, w) uint8 at ``size`` (width, height), of (3, H, W) uint8; strides are any in both."""
    width, height = size
    if pixels.shape[1:] == (height, width):
        return pixels
    if resizer == "pillow":
        picture = as_image(pixels).resize(size, Image.Resampling.BILINEAR)
        return as_pixels(picture)
    rows = pixels.permute(1, 2, 0).contiguous()
    # torch makes pixels of pixels, and planes where the stride of the batch's one picture is less
    # than a picture. Its loops for processors without AVX2 are quicker to planes; of planes that
    # are one pixel wide they confuse rows and channels (torch 2.14).
    to_pixels = torch.backends.cpu.get_cpu_capability().startswith("AVX") or width == 1
    batch = rows[None].permute(0, 3, 1, 2) if to_pixels else rows.permute(2, 0, 1)[None]
    return functional.interpolate(
        batch, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )[0]


def as_pixels(picture: Image.Image) -> Tensor:
    """(3, H, W) uint8 of memory of its own, of an RGB picture."""
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


def as_image(pixels: Tensor) -> Image.Image:
    """The picture of (3, H, W) uint8 RGB."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
