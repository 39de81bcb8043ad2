"""Ground truth drawn on its pictures."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from megdet_hvd.data.fonts import shown_names
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.opening import decode_at
from megdet_hvd.data.transforms import UnreadablePicture, resized_size
from megdet_hvd.report.boxes import DrawnBox, draw_boxes
from megdet_hvd.report.colours import class_colour

TILE = 320
"""Longer side of a picture on the contact sheet, pixels."""
_CROWD = (150, 150, 150)


def true_boxes(
    index: ImageIndex, position: int, scale: tuple[float, float], *, named: int | None = None
) -> list[DrawnBox]:
    """The boxes of a picture that have a place in it, small ones first, so that they lie on top.

    Args:
        index: the data set.
        position: of the picture.
        scale: of the drawn picture to the annotated one, across and down.
        named: with more boxes than this only crowds have their names on them; None: all have.
    """
    rows = index.shown_rows(position)
    names = shown_names(index.categories)
    boxes = []
    for row in sorted(rows, key=lambda row: index.areas[row]):
        label = int(index.labels[row])
        x1, y1, x2, y2 = (float(v) for v in index.boxes[row])
        box = (x1 * scale[0], y1 * scale[1], x2 * scale[0], y2 * scale[1])
        name = names[label - 1]
        if index.crowds[row]:
            boxes.append(DrawnBox(box, _CROWD, f"{name} (crowd)", 0.5))
        else:
            text = name if named is None or len(rows) <= named else ""
            boxes.append(DrawnBox(box, class_colour(label), text))
    return boxes


def contact_sheet(indexes: Sequence[ImageIndex], count: int) -> Image.Image:
    """Up to ``count`` pictures, evenly spread over the data sets, with boxes and class names.

    Pictures with boxes come first; crowds are drawn grey. What can't be decoded is left out.
    """
    places = [
        (index, int(position))
        for index in indexes
        for position in np.flatnonzero((np.diff(index.offsets) > 0) & (index.widths > 0))
    ]
    step = max(1, len(places) // max(count, 1))
    tiles: list[Image.Image] = []
    for index, position in places[::step]:
        if len(tiles) == count:
            break
        try:
            tiles.append(_tile(index, position))
        except UnreadablePicture:
            continue
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, math.ceil(len(tiles) / columns))
    sheet = Image.new("RGB", (columns * (TILE + 4), rows * (TILE + 4)), (40, 40, 40))
    for k, tile in enumerate(tiles):
        sheet.paste(tile, ((k % columns) * (TILE + 4) + 2, (k // columns) * (TILE + 4) + 2))
    return sheet


def _tile(index: ImageIndex, position: int) -> Image.Image:
    """One picture, its longer side ``TILE`` pixels. Raises UnreadablePicture."""
    width, height = int(index.widths[position]), int(index.heights[position])
    size = resized_size(width, height, TILE, TILE)
    picture = decode_at(index, position).resize(size)
    boxes = true_boxes(index, position, (size[0] / width, size[1] / height))
    return draw_boxes(picture, boxes, font_size=11)
