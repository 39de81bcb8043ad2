"""One colour per class, the same in every picture."""

import colorsys

Colour = tuple[int, int, int]

_FIRST: tuple[Colour, ...] = (
    (230, 60, 60),
    (60, 150, 255),
    (255, 170, 0),
    (60, 190, 90),
    (190, 90, 230),
    (0, 200, 210),
    (255, 110, 180),
    (190, 200, 50),
    (150, 110, 70),
    (130, 140, 255),
)
"""Ten that are easily told apart, on light and on dark pictures."""

_GOLDEN_ANGLE = 0.381966
"""Turning the hue by this much puts each new one into the largest gap so far."""


def class_colour(label: int) -> Colour:
    """RGB, 0…255, of a label 1…K."""
    if label <= len(_FIRST):
        return _FIRST[label - 1]
    saturation, value = ((0.85, 0.95), (0.55, 0.95), (0.9, 0.7))[label % 3]
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_ANGLE % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def text_colour(background: Colour) -> Colour:
    """Black or white, whichever is easier to read on ``background`` (Rec. 601 luma)."""
    red, green, blue = background
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
