"""Whether a file or a folder is as it was when it was read, told from what the system says of it.

A stamp is device, inode, size, and the times of the last change of content and of anything (mtime,
ctime), in nanoseconds. A file that is written to, or replaced, has another ctime, which no program
sets: ``cp -p``, ``rsync -t`` and ``touch -d`` change mtime alone. A folder's stamp changes with
every name that is added, removed or changed in it.

File systems count time in steps (2 s on some). So a stamp that is younger than that says nothing:
the next change may leave it the same.
"""

import os
import stat
import time
from pathlib import Path

from megdet_hvd.data.disks import keeps_folder_times

Stamp = list[int]
"""Of a file or folder: five numbers. Empty: there is nothing under this name."""
FolderSeen = tuple[Stamp | None, str]
"""Stamp of a folder before it was listed, None: it can't be believed; and digest of the names."""

SETTLED_S = 5.0
"""Age from which on a stamp is believed, by this machine's clock."""
_NOTHING: Stamp = []


def stamp_of(found: os.stat_result) -> Stamp:
    """The stamp of what the system says."""
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def is_settled(found: os.stat_result, now_s: float | None = None) -> bool:
    """Whether nothing has changed for so long that another change will show."""
    newest = max(found.st_mtime_ns, found.st_ctime_ns) / 1e9
    return newest + SETTLED_S < (time.time() if now_s is None else now_s)


def folder_stamp(folder: Path) -> Stamp | None:
    """Of a folder, or of its absence; None: it can't be told, or not yet.

    To be taken before the folder is listed.
    """
    try:
        found = folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _NOTHING
    except (OSError, ValueError):
        return None
    believed = stat.S_ISDIR(found.st_mode) and is_settled(found) and keeps_folder_times(folder)
    return stamp_of(found) if believed else None
