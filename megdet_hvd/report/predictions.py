"""One picture with its detections drawn on it."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from megdet_hvd.checkpoint.atomic import write_bytes
from megdet_hvd.data.batch import Detections
from megdet_hvd.data.fonts import shown_names
from megdet_hvd.report.boxes import DrawnBox, draw_boxes
from megdet_hvd.report.colours import class_colour

SMALLEST = 480
"""A picture with a shorter longer side than this is drawn enlarged: labels need the room."""


_KEY, _AUTHOR = "Software", "megdet_hvd.predict"
_HEAD_BYTES = 1024
"""PNG's texts come before its pixels."""


def _signed() -> PngInfo:
    """By which a file that may be written anew is told from a user's own picture."""
    info = PngInfo()
    info.add_text(_KEY, _AUTHOR)
    return info


def is_prediction(file: Path) -> bool:
    """Whether a file is a picture that :func:`draw_prediction` has written."""
    try:
        with file.open("rb") as opened:
            head = opened.read(_HEAD_BYTES)
    except OSError:
        return False
    mark = f"tEXt{_KEY}\0{_AUTHOR}".encode("latin-1")
    return not file.is_symlink() and head.startswith(b"\x89PNG") and mark in head


def draw_prediction(
    picture: Image.Image,
    detections: Detections,
    categories: Sequence[str],
    out: Path,
    *,
    score: float,
) -> list[str]:
    """Write ``picture`` as PNG with boxes, class names and scores.

    Args:
        picture: upright RGB.
        detections: in its pixels.
        categories: names of labels 1…K.
        out: the file; replaced whole, the folder made where missing.
        score: detections below it are left out.

    Returns:
        What was drawn, as text, best first: ``dog 0.98``; with its name in any case.

    Raises:
        OSError: the file can't be written.
    """
    scale = max(1.0, SMALLEST / max(picture.size))
    if scale > 1:
        size = (round(picture.width * scale), round(picture.height * scale))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    drawn, told = [], []
    names = shown_names(categories)
    columns = zip(
        detections.boxes.tolist(),
        detections.scores.tolist(),
        detections.labels.tolist(),
        strict=True,
    )
    for box, value, label in columns:
        if value >= score:
            x1, y1, x2, y2 = (side * scale for side in box)
            text = f"{names[label - 1]} {value:.2f}"
            drawn.append(DrawnBox((x1, y1, x2, y2), class_colour(label), text))
            told.append(f"{categories[label - 1]} {value:.2f}")
    buffer = BytesIO()
    draw_boxes(picture, drawn).save(buffer, "PNG", pnginfo=_signed())
    write_bytes(out, buffer.getvalue())
    return told
