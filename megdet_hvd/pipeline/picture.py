"""One picture: read, checked, and scaled down where it is larger than training wants."""

import os
from pathlib import Path

from PIL import Image

from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.problems import Problem
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.pipeline.index import Entry

_JPEG_QUALITY = 95
_JPEG = (".jpg", ".jpeg")


def kept_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Pixels of a picture whose longer side is ``max_side`` at most; None: as it is."""
    longer = max(width, height)
    if max_side is None or longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


def scaled_name(name: str) -> str:
    """The smaller copy's name: JPEG stays JPEG, all else becomes PNG, which loses nothing."""
    path = Path(name)
    return name if path.suffix.lower() in _JPEG else str(path.with_suffix(".png"))


def prepare_picture(
    file: Path,
    name: str,
    size: tuple[int, int],
    max_side: int | None,
    folder: Path,
    known: Entry | None,
    value_range: ValueRange = "auto",
) -> tuple[Entry, bool] | Problem:
    """What is known of it now, and whether anything had to be done; or what is wrong with it.

    Args:
        file: the picture.
        name: as the annotation file has it; the smaller copy lies under it in ``folder``.
        size: width and height as annotated, pixels.
        max_side: longer side at most; None: pictures stay as they are.
        folder: of smaller copies.
        known: what an earlier run found.
        value_range: ``data.value_range``, which the smaller copy is made with.

    Raises:
        OSError: a smaller copy can't be written.
    """
    try:
        status = file.stat()
    except OSError as error:
        return Problem("missing picture file", str(file), "", error.strerror or str(error))
    entry = Entry(status.st_size, status.st_mtime_ns, *size, *kept_size(*size, max_side))
    copy = folder / scaled_name(name)
    if entry == known and (not entry.scaled or copy.exists()):
        return entry, False
    try:
        picture = decode(file, size, value_range)
    except UnreadablePicture as error:
        return Problem("unreadable picture", str(file), "", str(error))
    if entry.scaled:
        _save(picture.resize((entry.kept_width, entry.kept_height), Image.Resampling.BICUBIC), copy)
    return entry, True


def _save(picture: Image.Image, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("wb") as opened:
        if file.suffix.lower() in _JPEG:
            picture.save(opened, "JPEG", quality=_JPEG_QUALITY)
        else:
            picture.save(opened, "PNG")
    temporary.replace(file)
