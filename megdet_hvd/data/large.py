"""How large a picture may be: Pillow's own limit is made for strangers' pictures on a web server.

Aerial, satellite and slide pictures are larger, and whoever names them as training data means
them. What is left is a limit to the memory that one of them takes.
"""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

MAX_PIXELS = 1_000_000_000
"""3 GB as RGB; a loader process holds one at a time."""

_lock = threading.Lock()
_users = 0
_before: int | None = None


class TooLarge(ValueError):
    """More pixels than the limit."""


@contextmanager
def any_size() -> Iterator[None]:
    """Inside, Pillow opens pictures of any size, without a warning. For many threads at once."""
    global _users, _before
    with _lock:
        if not _users:
            _before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if not _users:
                Image.MAX_IMAGE_PIXELS = _before


def check_size(size: tuple[int, int]) -> None:
    """Raises TooLarge: decoding it would take more memory than may be."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise TooLarge(
            f"it has {width}×{height} = {width * height / 1e6:.0f} megapixels, and the limit is "
            f"{MAX_PIXELS / 1e6:.0f}; cut it into tiles, which small objects need anyway: training "
            "scales the longer side down to data.max_size"
        )


def refuse_pipe(file: Path) -> None:
    """Raises ValueError: it is a pipe, socket or device, at which reading might wait for ever."""
    try:
        mode = file.stat().st_mode
    except OSError:
        return  # opening it says what is wrong
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ValueError("it is a pipe, a socket or a device, and no file")
