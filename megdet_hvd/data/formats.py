"""The picture formats that are opened: a file's name says nothing, and Pillow knows forty more.

Some of those start other programs (an EPS file called ``.jpg`` starts Ghostscript), and each is one
more reader of what strangers send. These are torchvision's, and what cameras and maps add to them.
"""

from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000", "AVIF")
"""Pillow's names. JPEG is MPO too, as many phones' pictures are; PPM is PGM and PBM too."""

LFS_POINTER = b"version https://git-lfs"
"""How the text begins that git leaves in place of a large file."""
_HEAD_BYTES = 256
_PICTURE_BRANDS = ("avif", "avis", "heic", "heix", "heim", "heis", "hevc", "mif1", "msf1")


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
            f"not a picture in one of the formats {', '.join(FORMATS)}{_looks_like(_head(file))}"
        ) from None


def _head(file: Path | IO[bytes]) -> bytes:
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(_HEAD_BYTES)
    file.seek(0)
    return file.read(_HEAD_BYTES)


def _looks_like(head: bytes) -> str:
    """What a file is instead, where its first bytes say so."""
    if not head:
        return ": the file is empty"
    if not head.strip(b"\0"):
        return ": it begins with zeros only, as a file that was never written whole"
    if head.startswith(LFS_POINTER):
        return ": it is a git-LFS pointer; fetch the pictures with `git lfs pull`"
    if head[4:8] == b"ftyp":
        brand = head[8:12].decode("latin-1")
        if brand in _PICTURE_BRANDS:
            name = "AVIF" if brand.startswith("avi") else "HEIC"
            return f": it is {name}, whatever its name says; convert it to JPEG or PNG"
        return ": it is a video; cut it into pictures"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<svg", b"<error")):
        return ": it is a web page or XML, perhaps a download's error message"
    return ""
