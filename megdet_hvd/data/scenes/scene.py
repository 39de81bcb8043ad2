"""One scene: ground, clutter, objects over one another, light and camera.

The same split and number always give the same picture; validation scenes come from other seeds
than training scenes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from megdet_hvd.data.scenes import paint
from megdet_hvd.data.scenes.rng import SceneRng
from megdet_hvd.data.scenes.shapes import CLASSES, DISTRACTORS, Mask, Pose, mask_of

VERSION = 2
"""Part of the cache folder's name; raise it when a change here changes any pixel."""
LEAST_VISIBLE = 0.4
"""An object with a smaller part of it to be seen gets no box."""
EMPTY = 0.04
"""Share of scenes without an object."""


@dataclass(frozen=True)
class SceneObject:
    """An object that can be seen."""

    label: int
    """1 … 6, position in ``CLASSES`` plus 1."""
    box: tuple[int, int, int, int]
    """x y w h of its visible pixels."""
    area: int
    """Its visible pixels."""


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it."""

    picture: Image.Image
    objects: tuple[SceneObject, ...]


def render(split: str, number: int, size: int) -> Scene:
    """Scene ``number`` of a split ("train", "val"), its longer side ``size`` pixels."""
    rng = SceneRng(f"megdet scenes {VERSION} {split} {number}")
    width, height = rng.pick([(size, size), (size, size * 3 // 4), (size * 3 // 4, size)])
    canvas, ground_colour = paint.ground(rng, width, height)
    for _ in range(rng.count(0, 5)):
        _clutter(rng, canvas, ground_colour)
    masks, labels = _arrange(rng, width, height, size)
    owner = np.full((height, width), -1, np.int16)
    sizes = []
    for k, mask in enumerate(masks):
        _paint_object(rng, canvas, mask, labels[k], ground_colour)
        sizes.append(_claim(owner, mask, k))
    for _ in range(rng.count(0, 3)):
        mask = _line(rng, width, height)
        paint.blend(canvas, mask, paint.random_colour(rng), rng.between(0.4, 0.9))
        _claim(owner, mask, -1)
    objects = []
    for k, (label, whole) in enumerate(zip(labels, sizes, strict=True)):
        seen = _visible(owner, k, label, whole)
        if seen is not None:
            objects.append(seen)
    return Scene(_camera(rng, canvas), tuple(objects))


def _arrange(rng: SceneRng, width: int, height: int, size: int) -> tuple[list[Mask], list[int]]:
    """Objects back to front, placed so that none is hidden by more than half."""
    masks: list[Mask] = []
    labels: list[int] = []
    if rng.chance(EMPTY):
        return masks, labels
    owner = np.full((height, width), -1, np.int16)
    wholes: list[int] = []
    for _ in range(rng.count(1, 8)):
        label = rng.count(1, len(CLASSES))
        # Sizes even in their logarithm: 0.08 … 0.56 of the longer side.
        diameter = size * 0.08 * 7 ** rng.unit()
        for _ in range(8):
            pose = _pose(rng, width, height, round(diameter, 3))
            mask = mask_of(CLASSES[label - 1], pose)
            trial = owner.copy()
            whole = _claim(trial, mask, len(masks))
            counts = np.bincount(trial.ravel() + 1, minlength=len(masks) + 2)[1:]
            parts = [*wholes, whole]
            if all(c >= 0.55 * w for c, w in zip(counts, parts, strict=True)):
                owner = trial
                masks.append(mask)
                labels.append(label)
                wholes.append(whole)
                break
    return masks, labels


def _pose(rng: SceneRng, width: int, height: int, diameter: float) -> Pose:
    return Pose(
        x=rng.between(0, width),
        y=rng.between(0, height),
        diameter=diameter,
        angle=rng.between(0, 2 * math.pi),
        stretch=rng.between(0.8, 1.25),
        trait=rng.unit(),
    )


def _claim(owner: NDArray[np.int16], mask: Mask, k: int) -> int:
    """Give the pixels that a mask mostly covers to object k; all its pixels, outside ones too."""
    solid = mask.alpha >= 128
    height, width = owner.shape
    h, w = solid.shape
    y0, y1 = max(mask.top, 0), min(mask.top + h, height)
    x0, x1 = max(mask.left, 0), min(mask.left + w, width)
    if y0 < y1 and x0 < x1:
        inner = solid[y0 - mask.top : y1 - mask.top, x0 - mask.left : x1 - mask.left]
        owner[y0:y1, x0:x1][inner] = k
    return int(solid.sum())


def _visible(owner: NDArray[np.int16], k: int, label: int, whole: int) -> SceneObject | None:
    seen = owner == k
    area = int(seen.sum())
    if area < LEAST_VISIBLE * whole or area == 0:
        return None
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return SceneObject(label, (x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y), area)


def _paint_object(
    rng: SceneRng, canvas: paint.Canvas, mask: Mask, label: int, ground: paint.PaintColour
) -> None:
    if rng.chance(0.35):
        shift = rng.count(1, max(1, mask.alpha.shape[0] // 12))
        shadow = Mask(mask.left + shift, mask.top + shift, mask.alpha)
        paint.blend(canvas, shadow, (0.0, 0.0, 0.0), rng.between(0.2, 0.5))
    colour = paint.class_colour(rng, label, ground, rng.between(65, 120))
    height, width = mask.alpha.shape
    paint.blend(canvas, mask, paint.surface(rng, colour, width, height))


def _clutter(rng: SceneRng, canvas: paint.Canvas, ground: paint.PaintColour) -> None:
    height, width = canvas.shape[:2]
    kind = rng.unit()
    if kind < 0.4:
        mask = _line(rng, width, height)
        paint.blend(canvas, mask, paint.random_colour(rng), rng.between(0.3, 0.9))
    elif kind < 0.65:
        mask = _blob(rng, width, height)
        paint.blend(canvas, mask, paint.random_colour(rng), rng.between(0.1, 0.4))
    else:
        diameter = max(width, height) * rng.between(0.08, 0.3)
        mask = mask_of(rng.pick(DISTRACTORS), _pose(rng, width, height, diameter))
        colour = paint.colour_apart(rng, ground, 40)
        paint.blend(canvas, mask, paint.surface(rng, colour, *mask.alpha.shape[::-1]))


def _line(rng: SceneRng, width: int, height: int) -> Mask:
    length, thickness = rng.between(0.3, 1.5) * max(width, height), rng.between(0.7, 2.5)
    # A bar's trait 0.5 is 0.12 of its length thick; the stretch makes it thinner.
    stretch = math.sqrt(length / 1.2 * 0.12 / thickness)
    pose = Pose(
        x=rng.between(0, width),
        y=rng.between(0, height),
        diameter=length / 1.2 / stretch,
        angle=rng.between(0, math.pi),
        stretch=stretch,
        trait=0.5,
    )
    return mask_of("bar", pose)


def _blob(rng: SceneRng, width: int, height: int) -> Mask:
    pose = _pose(rng, width, height, max(width, height) * rng.between(0.2, 0.8))
    sharp = mask_of("disc", pose)
    radius = int(pose.diameter / 6)
    wide = Image.fromarray(np.pad(sharp.alpha, 2 * radius))
    soft = wide.filter(ImageFilter.BoxBlur(radius)).filter(ImageFilter.BoxBlur(radius))
    return Mask(sharp.left - 2 * radius, sharp.top - 2 * radius, np.asarray(soft))


def _camera(rng: SceneRng, canvas: paint.Canvas) -> Image.Image:
    """Light across the picture, exposure, contrast, tint, blur and noise."""
    height, width = canvas.shape[:2]
    falloff = paint.ramp(width, height, rng.between(0, 2 * math.pi))
    light = (1 + falloff * np.float32(rng.between(0, 0.35)))[..., None]
    contrast, exposure = rng.between(0.6, 1.15), rng.between(0.75, 1.2)
    tint = np.asarray([rng.between(0.9, 1.1) for _ in range(3)], np.float32)
    pixels = ((canvas - 127) * np.float32(contrast) + 127) * light * tint * np.float32(exposure)
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.chance(0.35):
        picture = picture.filter(ImageFilter.GaussianBlur(rng.between(0.3, 1.0)))
    amplitude = 0.1 * rng.unit() ** 2  # squared: most pictures are nearly clean
    # The sum of two bytes: a triangle of standard deviation 104 about 255, scaled.
    noise = rng.bytes(2, height, width, 3).astype(np.float32).sum(axis=0) - 255
    noisy = np.asarray(picture).astype(np.float32) + noise * np.float32(amplitude)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
