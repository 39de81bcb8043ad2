"""Whether a folder on the node's disk is ours alone.

What is staged is believed by its name and its sizes, and its programs are started. So a copy that
another user of the node has laid there, or may change, must not be taken for ours.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from megdet_hvd.errors import UserError


def own_folders(shared: Path, *names: str) -> Path:
    """``shared/NAME/NAME…``, where each NAME is a folder of ours alone; made where it isn't there.

    Raises:
        UserError: one of them belongs to somebody else, or others may write to it, or to what
            lies above it.
        OSError: they can't be made.
    """
    os.makedirs(shared, mode=0o700, exist_ok=True)
    check_above(shared)
    place = shared
    for name in names:
        place = place / name
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            check_own(place)
    return place


def check_own(folder: Path) -> None:
    """Refuse a folder that is not ours alone, or no folder; where it is, nobody else gets in.

    Raises:
        UserError: see above; a link is refused too, wherever it leads.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise UserError(
            f"{folder}: a folder of ours is expected here, and this is "
            f"{'a link' if stat.S_ISLNK(found.st_mode) else 'something else'}; {_FIX}"
        )
    if found.st_uid != os.geteuid():
        raise UserError(
            f"{folder}: belongs to user {found.st_uid}, not to you ({os.geteuid()}): whoever laid "
            f"it there could give your job programs and data of theirs; {_FIX}"
        )
    if found.st_mode & 0o022:
        raise UserError(
            f"{folder}: others may write to it (mode {stat.S_IMODE(found.st_mode):04o}), so "
            f"what lies in it may not be yours; {_FIX}"
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)  # what lies below may be open to a group


def check_above(folder: Path) -> None:
    """Refuse a place where others can put something else instead of what we make.

    Raises:
        UserError: others may write to it or to a folder above it, without the sticky bit; or it
            is reached by another user's link.
    """
    for step in (*reversed(folder.absolute().parents), folder.absolute()):
        found = step.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
            raise UserError(f"{step}: is a link that user {found.st_uid} has laid; {_FIX}")
    real = folder.resolve()
    for step in (real, *real.parents):
        mode = step.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise UserError(
                f"{step}: everybody may write to it (mode {stat.S_IMODE(mode):04o}, no sticky "
                f"bit), and so replace what is staged below; {_FIX}"
            )


_FIX = "remove it, or give a place of your own on the node: SITE_STAGING=/local/$USER"
