"""What kind of file system a folder lies on."""

import os
import re
from functools import cache
from pathlib import Path

_LOCAL = frozenset(
    ("ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs")
) | {"tmpfs", "ramfs", "overlay"}
_SHARED = frozenset(
    ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "beegfs_nodev", "ceph", "panfs", "wekafs")
) | {"cifs", "smb3"}
"""Those that machines share, with times that follow what is done in a folder."""
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


def on_local_disk(folder: Path) -> bool:
    """Whether a folder, or where it would be made, lies on this machine alone, for all we know.

    A file there that is mapped can't be pulled from under us by another machine, which the system
    answers with SIGBUS.
    """
    return _kind(folder) in _LOCAL


def keeps_folder_times(folder: Path) -> bool:
    """Whether a folder's times change with the names in it; those of object stores don't."""
    return _kind(folder) in _LOCAL | _SHARED


def _kind(folder: Path) -> str:
    """The file system's name; empty: it can't be told."""
    try:
        path = os.path.realpath(folder)
        return kind_at(path, _mounts(_MOUNTS.read_text(encoding="utf-8", errors="replace")))
    except (OSError, ValueError):
        return ""


def kind_at(path: str, mounts: tuple[tuple[str, str], ...]) -> str:
    """The kind of the file system that a path without links lies on.

    Args:
        path: absolute.
        mounts: where file systems are mounted, and their kinds; later ones hide earlier ones.
    """
    found, longest = "", -1
    for point, kind in mounts:
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= longest:
            found, longest = kind, len(point)
    return found


@cache
def _mounts(text: str) -> tuple[tuple[str, str], ...]:
    """Mount points and kinds of a mountinfo's text, see proc(5)."""
    found = []
    for line in text.splitlines():
        fields, _, rest = line.partition(" - ")
        words = fields.split(" ")
        if len(words) > 4 and rest:
            point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), words[4])
            found.append((point, rest.split(" ")[0]))
    return tuple(found)
