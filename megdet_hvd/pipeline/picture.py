"""One picture: read, checked, and scaled down where it is larger than training wants."""

import os
import secrets
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from PIL import Image

from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.problems import Problem
from megdet_hvd.data.transforms import UnreadablePicture, decode
from megdet_hvd.errors import UserError
from megdet_hvd.pipeline.index import Entry
from megdet_hvd.storage import cannot_read, is_transient, retried

_JPEG_QUALITY = 95
_JPEG = (".jpg", ".jpeg")

FileStamp = tuple[int, int]
"""Size in bytes and modification time in ns of a file."""


def kept_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Pixels of a picture whose longer side is ``max_side`` at most; None: as it is."""
    longer = max(width, height)
    if max_side is None or longer <= max_side:
        return width, height
    return max(1, round(width * max_side / longer)), max(1, round(height * max_side / longer))


def copy_name(position: int, file: Path) -> str:
    """The smaller copy's name: the picture's place in its annotation file, and nothing of its own.

    JPEG stays JPEG, all else becomes PNG, which loses nothing.
    """
    return f"{position:08d}.jpg" if file.suffix.lower() in _JPEG else f"{position:08d}.png"


def see(file: Path) -> FileStamp | None:
    """What tells that a file is another than before; None: there is no such file.

    Raises:
        StorageError: the storage does not say, for the moment.
    """
    try:
        status = retried(file.stat)
    except OSError as error:
        if is_transient(error):
            raise cannot_read(file, error) from error
        return None
    return status.st_size, status.st_mtime_ns


def expected(
    seen: FileStamp,
    size: tuple[int, int],
    max_side: int | None,
    position: int,
    file: Path,
    value_range: ValueRange = "auto",
) -> Entry:
    """What will be known of a picture, its copy's size aside, if it is sound."""
    kept = kept_size(*size, max_side)
    shown = "" if value_range == "auto" else f"{value_range[0]:g} {value_range[1]:g}"
    copy = "" if kept == size else copy_name(position, file)
    return Entry(*seen, *size, *kept, copy, value_range=shown)


def prepare_picture(
    file: Path, wanted: Entry, folder: Path, value_range: ValueRange = "auto"
) -> Entry | Problem:
    """Read a picture through, and make its smaller copy; what is known of it now, or its problem.

    Args:
        file: the picture.
        wanted: what :func:`expected` says of it.
        folder: of smaller copies.
        value_range: ``data.value_range``, which the smaller copy is made with.

    Raises:
        OSError: the copy can't be written.
        UserError: the picture is being changed meanwhile.
        StorageError: it can't be read for the moment.
    """
    size = wanted.width, wanted.height
    try:
        picture = decode(file, size, value_range)
    except UnreadablePicture as error:
        return Problem("unreadable picture", str(file), "", str(error))
    if see(file) != (wanted.file_bytes, wanted.modified_ns):
        raise UserError(f"{file} was changed while it was prepared; start again once it is at rest")
    if not wanted.scaled:
        return wanted
    small = picture.resize((wanted.kept_width, wanted.kept_height), Image.Resampling.BICUBIC)
    return replace(wanted, copy_bytes=_save(small, folder / wanted.copy))


def is_there(known: Entry, folder: Path) -> bool:
    """Whether the smaller copy, where there is to be one, is there and whole."""
    if not known.scaled:
        return True
    seen = see(folder / known.copy)
    return seen is not None and seen[0] == known.copy_bytes


def take_over(known: Entry, folder: Path, wanted: Entry, into: Path) -> Entry | None:
    """The copy of the same picture in another set, taken over; None: it isn't whole there.

    Copies are never changed in place, so that two sets may share one.

    Raises:
        OSError: it can't be written.
    """
    if not is_there(known, folder):
        return None
    taken = replace(wanted, copy_bytes=known.copy_bytes)
    if not known.scaled:
        return taken
    target = into / wanted.copy
    temporary = _temporary(target)
    try:
        try:
            os.link(folder / known.copy, temporary)
        except OSError:
            shutil.copyfile(folder / known.copy, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return taken if is_there(taken, into) else None


def _save(picture: Image.Image, file: Path) -> int:
    """Write it, whole or not at all; its size in bytes."""
    temporary = _temporary(file)
    try:
        with temporary.open("xb") as opened:
            if file.suffix == ".jpg":
                picture.save(opened, "JPEG", quality=_JPEG_QUALITY)
            else:
                picture.save(opened, "PNG")
            written = opened.tell()
        temporary.replace(file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return written


def _temporary(file: Path) -> Path:
    return file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
