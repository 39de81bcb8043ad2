"""Crops of rendered scenes, each with the class of what stands in its middle: a backbone's school.

The scenes are drawn from seeds of their own, which neither training nor validation ever sees, and
are as large as those, so that the shapes have the sizes that the detector will meet.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megdet_hvd.data.scenes.scene import Scene, render
from megdet_hvd.data.scenes.shapes import CLASSES

CROP_SIDE = 64
"""Pixels."""
OUTSIDE = (124, 116, 104)
"""ImageNet's mean colour: the detector pads with zeros behind the normalisation, too."""
CROP_CLASSES = ("background", *CLASSES)


@dataclass(frozen=True)
class Crops:
    """Crops in memory."""

    pictures: NDArray[np.uint8]
    """(n, 3, 64, 64)."""
    labels: NDArray[np.int64]
    """(n,) places in ``CROP_CLASSES``."""


def make_crops(split: str, first: int, scenes: int, side: int) -> Crops:
    """All objects of the scenes ``first`` … of a split, and one piece of background from each.

    Equal arguments give equal crops.
    """
    pictures: list[NDArray[np.uint8]] = []
    labels: list[int] = []
    for number in range(first, first + scenes):
        scene = render(split, number, side)
        pixels = np.asarray(scene.picture)
        random = np.random.Generator(np.random.PCG64([number, len(split)]))
        for item in scene.objects:
            x, y, width, height = item.box
            shift = random.uniform(-4, 4, 2)
            middle = x + width / 2 + shift[0], y + height / 2 + shift[1]
            pictures.append(crop_around(pixels, *middle))
            labels.append(item.label)
        free = _free_place(scene, pixels.shape[1], pixels.shape[0], random)
        if free is not None:
            pictures.append(crop_around(pixels, *free))
            labels.append(0)
    return Crops(np.stack(pictures).transpose(0, 3, 1, 2), np.asarray(labels, np.int64))


def crop_around(pixels: NDArray[np.uint8], x: float, y: float) -> NDArray[np.uint8]:
    """(64, 64, 3) about a place of a picture (h, w, 3); outside it, what normalises to nearly 0."""
    height, width = pixels.shape[:2]
    crop = np.empty((CROP_SIDE, CROP_SIDE, 3), np.uint8)
    crop[:] = OUTSIDE
    top, left = round(y) - CROP_SIDE // 2, round(x) - CROP_SIDE // 2
    rows = slice(max(top, 0), max(0, min(top + CROP_SIDE, height)))
    columns = slice(max(left, 0), max(0, min(left + CROP_SIDE, width)))
    inner = pixels[rows, columns]
    above, before = max(-top, 0), max(-left, 0)
    crop[above : above + inner.shape[0], before : before + inner.shape[1]] = inner
    return crop


def _free_place(
    scene: Scene, width: int, height: int, random: np.random.Generator
) -> tuple[float, float] | None:
    """A place that no object covers; None where none is found."""
    for _ in range(20):
        x, y = random.uniform(0, width), random.uniform(0, height)
        inside = (
            left <= x <= left + w and top <= y <= top + h
            for left, top, w, h in (item.box for item in scene.objects)
        )
        if not any(inside):
            return x, y
    return None
