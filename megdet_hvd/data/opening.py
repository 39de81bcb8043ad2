"""The picture at a position of a data set, from its file or from the user's own code."""

from PIL import Image

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.jpeg import Pixels
from megdet_hvd.data.transforms import decode, decode_pixels, pixels_of


def decode_at(index: ImageIndex, position: int) -> Image.Image:
    """As upright 8-bit RGB, of the annotated size.

    Raises:
        UnreadablePicture, StorageError: as :func:`megdet_hvd.data.transforms.decode` says.
    """
    if index.pictures is not None:
        return index.pictures.decode(position, _size(index, position), index.value_range)
    return decode(index.file(position), _size(index, position), index.value_range)


def pixels_at(index: ImageIndex, position: int) -> tuple[Pixels, str | None]:
    """The same as (height, width, 3) uint8; what is to be said of it where it is all but black.

    Raises:
        UnreadablePicture, StorageError: as there.
    """
    if index.pictures is not None:
        return pixels_of(decode_at(index, position))
    return decode_pixels(index.file(position), _size(index, position), index.value_range)


def _size(index: ImageIndex, position: int) -> tuple[int, int]:
    """As annotated: width and height, pixels."""
    return int(index.widths[position]), int(index.heights[position])
