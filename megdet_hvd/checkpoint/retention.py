"""Which checkpoints stay: the newest few, and the best."""

import os
from collections.abc import Collection
from pathlib import Path

from megdet_hvd.checkpoint.atomic import TEMPORARY, cannot_write, sync_folder
from megdet_hvd.checkpoint.copying import copy_durably
from megdet_hvd.checkpoint.naming import BEST, list_checkpoints


def mark_best(path: Path) -> Path:
    """Let ``best.pt`` in the same folder stand for this checkpoint, and return its path.

    A hard link, so it costs no space and outlives the numbered name; a copy where the file
    system has no links. Checkpoints are replaced by renaming and never changed in place, so the
    two names can't drift apart.

    Raises:
        UserError: the link or copy can't be made; the former ``best.pt`` is as it was.
    """
    best = path.with_name(BEST)
    temporary = path.with_name(TEMPORARY.format(name=BEST))
    try:
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:
            copy_durably(path, temporary)
        os.replace(temporary, best)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise cannot_write(best, error) from error
    temporary.unlink(missing_ok=True)  # rename(2) leaves both names where they are one file.
    sync_folder(path.parent)
    return best


def prune_checkpoints(folder: Path, keep: int, protected: Collection[Path] = ()) -> list[Path]:
    """Delete all but the newest ``keep`` numbered checkpoints, and what interrupted writes left.

    ``best.pt`` is never touched, nor are ``protected`` files of the folder, such as one that is
    being evaluated alongside; a later call deletes them. Call it after the newest one is written.

    Returns:
        The deleted checkpoints, oldest first.
    """
    assert keep >= 1, keep
    spared = {path.name for path in protected}
    gone = [path for path in list_checkpoints(folder)[:-keep] if path.name not in spared]
    for path in [*gone, *folder.glob(TEMPORARY.format(name="*.pt"))]:
        path.unlink(missing_ok=True)
    return gone
