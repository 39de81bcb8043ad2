"""Boxes with labels, drawn onto a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from megdet_hvd.data.fonts import font
from megdet_hvd.report.colours import Colour, text_colour

Rectangle = tuple[float, float, float, float]


@dataclass(frozen=True)
class DrawnBox:
    """A box and what is written on it."""

    box: Rectangle
    """x1 y1 x2 y2, pixels."""
    colour: Colour
    """Of the frame and of the label's background."""
    text: str = ""
    """The label; none is drawn for an empty text."""
    width: float = 1.0
    """Multiplies the thickness of the frame."""


def draw_boxes(
    picture: Image.Image, boxes: Sequence[DrawnBox], *, font_size: int | None = None
) -> Image.Image:
    """A copy of ``picture`` with the boxes drawn on it; the first of them lies on top.

    Labels stand above their box, or where there is room for them: inside the picture always,
    and on no other label if it can be helped.

    Args:
        picture: any mode; the copy is RGB.
        boxes: in pixels of the picture.
        font_size: height of the letters, pixels; None: by the size of the picture.
    """
    drawn = picture.convert("RGB")
    side = min(drawn.size)
    size = font_size or max(11, min(32, round(side / 32)))
    thickness = max(2, round(side / 250))
    draw = ImageDraw.Draw(drawn)
    taken: list[Rectangle] = []
    places = []
    for item in boxes:  # The most important one chooses its place first.
        if item.text:
            place = _label_place(draw, item, size, drawn.size, taken)
            taken.append(place)
            places.append((item, place))
    for item in reversed(boxes):
        x1, y1, x2, y2 = item.box
        left, top = min(x1, x2), min(y1, y2)
        corners = (left, top, max(left, max(x1, x2) - 1), max(top, max(y1, y2) - 1))
        draw.rectangle(corners, outline=item.colour, width=max(1, round(thickness * item.width)))
    for item, place in reversed(places):
        draw.rectangle(place, fill=item.colour)
        draw.text(
            (place[0] + 2, place[1] + 1),
            item.text,
            text_colour(item.colour),
            font=font(size, item.text),
        )
    return drawn


def _label_place(
    draw: ImageDraw.ImageDraw,
    item: DrawnBox,
    size: int,
    picture: tuple[int, int],
    taken: Sequence[Rectangle],
) -> Rectangle:
    width = draw.textlength(item.text, font=font(size, item.text)) + 4
    height = round(size * 1.25) + 2
    x1, y1, x2, y2 = item.box
    candidates = [
        (x1, y1 - height),  # above the box
        (x2 - width, y1 - height),
        (x1, y2),  # below it
        (x2 - width, y2),
        (x1, y1),  # in its corners
        (x1, y2 - height),
        (x2 - width, y1),
        (x2 - width, y2 - height),
    ]
    inside = []
    for x, y in candidates:
        left = max(0.0, min(x, picture[0] - width))
        top = max(0.0, min(y, picture[1] - height))
        inside.append((left, top, left + width, top + height))
    return min(inside, key=lambda place: sum(_overlap(place, other) for other in taken))


def _overlap(a: Rectangle, b: Rectangle) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
