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


def upright(picture: Image.Image) -> Image.Image:
    """The picture as its viewers see it; as stored where its orientation can't be read."""
    turn = _TURNS.get(_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    try:
        value = picture.getexif().get(_TAG, 1)
        return int(value[0] if isinstance(value, tuple | list | bytes) else value)
    except Exception:  # whatever a broken block makes of Pillow: it must not cost the picture
        return 1
