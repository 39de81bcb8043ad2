"""Surfaces and light: what covers the shapes and the ground behind them.

Only sums, products and roots touch pixels, so that processors cannot differ in a last bit.
"""

import colorsys
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet_hvd.data.scenes.rng import SceneRng
from megdet_hvd.data.scenes.shapes import Mask

Canvas = NDArray[np.float32]
"""(H, W, 3), 0 … 255."""
PaintColour = tuple[float, float, float]


def random_colour(rng: SceneRng, low: float = 20, high: float = 240) -> PaintColour:
    """Any colour, saturated or dull."""
    grey, dullness = rng.between(low, high), rng.unit() * 0.8
    red, green, blue = (dullness * grey + (1 - dullness) * rng.between(low, high) for _ in range(3))
    return red, green, blue


def colour_apart(rng: SceneRng, other: PaintColour, least: float) -> PaintColour:
    """A colour at least ``least`` away from another, so that a shape can be seen on it."""
    for _ in range(20):
        colour = random_colour(rng)
        if _apart(colour, other, least):
            return colour
    red, green, blue = (255.0 - v if abs(v - 127) > 60 else 250.0 for v in other)
    return red, green, blue


HUES = (0.07, 0.77, 0.6, 0.36, 0.15, 0.97)
"""Typical hue of each class: orange, violet, blue, green, yellow, red."""
TYPICAL = 0.8
"""Share of objects that have their class's hue; the others have any colour."""


def class_colour(rng: SceneRng, label: int, ground: PaintColour, least: float) -> PaintColour:
    """A colour for an object of a class, at least ``least`` away from the ground's.

    As with real things, colour hints at the class and does not settle it.
    """
    if rng.chance(TYPICAL):
        for _ in range(8):
            hue = HUES[label - 1] + rng.between(-0.05, 0.05)
            rgb = colorsys.hsv_to_rgb(hue % 1, rng.between(0.5, 1), rng.between(0.35, 1))
            red, green, blue = (255 * v for v in rgb)
            if _apart((red, green, blue), ground, least):
                return red, green, blue
    return colour_apart(rng, ground, least)


def _apart(colour: PaintColour, other: PaintColour, least: float) -> bool:
    return sum((a - b) ** 2 for a, b in zip(colour, other, strict=True)) >= least**2


def ramp(width: int, height: int, angle: float) -> NDArray[np.float32]:
    """(height, width) rising from -1 to 1 along a direction."""
    # Rounded: see mask_of in shapes.
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] * np.float32(cos)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(sin)
    rising: NDArray[np.float32] = ((x + y) / (abs(cos) + abs(sin))).astype(np.float32)
    return rising


def clouds(rng: SceneRng, width: int, height: int, cells: int) -> NDArray[np.float32]:
    """(height, width) of soft blotches, -1 … 1, about ``cells`` across."""
    grid = Image.fromarray(rng.bytes(cells, cells))
    soft = grid.resize((width, height), Image.Resampling.BICUBIC)
    blotches: NDArray[np.float32] = np.asarray(soft).astype(np.float32) / np.float32(127.5) - 1
    return blotches


def ground(rng: SceneRng, width: int, height: int) -> tuple[Canvas, PaintColour]:
    """A background and its mean colour: two tones, blotches, sometimes stripes or tiles."""
    first = random_colour(rng, 30, 225)
    second = tuple(min(max(v + rng.between(-45, 45), 5), 250) for v in first)
    mix = ramp(width, height, rng.between(0, 2 * math.pi))
    mix = mix * np.float32(rng.between(0.3, 1))
    if rng.chance(0.7):
        cells = rng.count(3, 14)
        mix = mix + clouds(rng, width, height, cells) * np.float32(rng.between(0.2, 1.2))
    pattern = rng.unit()
    if pattern < 0.3:
        mix = mix + stripes(rng, width, height) * np.float32(rng.between(0.15, 0.5))
    elif pattern < 0.4:
        mix = mix + stripes(rng, width, height) * stripes(rng, width, height) * np.float32(0.4)
    weight = ((mix + 1) * np.float32(0.5))[..., None]
    a, b = np.asarray(first, np.float32), np.asarray(second, np.float32)
    red, green, blue = ((x + y) / 2 for x, y in zip(first, second, strict=True))
    tones: Canvas = a + (b - a) * weight
    return tones, (red, green, blue)


def stripes(rng: SceneRng, width: int, height: int) -> NDArray[np.float32]:
    """(height, width) of -1 and 1 in bands, softened at their edges."""
    period = max(rng.between(0.04, 0.15) * max(width, height), 3.0)
    angle, start = rng.between(0, math.pi), rng.unit()
    cos, sin = round(math.cos(angle), 6), round(math.sin(angle), 6)
    x = np.arange(width, dtype=np.float32)[None, :] * np.float32(cos / period)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(sin / period)
    phase = x + y + np.float32(start)
    wave = np.abs((phase - np.floor(phase)) * 4 - 2) - 1
    bands: NDArray[np.float32] = np.clip(wave * 3, -1, 1)
    return bands


def surface(rng: SceneRng, colour: PaintColour, width: int, height: int) -> Canvas:
    """A shape's surface: its colour under a light from one side, sometimes with a texture."""
    light = ramp(width, height, rng.between(0, 2 * math.pi)) * np.float32(rng.between(0, 0.3))
    kind = rng.unit()
    if kind < 0.25:
        light = light + stripes(rng, width, height) * np.float32(rng.between(0.08, 0.22))
    elif kind < 0.5:
        light = light + clouds(rng, width, height, rng.count(3, 6)) * np.float32(0.25)
    lit: Canvas = np.asarray(colour, np.float32) * (1 + light)[..., None]
    return lit


def blend(canvas: Canvas, mask: Mask, colours: Canvas | PaintColour, opacity: float = 1.0) -> None:
    """Lay colours over the canvas where the mask covers it."""
    height, width = canvas.shape[:2]
    h, w = mask.alpha.shape
    y0, y1 = max(mask.top, 0), min(mask.top + h, height)
    x0, x1 = max(mask.left, 0), min(mask.left + w, width)
    if y0 >= y1 or x0 >= x1:
        return
    inner = (slice(y0 - mask.top, y1 - mask.top), slice(x0 - mask.left, x1 - mask.left))
    alpha = mask.alpha[inner].astype(np.float32)[..., None] * np.float32(opacity / 255)
    paint = colours[inner] if isinstance(colours, np.ndarray) else np.asarray(colours, np.float32)
    under = canvas[y0:y1, x0:x1]
    under += (paint - under) * alpha
