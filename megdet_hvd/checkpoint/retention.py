"""Which checkpoints stay: the newest few, and the best."""

from collections.abc import Collection
from pathlib import Path

from megdet_hvd.checkpoint.atomic import cannot_write, link_or_copy
from megdet_hvd.checkpoint.naming import BEST, list_checkpoints
from megdet_hvd.storage import is_temporary


def mark_best(path: Path) -> Path:
    """Let ``best.pt`` in the same folder stand for this checkpoint, and return its path.

    A hard link, so it costs no space and outlives the numbered name; a copy where the file
    system has no links. Checkpoints are replaced by renaming and never changed in place, so the
    two names can't drift apart.

    Raises:
        UserError, StorageError: the link or copy can't be made; the former ``best.pt`` is as it
            was.
    """
    best = path.with_name(BEST)
    try:
        link_or_copy(path, best)
    except OSError as error:
        raise cannot_write(best, error) from error
    return best


def prune_checkpoints(
    folder: Path,
    keep: int,
    protected: Collection[Path] = (),
    *,
    own: Collection[str] | None = None,
) -> list[Path]:
    """Delete all but the newest ``keep`` numbered checkpoints.

    ``best.pt`` is never touched, nor are ``protected`` files of the folder, such as one that is
    being evaluated meanwhile; a later call deletes them. Call it after the newest one is written.

    Args:
        folder: where they lie.
        keep: how many stay.
        protected: those that stay in any case.
        own: names of those that this run wrote, or found when it was carried on: all others are
            somebody else's, and neither counted nor deleted. None: all are.

    Returns:
        The deleted checkpoints, oldest first.
    """
    assert keep >= 1, keep
    spared = {path.name for path in protected}
    ours = [path for path in list_checkpoints(folder) if own is None or path.name in own]
    gone = [path for path in ours[:-keep] if path.name not in spared]
    for path in gone:
        path.unlink(missing_ok=True)
    return gone


def clear_leftovers(run_folder: Path) -> list[Path]:
    """Delete what interrupted writes left in a run folder. For the holder of its lock alone.

    Raises:
        OSError: a file can't be deleted.
    """
    left = [
        path
        for folder in (run_folder, run_folder / "checkpoints")
        if folder.is_dir()
        for path in folder.iterdir()
        if is_temporary(path)
    ]
    for path in left:
        path.unlink(missing_ok=True)
    return left
