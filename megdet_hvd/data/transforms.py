"""From a picture file to uint8 RGB pixels of the wanted size; nothing here is random by itself.

Pictures stay uint8 until they are on the device, where they are normalised.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from megdet_hvd.config.sections.data import ValueRange
from megdet_hvd.data.depth import (
    UnknownRange,
    all_but_black,
    has_deep_colour,
    is_deep,
    mark_deep,
    to_eight_bits,
)
from megdet_hvd.data.formats import open_picture
from megdet_hvd.data.jpeg import Pixels, jpeg_pixels
from megdet_hvd.data.large import TooLarge, any_size, check_size, refuse_pipe
from megdet_hvd.data.orientation import turned_back, turned_by_pillow, upright
from megdet_hvd.draws import draw_key
from megdet_hvd.storage import cannot_read, is_transient, retried


class UnreadablePicture(Exception):
    """A picture that cannot be decoded, or isn't the picture that was annotated."""


@any_size()
def decode(
    file: Path,
    annotated_size: tuple[int, int] | None = None,
    value_range: ValueRange = "auto",
) -> Image.Image:
    """A picture as upright 8-bit RGB, whatever its file holds.

    Grey, palette and CMYK become RGB; alpha is dropped; see :func:`to_rgb` for more than 8 bits.
    EXIF orientation is applied, unless the annotated width and height fit only the raw pixels:
    then the boxes were drawn on those, and they are left as stored.

    Args:
        file: the picture.
        annotated_size: width and height that the annotation gives, pixels.
        value_range: black and white of pictures of more than 8 bits (``data.value_range``).

    Raises:
        UnreadablePicture: it cannot be decoded, is too large, or neither way of holding it has
            that size.
        StorageError: the file can't be read at the moment, which says nothing of the picture.
    """
    with _opened(_content(file)) as opened:
        return _loaded(opened, annotated_size, value_range)


@any_size()
def decode_pixels(
    file: Path,
    annotated_size: tuple[int, int] | None = None,
    value_range: ValueRange = "auto",
) -> tuple[Pixels, str | None]:
    """What :func:`decode` gives as (height, width, 3) uint8, and :func:`all_but_black` says of it.

    In less time where the file is a usual JPEG: see :mod:`megdet_hvd.data.jpeg`.
    """
    content = _content(file)
    with _opened(content) as opened:
        if annotated_size in (None, opened.size):
            pixels = jpeg_pixels(content, opened)
            if pixels is not None:
                return pixels, None
        return pixels_of(_loaded(opened, annotated_size, value_range))


def pixels_of(picture: Image.Image) -> tuple[Pixels, str | None]:
    """An RGB picture as (height, width, 3) uint8, and what :func:`all_but_black` says of it."""
    return np.array(picture), all_but_black(picture)


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """A file as Pillow opens it, and whatever is wrong with it inside as UnreadablePicture."""
    try:
        with open_picture(BytesIO(content)) as opened:
            check_size(opened.size)
            yield opened
    except UnreadablePicture:
        raise
    except (UnknownRange, TooLarge) as error:
        raise UnreadablePicture(str(error)) from error
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        raise UnreadablePicture(str(error)) from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise UnreadablePicture(f"{type(error).__name__}: {error}") from error


def _loaded(
    opened: Image.Image, annotated_size: tuple[int, int] | None, value_range: ValueRange
) -> Image.Image:
    """What Pillow has opened, as :func:`decode` gives it."""
    deep_colour = has_deep_colour(opened)
    turned = turned_by_pillow(opened)
    opened.load()
    picture = upright(opened)
    if annotated_size is not None and picture.size != annotated_size:
        stored = turned_back(opened, turned)
        if stored.size != annotated_size:
            raise UnreadablePicture(
                f"it is {picture.width}×{picture.height} pixels, but annotated as "
                f"{annotated_size[0]}×{annotated_size[1]}"
            )
        picture = stored
    return to_rgb(picture, value_range, deep_colour=deep_colour)


def _content(file: Path) -> bytes:
    """The file's bytes, read before anything decodes them: decoders' errors are not the disk's."""
    try:
        refuse_pipe(file)
        return retried(file.read_bytes)
    except ValueError as error:
        raise UnreadablePicture(str(error)) from error
    except OSError as error:
        if is_transient(error):
            raise cannot_read(file, error) from error
        raise UnreadablePicture(f"{type(error).__name__}: {error}") from error


def to_rgb(
    picture: Image.Image, value_range: ValueRange = "auto", *, deep_colour: bool = False
) -> Image.Image:
    """Any Pillow picture as 8-bit RGB of its own memory.

    Args:
        picture: what Pillow opened.
        value_range: black and white of grey values of more than 8 bits, see
            :func:`megdet_hvd.data.depth.to_eight_bits`.
        deep_colour: the file held 16-bit colours, of which Pillow took the upper 8 bits.

    Raises:
        UnknownRange: its values don't fit, or they are colours, which no range can be given for.
    """
    if is_deep(picture):
        return to_eight_bits(picture, value_range)
    if picture.mode in ("P", "PA"):
        picture = picture.convert("RGBA")
    found = picture.copy() if picture.mode == "RGB" else picture.convert("RGB")
    if deep_colour:
        if value_range not in ("auto", (0, 65535)):
            raise UnknownRange(
                "it holds 16-bit colours, which are read as 0…65535 whatever data.value_range "
                "says; convert it to 8-bit colours, or to 16-bit grey"
            )
        mark_deep(found)
    return found


def resized_size(width: int, height: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Width and height with the shorter side at ``min_size`` and the longer at most ``max_size``.

    The paper's 800/1333 rule, in whole numbers, rounded half up; both sides at least 1.
    """
    short, long = min(width, height), max(width, height)
    new_short, new_long = min_size, (2 * long * min_size + short) // (2 * short)
    if new_long > max_size:
        new_short, new_long = (2 * short * max_size + long) // (2 * long), max_size
    new_short = max(new_short, 1)
    return (new_short, new_long) if width <= height else (new_long, new_short)


def scale_boxes(
    boxes: NDArray[np.float32], old: tuple[int, int], new: tuple[int, int]
) -> NDArray[np.float32]:
    """Boxes (n, 4) of a picture of size ``old`` in a picture of size ``new``, (width, height)."""
    ratio = np.asarray([new[0] / old[0], new[1] / old[1]] * 2)
    scaled: NDArray[np.float32] = (boxes * ratio).astype(np.float32)
    return scaled


def flip_boxes(boxes: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Boxes (n, 4) of a picture ``width`` pixels wide, mirrored left to right."""
    flipped = boxes.copy()
    flipped[:, 0] = width - boxes[:, 2]
    flipped[:, 2] = width - boxes[:, 0]
    return flipped


@dataclass(frozen=True)
class Augmentation:
    """What training does to one picture in one epoch."""

    min_size: int
    """Shorter side, pixels."""
    flip: bool
    """Mirrored left to right."""


def draw_augmentation(
    seed: int,
    epoch: int,
    source: int,
    image_id: int,
    *,
    min_sizes: Sequence[int],
    flip_probability: float,
) -> Augmentation:
    """The draw of one picture in one epoch; the same on every process and in every order."""
    raw = np.random.PCG64(draw_key(seed, epoch, source, image_id, "augment")).random_raw(2)
    size, flip = (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return Augmentation(min_sizes[int(size * len(min_sizes))], bool(flip < flip_probability))
