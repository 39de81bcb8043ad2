"""Width and height of a picture, from the head of its file."""

from pathlib import Path

from megdet_hvd.data.formats import open_picture
from megdet_hvd.storage import cannot_read, is_transient, retried

_ORIENTATION = 274
_ON_ITS_SIDE = (5, 6, 7, 8)


def picture_size(file: Path) -> tuple[int, int] | None:
    """(width, height) of a picture held upright, in pixels; None where it can't be told.

    Raises:
        StorageError: the file can't be read at the moment.
    """
    try:
        with retried(lambda: open_picture(file)) as picture:
            width, height = picture.size
            try:
                turned = picture.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
            except Exception:  # a damaged EXIF block says nothing of the pixels
                turned = False
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        if isinstance(error, OSError) and is_transient(error):
            raise cannot_read(file, error) from error
        return None
    return (height, width) if turned else (width, height)
