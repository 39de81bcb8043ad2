"""What a run carries on from when its newest checkpoints are damaged.

Needs no torch, so that the driver of a batch job can look before it starts a run again.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.checkpoint.atomic import link_or_copy, sync_folder
from megdet_hvd.checkpoint.facts import read_facts
from megdet_hvd.checkpoint.naming import BEST, DAMAGED, checkpoint_name, list_checkpoints
from megdet_hvd.checkpoint.zip_check import DamagedFileError, check_sums
from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, is_transient


def checkpoint_to_carry_on(run_folder: Path) -> Path | None:
    """From which checkpoint :func:`set_damaged_aside` lets a run carry on; nothing is changed.

    Returns:
        A sound one; None: there is none.

    Raises:
        UserError, StorageError: they can't be read.
    """
    with _readable(run_folder):
        sound, damaged = newest_sound_checkpoint(run_folder)
        best = damaged[0].with_name(BEST) if damaged and sound is None else None
        return best if best is not None and _iteration_inside(best) is not None else sound


def set_damaged_aside(run_folder: Path, say: Callable[[str], None], *, all_of_them: bool) -> None:
    """Let a run carry on from its newest checkpoint that is sound; what was damaged is kept.

    The caller holds the run folder.

    Args:
        run_folder: the run folder.
        say: is told of what is done, a line each.
        all_of_them: even where none is sound, so that the run can start anew.

    Raises:
        UserError, StorageError: they can't be read or renamed.
    """
    with _readable(run_folder):
        sound, damaged = newest_sound_checkpoint(run_folder)
        if not damaged:
            return
        best = damaged[0].with_name(BEST)
        if sound is None and _iteration_inside(best) is None and not all_of_them:
            return
        for path in set_aside(damaged):
            say(f"damaged, and set aside: {path}")
        if sound is None:
            sound = bring_back_best(best.parent)
        say(f"the run carries on from {sound.name}" if sound else "it starts anew: none is left")


@contextmanager
def _readable(run_folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if is_transient(error):
            raise cannot_read(f"{run_folder}: its checkpoints", error) from None
        raise UserError(
            f"{run_folder}: its checkpoints can't be read ({error.strerror}); mend that first"
        ) from None


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
    iteration = _iteration_inside(best)
    if iteration is None:
        return None
    numbered = folder / checkpoint_name(iteration)
    link_or_copy(best, numbered)
    return numbered


def _iteration_inside(best: Path) -> int | None:
    """That of a sound checkpoint; None: it isn't there, is damaged, or none of ours."""
    if not best.exists():
        return None
    try:
        check_sums(best)
        iteration = read_facts(best).get("iteration")
    except UserError:
        return None
    return iteration if isinstance(iteration, int) else None
