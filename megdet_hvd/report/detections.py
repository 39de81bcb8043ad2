"""Detections beside their ground truth, several validation pictures on one sheet."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.data.batch import Detections
from megdet_hvd.data.fonts import font, shown_names
from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.opening import decode_at
from megdet_hvd.data.transforms import UnreadablePicture
from megdet_hvd.report.boxes import DrawnBox, draw_boxes
from megdet_hvd.report.colours import class_colour, text_colour
from megdet_hvd.report.ground_truth import true_boxes

CELL = 400
"""Longer side of one picture on the sheet, pixels."""
_GAP = 10
_TEXT = 15
_NAMED = 12
"""With more boxes than this on a picture, names would hide it: the legend has to do."""


def draw_detections(
    index: ImageIndex,
    detections: Mapping[int, Detections],
    out: Path,
    *,
    count: int = 6,
    score: float = 0.5,
    heading: str = "",
) -> None:
    """Write a PNG: on the left of each pair the ground truth, on the right the detections.

    Args:
        index: the validation pictures.
        detections: by position in the index; these positions can be shown.
        out: the file; replaced whole.
        count: pictures on the sheet.
        score: detections below it are left out.
        heading: a line on top, such as the iteration and its AP.

    Raises:
        OSError: the file can't be written.
    """
    positions = choose_pictures(index, sorted(detections), count)
    positions.sort(key=lambda p: index.aspects[p])  # rows of like height
    pairs = [_pair(index, position, detections[position], score) for position in positions]
    shown = sorted({label for _, labels in pairs for label in labels})
    sheet = _sheet(
        [pair for pair, _ in pairs], [shown_names(index.categories)[k - 1] for k in shown], shown
    )
    title = f"left: ground truth · right: detections with score ≥ {score:.2f}"
    sheet = _with_title(sheet, f"{heading} · {title}" if heading else title)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(out, buffer.getvalue())


def choose_pictures(index: ImageIndex, positions: Sequence[int], count: int) -> list[int]:
    """``count`` of the positions, evenly spread, pictures with boxes first.

    No draw: each evaluation of a run shows the same pictures, so that sheets can be compared.
    """
    full = [p for p in positions if index.offsets[p + 1] > index.offsets[p]]
    pool = full if len(full) >= count else sorted(positions, key=lambda p: p not in set(full))
    if len(pool) <= count:
        return list(pool)
    if len(full) < count:
        return sorted(pool[:count])
    return [pool[k] for k in np.linspace(0, len(pool) - 1, count).round().astype(int)]


def _pair(
    index: ImageIndex, position: int, found: Detections, score: float
) -> tuple[Image.Image, set[int]]:
    """Both pictures of one position side by side, and the labels on them."""
    record = index.record(position)
    size = (record.width, record.height)
    try:
        picture = decode_at(index, position)
    except UnreadablePicture:
        picture = Image.new("RGB", size, (60, 60, 60))
    scale = CELL / max(size)
    shown = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    picture = picture.resize(shown, Image.Resampling.BICUBIC)
    truth = true_boxes(index, position, (scale, scale), named=_NAMED)
    kept = [k for k in range(len(found.scores)) if float(found.scores[k]) >= score]
    many = len(kept) > _NAMED
    names = shown_names(index.categories)
    detected = []
    for k in kept:
        label, value = int(found.labels[k]), float(found.scores[k])
        text = f"{value:.2f}" if many else f"{names[label - 1]} {value:.2f}"
        box = tuple(float(v) * scale for v in found.boxes[k])
        detected.append(DrawnBox((box[0], box[1], box[2], box[3]), class_colour(label), text))
    right = draw_boxes(picture, detected, font_size=12)
    if not kept:
        best = f"best {float(found.scores.max()):.2f}" if len(found.scores) else "none at all"
        _note(right, f"no detection ≥ {score:.2f} ({best})")
    pair = Image.new("RGB", (2 * shown[0] + 2, shown[1]), "white")
    pair.paste(draw_boxes(picture, truth, font_size=12), (0, 0))
    pair.paste(right, (shown[0] + 2, 0))
    rows = slice(index.offsets[position], index.offsets[position + 1])
    labels = {int(v) for v in index.labels[rows]} | {int(found.labels[k]) for k in kept}
    return pair, labels


def _note(picture: Image.Image, text: str) -> None:
    draw = ImageDraw.Draw(picture)
    width = draw.textlength(text, font=font(12))
    draw.rectangle((0, 0, width + 8, 20), fill=(0, 0, 0))
    draw.text((4, 3), text, (255, 255, 255), font=font(12))


def _sheet(
    pairs: Sequence[Image.Image], names: Sequence[str], labels: Sequence[int]
) -> Image.Image:
    """The pairs in two columns, and the legend below them."""
    columns = 2 if len(pairs) > 1 else 1
    widths = [max((p.width for p in pairs[c::columns]), default=0) for c in range(columns)]
    rows = [pairs[k : k + columns] for k in range(0, len(pairs), columns)]
    heights = [max(p.height for p in row) for row in rows]
    width = max(sum(widths) + _GAP * (columns + 1), 480)
    legend = _legend(names, labels, width - 2 * _GAP)
    height = sum(heights) + _GAP * (len(rows) + 1) + legend.height
    sheet = Image.new("RGB", (width, height), "white")
    top = _GAP
    for row, row_height in zip(rows, heights, strict=True):
        left = _GAP
        for pair, column_width in zip(row, widths, strict=False):
            sheet.paste(pair, (left, top))
            left += column_width + _GAP
        top += row_height + _GAP
    sheet.paste(legend, (_GAP, top))
    return sheet


def _legend(names: Sequence[str], labels: Sequence[int], width: int) -> Image.Image:
    """Class names on their colours, in as many lines as they take."""
    height, places, left, top = _TEXT + 8, [], 0.0, 0
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for name in names:
        needed = measure.textlength(name, font=font(_TEXT, name)) + 12
        if left and left + needed > width:
            left, top = 0.0, top + height + 4
        places.append((left, top, left + needed))
        left += needed + 6
    legend = Image.new("RGB", (width, top + height + _GAP if names else 1), "white")
    draw = ImageDraw.Draw(legend)
    for name, label, (start, line, end) in zip(names, labels, places, strict=True):
        colour = class_colour(label)
        draw.rectangle((start, line, end, line + height), fill=colour)
        draw.text((start + 6, line + 3), name, text_colour(colour), font=font(_TEXT, name))
    return legend


def _with_title(sheet: Image.Image, title: str) -> Image.Image:
    height = _TEXT + 10
    whole = Image.new("RGB", (sheet.width, sheet.height + height), "white")
    whole.paste(sheet, (0, height))
    size = _TEXT
    draw = ImageDraw.Draw(whole)
    while size > 9 and draw.textlength(title, font=font(size)) > sheet.width - 2 * _GAP:
        size -= 1
    draw.text((_GAP, 6), title, (0, 0, 0), font=font(size))
    return whole
