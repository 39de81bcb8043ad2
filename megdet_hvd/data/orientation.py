"""Pictures turned the way their camera was held.

Pillow's own ``exif_transpose`` also writes the rest of the EXIF block anew, and fails where any
tag of it is broken; nothing but the orientation is looked at here.
"""

from PIL import Image

_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


_TURNS_BACK = {**_TURNS, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
ON_ITS_SIDE = (5, 6, 7, 8)
"""Orientations of which the upright picture is as wide as the stored one is high."""


def upright(picture: Image.Image) -> Image.Image:
    """The picture as its viewers see it; as stored where its orientation can't be read."""
    turn = _TURNS.get(orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def turned_by_pillow(opened: Image.Image) -> int:
    """The orientation (1…8) to which Pillow itself turns a file's pixels when it loads them.

    It does so with TIFF, whose ``size`` is that of the upright picture from the start.
    """
    return orientation(opened) if opened.format == "TIFF" else 1


def turned_back(picture: Image.Image, turned: int) -> Image.Image:
    """The picture as stored, of one that was turned from this orientation."""
    turn = _TURNS_BACK.get(turned)
    return picture if turn is None else picture.transpose(turn)


def orientation(picture: Image.Image) -> int:
    """What EXIF says of how the camera was held, 1…8; 1 where it can't be read."""
    try:
        value = picture.getexif().get(_TAG, 1)
        return int(value[0] if isinstance(value, tuple | list | bytes) else value)
    except Exception:  # whatever a broken block makes of Pillow: it must not cost the picture
        return 1
