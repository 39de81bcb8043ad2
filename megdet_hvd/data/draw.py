"""Ground truth drawn on its pictures."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from megdet_hvd.data.fonts import font, shown_names
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.opening import decode_at
from megdet_hvd.data.transforms import UnreadablePicture, resized_size

TILE = 320
"""Longer side of a drawn picture, pixels."""
COLOURS = (
    (230, 60, 60),
    (60, 180, 75),
    (70, 130, 255),
    (245, 150, 40),
    (200, 80, 220),
    (40, 200, 200),
    (240, 220, 50),
    (250, 130, 170),
)


def contact_sheet(indexes: Sequence[ImageIndex], count: int) -> Image.Image:
    """Up to ``count`` pictures, evenly spread over the data sets, with boxes and class names.

    Pictures with boxes come first; crowds are drawn white. What can't be decoded is left out.
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
            tiles.append(draw_ground_truth(index, position))
        except UnreadablePicture:
            continue
    columns = max(1, math.ceil(math.sqrt(len(tiles))))
    rows = max(1, math.ceil(len(tiles) / columns))
    sheet = Image.new("RGB", (columns * (TILE + 4), rows * (TILE + 4)), (40, 40, 40))
    for k, tile in enumerate(tiles):
        sheet.paste(tile, ((k % columns) * (TILE + 4) + 2, (k // columns) * (TILE + 4) + 2))
    return sheet


def draw_ground_truth(index: ImageIndex, position: int) -> Image.Image:
    """One picture, its longer side ``TILE`` pixels, with its boxes.

    Raises:
        UnreadablePicture: it can't be decoded.
    """
    width, height = int(index.widths[position]), int(index.heights[position])
    size = resized_size(width, height, TILE, TILE)
    picture = decode_at(index, position).resize(size)
    pencil = ImageDraw.Draw(picture)
    names = shown_names(index.categories)
    for row in index.shown_rows(position):
        scale = np.asarray([size[0] / width, size[1] / height] * 2)
        x1, y1, x2, y2 = (index.boxes[row] * scale).tolist()
        label = int(index.labels[row])
        crowd = bool(index.crowds[row])
        colour = (255, 255, 255) if crowd else COLOURS[(label - 1) % len(COLOURS)]
        name = names[label - 1] + (" (crowd)" if crowd else "")
        pencil.rectangle([x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)], outline=colour, width=2)
        corner = (x1 + 2, max(y1 - 12, 0))
        pencil.rectangle(pencil.textbbox(corner, name, font=font(11, name)), fill=(0, 0, 0))
        pencil.text(corner, name, fill=colour, font=font(11, name))
    return picture
