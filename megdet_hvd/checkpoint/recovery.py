"""What a run carries on from when its newest checkpoints are damaged.

Needs no torch, so that the driver of a batch job can look before it starts a run again.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.checkpoint.atomic import link_or_copy, sync_folder
from megdet_hvd.checkpoint.facts import read_facts
from megdet_hvd.checkpoint.naming import BEST, DAMAGED, checkpoint_name, list_checkpoints
from megdet_hvd.checkpoint.zip_check import DamagedFileError, check_sums
from megdet_hvd.errors import UserError


def newest_sound_checkpoint(run_folder: Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint of a run whose checksums fit, and the damaged ones after it.

    Only those are read through that must be: in the usual case the newest alone.

    Args:
        run_folder: the run folder, or the folder ``checkpoints`` in it.

    Returns:
        The sound one (None: there is none) and the damaged ones, newest first.

    Raises:
        OSError: a file can't be read; that is no proof of damage, so nothing is said of it.
    """
    damaged: list[Path] = []
    inside = list_checkpoints(run_folder / "checkpoints")
    for path in reversed(inside or list_checkpoints(run_folder)):
        try:
            check_sums(path)
        except DamagedFileError:
            damaged.append(path)
        else:
            return path, damaged
    return None, damaged


def set_aside(damaged: Sequence[Path]) -> list[Path]:
    """Rename damaged checkpoints to ``….pt.damaged``, so that a run carries on from the last good.

    Nothing is deleted: whoever wants to know why they were damaged has them.

    Returns:
        Their new paths.

    Raises:
        OSError: a file can't be renamed.
    """
    moved = []
    for path in damaged:
        aside = path.with_name(path.name + DAMAGED)
        os.replace(path, aside)
        moved.append(aside)
    for folder in {path.parent for path in moved}:
        sync_folder(folder)
    return moved


def bring_back_best(folder: Path) -> Path | None:
    """Give ``best.pt`` its number back, for a run that has no other sound checkpoint.

    Args:
        folder: the folder ``checkpoints`` of a run that holds no numbered checkpoint.

    Returns:
        The numbered checkpoint; None: there is no ``best.pt``, or it is damaged too.

    Raises:
        OSError, StorageError: it can't be read, or linked and copied.
    """
    best = folder / BEST
    if not best.exists():
        return None
    try:
        check_sums(best)
        iteration = read_facts(best).get("iteration")
    except DamagedFileError:
        return None
    except UserError:  # no checkpoint of ours
        return None
    if not isinstance(iteration, int):
        return None
    numbered = folder / checkpoint_name(iteration)
    link_or_copy(best, numbered)
    return numbered
