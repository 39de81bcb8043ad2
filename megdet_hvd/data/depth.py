"""Pictures of more than 8 bits a value, brought to 8 without losing what is on them.

A file says how many bits a value takes, and not how many of them the camera filled: a 12-bit camera
writes 0…4095 into 16 bits, which shown as 16 bits is all but black. No single picture tells the
one from the other, so the range is a setting (``data.value_range``), and pictures that come out
all but black are told of.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from megdet_hvd.config.sections.data import ValueRange

DARK = 16
"""Below this of 255 everywhere, a picture of more than 8 bits is all but black."""
MANY = 0.1
"""From this share of a set on, dark pictures are no accident."""
_DEEP = "megdet_hvd: more than 8 bits"
"""In Pillow's ``info`` of a picture that had them."""


class UnknownRange(ValueError):
    """Values that the range does not fit, or of which none can be told."""


def is_deep(picture: Image.Image) -> bool:
    """Whether a Pillow picture holds values of more than 8 bits."""
    return picture.mode.startswith("I") or picture.mode == "F"


def has_deep_colour(opened: Image.Image) -> bool:
    """Whether a file that was just opened holds colours of 16 bits: Pillow reads the upper 8."""
    tiles = getattr(opened, "tile", None) or []
    return not is_deep(opened) and any(";16" in str(tile[-1]) for tile in tiles)


def to_eight_bits(picture: Image.Image, value_range: ValueRange) -> Image.Image:
    """A picture of integers or floats as 8-bit RGB.

    ``auto``: 16-bit integers are 0…65535. Of 32-bit integers and of floats the file's type says
    nothing: values up to 255 are 8-bit ones (floats up to 1: fractions), integers up to 65535
    16-bit ones. NaN and infinities count as the range's lower end.

    Raises:
        UnknownRange: ``auto`` fits none of these.
    """
    values = np.asarray(picture)
    low, high = _range(picture.mode, values) if value_range == "auto" else value_range
    if (low, high) == (0, 65535):
        bits = np.clip(values, 0, 65535).astype(np.uint16) >> 8
    else:
        with np.errstate(invalid="ignore"):
            scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
        finite = np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)
        bits = np.clip(np.floor(finite + 0.5), 0, 255)
    found = Image.fromarray(bits.astype(np.uint8)).convert("RGB")
    mark_deep(found, f", where {_text(values.max())} is the brightest value")
    return found


def mark_deep(picture: Image.Image, note: str = "") -> None:
    """Note that it had more than 8 bits, and what to say of it in :func:`all_but_black`."""
    picture.info[_DEEP] = note


def all_but_black(picture: Image.Image) -> str | None:
    """What to say of a picture of which hardly anything is left: it had more than 8 bits.

    None: it had not, or there is something on it.
    """
    note = picture.info.get(_DEEP)
    if note is None or max(np.asarray(picture.getextrema()).ravel()) >= DARK:
        return None
    return str(note)


def dark_words(count: int, of: int, first: str, setting: str = "data.value_range=[0,4095]") -> str:
    """What to say of pictures that came out all but black."""
    return (
        f"{count} of {of} pictures come out all but black, the first: {first}. Were their values "
        "written with fewer bits than the file has room for, as by a 12-bit camera? Then give "
        f"{setting}, or whatever their range is"
    )


def _range(mode: str, values: NDArray[np.generic]) -> tuple[float, float]:
    if mode.startswith("I;16"):
        return 0, 65535
    finite = values[np.isfinite(values)]
    least, most = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    floats = mode == "F"
    if least >= 0:
        for top in (1, 255) if floats else (255, 65535):
            if most <= top:
                return 0, top
    fits = "fractions (0…1) nor 8 bits (0…255)" if floats else "8 bits (0…255) nor 16 (0…65535)"
    raise UnknownRange(
        f"its values run from {least:g} to {most:g}, which is neither {fits}; say what is black "
        f"and what is white with data.value_range=[{least:g},{most:g}] or the like"
    )


def _text(value: object) -> str:
    return f"{float(value):g}"  # type: ignore[arg-type]
