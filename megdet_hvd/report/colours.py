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
    """White, or black where white would be hard to read (WCAG 2 contrast below 3 : 1)."""
    linear = [_linear(value / 255) for value in background]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (255, 255, 255) if 1.05 / (luminance + 0.05) >= 3.1 else (0, 0, 0)


def _linear(value: float) -> float:
    """An sRGB value 0…1 without its gamma."""
    return float(((value + 0.055) / 1.055) ** 2.4) if value > 0.04045 else value / 12.92
