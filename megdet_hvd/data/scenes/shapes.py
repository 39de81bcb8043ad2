"""The shapes of the scenes, as antialiased masks.

Six of them are classes; the others are there to be told apart from those.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]
Outline = list[Point]

CLASSES = ("disc", "ring", "square", "triangle", "star", "cross")
DISTRACTORS = ("crescent", "bar", "corner", "arc", "zigzag")
SUPERSAMPLING = 4
"""Mask pixels per picture pixel, each way, before averaging."""


@dataclass(frozen=True)
class Pose:
    """Where a shape lies and how it is turned and stretched."""

    x: float
    """Centre, pixels."""
    y: float
    """Centre, pixels."""
    diameter: float
    """Pixels, before stretching."""
    angle: float
    """Radians."""
    stretch: float
    """Width is multiplied by it, height divided."""
    trait: float
    """0 … 1: what may differ within a shape (width of a ring, of an arm, depth of a star)."""


@dataclass(frozen=True)
class Mask:
    """A shape's coverage, in a window that may reach beyond the picture."""

    left: int
    top: int
    alpha: NDArray[np.uint8]
    """(h, w), 255 where the shape covers the pixel wholly."""


def mask_of(shape: str, pose: Pose) -> Mask:
    """The coverage of a shape, averaged over 4×4 samples per pixel."""
    solid, hole = _SHAPES[shape](pose.trait)
    solid, hole = _place(solid, pose), _place(hole, pose)
    xs, ys = [p[0] for p in solid], [p[1] for p in solid]
    left, top = math.floor(min(xs)) - 1, math.floor(min(ys)) - 1
    width, height = math.ceil(max(xs)) + 2 - left, math.ceil(max(ys)) + 2 - top
    image = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(image)
    for outline, value in ((solid, 255), (hole, 0)):
        if outline:
            # Whole sample coordinates, so that a last-bit difference between two machines'
            # sines cannot move an edge.
            points = [
                (round((x - left) * SUPERSAMPLING), round((y - top) * SUPERSAMPLING))
                for x, y in outline
            ]
            draw.polygon(points, fill=value)
    return Mask(left, top, np.asarray(image.reduce(SUPERSAMPLING)))


def _place(outline: Sequence[Point], pose: Pose) -> Outline:
    cos, sin, half = math.cos(pose.angle), math.sin(pose.angle), pose.diameter / 2
    placed = []
    for u, v in outline:
        u, v = u * half * pose.stretch, v * half / pose.stretch
        placed.append((pose.x + u * cos - v * sin, pose.y + u * sin + v * cos))
    return placed


def _circle(radius: float = 1.0, x: float = 0.0, parts: int = 48) -> Outline:
    turns = (2 * math.pi * k / parts for k in range(parts))
    return [(x + radius * math.cos(t), radius * math.sin(t)) for t in turns]


def _disc(trait: float) -> tuple[Outline, Outline]:
    return _circle(), []


def _ring(trait: float) -> tuple[Outline, Outline]:
    return _circle(), _circle(0.42 + 0.2 * trait)


def _square(trait: float) -> tuple[Outline, Outline]:
    return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)], []


def _triangle(trait: float) -> tuple[Outline, Outline]:
    return [(0, -1), (0.9 + 0.1 * trait, 0.75), (-0.9 - 0.1 * trait, 0.75)], []


def _star(trait: float) -> tuple[Outline, Outline]:
    inner = 0.36 + 0.1 * trait
    points = []
    for k in range(10):
        radius, turn = (1.05 if k % 2 == 0 else inner), math.pi * (k / 5 - 0.5)
        points.append((radius * math.cos(turn), radius * math.sin(turn)))
    return points, []


def _cross(trait: float) -> tuple[Outline, Outline]:
    a = 0.24 + 0.12 * trait
    corners = [(a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a)]
    return corners + [(-x, -y) for x, y in corners], []


def _crescent(trait: float) -> tuple[Outline, Outline]:
    return _circle(), _circle(0.95, x=0.45 + 0.25 * trait)


def _bar(trait: float) -> tuple[Outline, Outline]:
    a = 0.08 + 0.08 * trait
    return [(-1.2, -a), (1.2, -a), (1.2, a), (-1.2, a)], []


def _corner(trait: float) -> tuple[Outline, Outline]:
    a = 0.3 + 0.3 * trait
    return [(-0.8, -0.8), (-0.8 + a, -0.8), (-0.8 + a, 0.8 - a), (0.8, 0.8 - a), (0.8, 0.8),
            (-0.8, 0.8)], []  # fmt: skip


def _arc(trait: float) -> tuple[Outline, Outline]:
    turns = [math.pi * (1.1 + 0.3 * trait) * k / 24 for k in range(25)]
    outer = [(math.cos(t), math.sin(t)) for t in turns]
    return outer + [(0.8 * x, 0.8 * y) for x, y in reversed(outer)], []


def _zigzag(trait: float) -> tuple[Outline, Outline]:
    width = 0.16 + 0.12 * trait
    upper = [(-1.1 + 0.55 * k, 0.35 if k % 2 else -0.35) for k in range(5)]
    return upper + [(x, y + width) for x, y in reversed(upper)], []


_SHAPES: dict[str, Callable[[float], tuple[Outline, Outline]]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "crescent": _crescent,
    "bar": _bar,
    "corner": _corner,
    "arc": _arc,
    "zigzag": _zigzag,
}
