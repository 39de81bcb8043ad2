"""Width and height of a picture, from the head of its file."""

from pathlib import Path

from PIL import Image

_ORIENTATION = 274
_ON_ITS_SIDE = (5, 6, 7, 8)


def picture_size(file: Path) -> tuple[int, int] | None:
    """(width, height) of a picture held upright, in pixels; None where it can't be told."""
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            try:
                turned = picture.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            except Exception:  # a damaged EXIF block says nothing of the pixels
                turned = False
    except MemoryError:
        raise
    except Exception:  # decoders raise whatever they like on damaged files
        return None
    return (height, width) if turned else (width, height)
