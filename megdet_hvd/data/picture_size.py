"""Width and height of a picture, from the head of its file."""

from pathlib import Path

from megdet_hvd.data.formats import open_picture
from megdet_hvd.data.large import any_size, refuse_pipe
from megdet_hvd.data.orientation import ON_ITS_SIDE, orientation, turned_by_pillow
from megdet_hvd.storage import cannot_read, is_transient, retried


def picture_size(file: Path) -> tuple[int, int] | None:
    """(width, height) of a picture held upright, in pixels; None where it can't be told.

    Raises:
        StorageError: the file can't be read at the moment.
    """
    sizes = picture_sizes(file)
    return None if sizes is None else sizes[0]


@any_size()
def picture_sizes(file: Path) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """(width, height) held upright, and as stored, in pixels; None where it can't be told.

    Raises:
        StorageError: the file can't be read at the moment.
    """
    try:
        refuse_pipe(file)
        with retried(lambda: open_picture(file)) as picture:
            width, height = picture.size
            on_its_side = orientation(picture) in ON_ITS_SIDE
            turned = turned_by_pillow(picture) in ON_ITS_SIDE
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        if isinstance(error, OSError) and is_transient(error):
            raise cannot_read(file, error) from error
        return None
    sizes = (width, height), (height, width) if on_its_side else (width, height)
    return sizes if turned or not on_its_side else sizes[::-1]
