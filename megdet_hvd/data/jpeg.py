"""The pixels of usual JPEG files in less time than by way of a Pillow picture, and the same.

Pillow decodes by libjpeg-turbo, too, but to four bytes a pixel, and three copies later they are an
array; simplejpeg has the array at once, a fifth of all that the loader does. Nothing may depend on
which of them is there:

- it is given only what Pillow has opened, and found to be a JPEG of 8 bits, grey or RGB, upright;
- whatever it complains of, the library's warnings included, goes Pillow's way as it always did,
  and Pillow's pixels or error stand;
- where its library has other values than Pillow's in samples, which it writes for that purpose,
  nothing is decoded by it.
"""

import logging
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet_hvd.data.formats import open_picture
from megdet_hvd.data.orientation import orientation

_MODES = ("L", "RGB")
_SAMPLED = ("444", "422", "420", "440", "411", "Gray")
"""How colours of the samples are subsampled: each has code of its own in the library."""
_SIDES = (67, 45)
"""Width and height of samples, pixels: no multiples of anything, larger than vectors."""

Pixels = NDArray[np.uint8]
_Decode = Callable[[bytes], Pixels]

LOGGER = logging.getLogger("megdet_hvd")


def jpeg_pixels(content: bytes, opened: Image.Image) -> Pixels | None:
    """RGB (height, width, 3) of memory of its own; None: Pillow has to load it.

    Args:
        content: of the whole file.
        opened: the same, opened by Pillow; its pixels needn't have been read.
    """
    if opened.format != "JPEG" or opened.mode not in _MODES or orientation(opened) != 1:
        return None
    read = decoder()
    if read is None:
        return None
    try:
        pixels = read(content)
    except Exception:  # what is wrong with it, and whether that matters, is for Pillow to say
        return None
    return pixels if pixels.shape == (opened.height, opened.width, 3) else None


@cache
def decoder() -> _Decode | None:
    """A file's content to its RGB pixels, by simplejpeg; None: Pillow is to do it."""
    try:
        import simplejpeg
    except Exception:  # it isn't there, or was built for another numpy
        return None

    def read(content: bytes) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(content, colorspace="RGB", strict=True)
        return pixels

    try:
        if _as_pillow(simplejpeg, read):
            return read
        fault = "simplejpeg and Pillow give JPEG files different values"
    except Exception as error:  # another version may know other arguments, or other samples
        fault = f"simplejpeg can't decode samples of its own ({type(error).__name__}: {error})"
    LOGGER.warning(
        f"warning: {fault}; Pillow decodes JPEG files, in more time. Install both as "
        "install/versions.toml has them"
    )
    return None


def _as_pillow(library: Any, read: _Decode) -> bool:
    """Whether samples have the same values over both."""
    width, height = _SIDES
    drawn = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for sampled in _SAMPLED:
        picture = drawn[..., :1].copy() if sampled == "Gray" else drawn
        content: bytes = library.encode_jpeg(
            picture,
            quality=85,
            colorspace="GRAY" if sampled == "Gray" else "RGB",
            colorsubsampling=sampled,
        )
        with open_picture(BytesIO(content)) as opened:
            expected = np.asarray(opened.convert("RGB"))
        if not np.array_equal(read(content), expected):
            return False
    return True
