"""The picture at a position of a data set, from its file or from the user's own code."""

from PIL import Image

from megdet_hvd.data.index import ImageIndex
from megdet_hvd.data.transforms import decode


def decode_at(index: ImageIndex, position: int) -> Image.Image:
    """As upright 8-bit RGB, of the annotated size.

    Raises:
        UnreadablePicture, StorageError: as :func:`megdet_hvd.data.transforms.decode` says.
    """
    size = int(index.widths[position]), int(index.heights[position])
    if index.pictures is not None:
        return index.pictures.decode(position, size, index.value_range)
    return decode(index.file(position), size, index.value_range)
