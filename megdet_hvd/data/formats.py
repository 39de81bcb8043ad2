"""The picture formats that are opened: a file's name says nothing, and Pillow knows forty more.

Some of those start other programs (an EPS file called ``.jpg`` starts Ghostscript), and each is one
more reader of what strangers send. These are torchvision's, and what cameras and maps add to them.
"""

from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
"""Pillow's names. JPEG is MPO too, as many phones' pictures are; PPM is PGM and PBM too."""


def open_picture(file: Path | IO[bytes]) -> Image.Image:
    """As ``PIL.Image.open``; pixels are read later.

    Raises:
        UnidentifiedImageError: it has none of these formats.
        OSError: it can't be read.
    """
    try:
        return Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise UnidentifiedImageError(
            f"not a picture in one of the formats {', '.join(FORMATS)}"
        ) from None
