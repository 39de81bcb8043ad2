"""Fonts that have the letters of class names, whatever their script.

DejaVu Sans, which matplotlib brings, has Latin, Greek, Cyrillic and some more. Other scripts take
a font of the machine; where it has none, a class is shown by its number.
"""

import logging
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

LOGGER = logging.getLogger("megdet_hvd")

_told: set[str] = set()
_lock = threading.Lock()


def font(size: int, text: str = "") -> Any:
    """A font, ``size`` pixels high, that has the letters of ``text`` if the machine has one."""
    return _opened(_file_for(_letters(text)) or _own(), size)


def shown_names(categories: Sequence[str]) -> list[str]:
    """Class names as they can be drawn: those of which letters are missing become ``class 3``.

    Said once a process, with the names.
    """
    shown = list(categories)
    lost = []
    for k, name in enumerate(categories):
        if _file_for(_letters(name)) is None:
            shown[k] = f"class {k + 1}"
            lost.append(name)
    with _lock:
        new = [name for name in lost if name not in _told]
        _told.update(new)
    if new:
        LOGGER.warning(
            f"warning: this machine has no font with the letters of {len(new)} class names "
            f"({', '.join(new[:3])}{', …' if len(new) > 3 else ''}); pictures show class numbers "
            "instead, counted from 1. Install one, such as Noto Sans CJK"
        )
    return shown


def _letters(text: str) -> frozenset[int]:
    """What may be missing: DejaVu has all of ASCII."""
    return frozenset(ord(letter) for letter in text if ord(letter) > 126 and not letter.isspace())


@lru_cache(maxsize=4096)
def _file_for(letters: frozenset[int]) -> str | None:
    """The first font file that has them all; None: there is none."""
    if letters <= _coverage(_own()):
        return _own()
    return next((file for file in _system_fonts() if letters <= _coverage(file)), None)


@lru_cache
def _own() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@lru_cache
def _system_fonts() -> list[str]:
    """Plain faces first: any of a family's has the letters."""
    from matplotlib.font_manager import findSystemFonts

    def rank(file: str) -> tuple[bool, str]:
        name = Path(file).name.lower()
        fancy = any(word in name for word in ("bold", "italic", "oblique", "mono", "black", "thin"))
        return fancy, name

    return sorted(findSystemFonts(), key=rank)


@lru_cache(maxsize=1024)
def _coverage(file: str) -> frozenset[int]:
    """The characters of a font that Pillow can draw in any size; none of a broken one."""
    from matplotlib.ft2font import FT2Font

    try:
        _opened(file, 12)
        return frozenset(FT2Font(file).get_charmap())
    except Exception:  # a font that is broken, or of bitmaps: it is none for us
        return frozenset()


@lru_cache(maxsize=64)
def _opened(file: str, size: int) -> Any:
    return ImageFont.truetype(file, size)
