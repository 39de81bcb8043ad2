"""A second copy of a file, for file systems without hard links."""

import os
import shutil
from pathlib import Path


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file's bytes, and return once they are on the disk: its name may then change.

    Raises:
        OSError: it can't be read or written.
    """
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())
