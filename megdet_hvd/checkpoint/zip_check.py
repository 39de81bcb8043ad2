"""Whether checkpoints are as they were written, by the checksums of their zip container.

Needs no torch, so that the driver of a batch job can look before it starts a run again.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

from megdet_hvd.checkpoint.atomic import sync_folder
from megdet_hvd.checkpoint.naming import DAMAGED, list_checkpoints
from megdet_hvd.errors import UserError

NOT_A_ZIP = (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError)
"""What zipfile raises where a container is cut off or overwritten."""


class DamagedFileError(UserError):
    """The file is cut off or its bytes have changed."""


def check_sums(path: Path) -> None:
    """Read a zip container through, every checksum of it.

    Raises:
        DamagedFileError: it is cut off or overwritten, or a checksum doesn't fit.
        OSError: it can't be read, which says nothing of its bytes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except NOT_A_ZIP as error:
        raise DamagedFileError(f"{path} is damaged: it is cut off or overwritten") from error
    if bad is not None:
        raise DamagedFileError(f"{path} is damaged: the checksum of its part {bad} does not fit")


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
