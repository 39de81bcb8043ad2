"""Where indexes are kept, and what is cleared away there."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from megdet_hvd.config.paths import expand_path
from megdet_hvd.data.cache_root import cache_root
from megdet_hvd.data.disks import on_local_disk
from megdet_hvd.errors import UserError
from megdet_hvd.staging.owner import own_folders

INDEX_ENDING, LOCK_ENDING = ".index", ".lock"
KEPT_S = 30 * 24 * 3600.0
"""An index that nobody has opened for so long goes when another is made."""
_SEEN_AGAIN_S = 24 * 3600.0
_ABANDONED_S = 24 * 3600.0
"""Age of half a file whose writer must be gone."""


class UnusableFolderError(Exception):
    """Nothing can be kept there."""


def index_folder(setting: str) -> Path | None:
    """The folder of ``data.index_cache``, made where it isn't there; None: ``off``.

    ``auto`` is below the cache folder where that lies on a disk of this machine. On a shared one an
    index is no good place: another machine may remove a file that is mapped here. Then it is a
    folder of the user's alone, below the machine's temporary one.

    Raises:
        UserError: a variable in the setting is not set.
        UnusableFolderError: it can't be made, belongs to somebody else, or others may write to it.
    """
    if setting == "off":
        return None
    root = cache_root() if setting == "auto" else expand_path(setting, "data.index_cache")
    try:
        if setting == "auto" and not on_local_disk(root):
            place = f"megdet_hvd-{os.geteuid()}"
            return own_folders(Path(tempfile.gettempdir()), place, "index")
        folder = root / "index"
        folder.mkdir(parents=True, exist_ok=True)
    except UserError as error:  # of those of somebody else
        raise UnusableFolderError(str(error)) from error
    except OSError as error:
        raise UnusableFolderError(f"{root}: {error.strerror or error}") from error
    return folder


def mark_used(file: Path) -> None:
    """Note that a file is in use, at most once a day."""
    with suppress(OSError):
        if time.time() - file.stat().st_mtime > _SEEN_AGAIN_S:
            os.utime(file)


def clear_old(folder: Path) -> None:
    """Remove what nobody has used for long, and what writers that were killed have left.

    A process that has a file mapped keeps it; only its name goes.
    """
    now = time.time()
    with suppress(OSError):
        for file in folder.iterdir():
            limit = _ABANDONED_S if file.name.endswith(".tmp") else KEPT_S
            with suppress(OSError):
                if now - file.lstat().st_mtime > limit:
                    file.unlink()
