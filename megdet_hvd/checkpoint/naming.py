"""Which files of a folder are checkpoints, and in which order they were made."""

import os
import re
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.storage import exists, retried

BEST = "best.pt"
"""The checkpoint with the highest mmAP so far: another name of one of the numbered files, or a file
of its own where none was due after that iteration."""

FORMAT = "megdet_hvd checkpoint"
"""What a checkpoint says of itself, under the key ``format``."""
DAMAGED = ".damaged"
"""Appended to the name of a checkpoint that was set aside; it is no checkpoint then."""

_NUMBERED = re.compile(r"iteration_(\d{8,})\.pt")


def checkpoint_name(iteration: int) -> str:
    """The file name of the checkpoint made after ``iteration`` optimizer steps."""
    return f"iteration_{iteration:08d}.pt"


def iteration_of(path: Path) -> int | None:
    """The number in a checkpoint's name; None for ``best.pt`` and for any other file."""
    match = _NUMBERED.fullmatch(path.name)
    return int(match[1]) if match else None


def list_checkpoints(folder: Path) -> list[Path]:
    """The numbered checkpoints of a folder, oldest first; none for a folder that isn't there.

    Raises:
        OSError: the folder can't be read.
    """

    def names() -> list[str]:
        return os.listdir(folder) if folder.is_dir() else []

    numbered = [(iteration_of(path), path) for path in map(folder.joinpath, retried(names))]
    return [path for _, path in sorted((n, path) for n, path in numbered if n is not None)]


def latest_checkpoint(folder: Path) -> Path | None:
    """The numbered checkpoint with the highest iteration; whether it is sound is not looked at."""
    found = list_checkpoints(folder)
    return found[-1] if found else None


def no_run_words(path: Path) -> str:
    """What to say of a ``path`` named to be carried on that has no run's ``config.yaml``."""
    if not path.exists():
        return f"{path} holds no run to carry on (there is no such folder)"
    for folder in (path.parent, path.parent.parent):
        if (folder / "config.yaml").is_file():
            return f"{path} holds no run to carry on, but lies in one; name {folder}"
    return f"{path} holds no run to carry on (it has no config.yaml)"


def find_checkpoint(path: Path) -> Path:
    """The checkpoint file that a user means by ``path``.

    A file is itself. A folder, be it a run folder or the ``checkpoints`` folder in it, means
    its latest numbered checkpoint.

    Raises:
        UserError: there is no such file or folder, or the folder holds no checkpoint.
    """
    if retried(path.is_dir):
        for folder in (path, path / "checkpoints"):
            latest = latest_checkpoint(folder)
            if latest is not None:
                return latest
        begun = ""
        if exists(path / "config.yaml"):
            begun = (
                ". A run that ended before its first one is started again by "
                f"python -m megdet_hvd.train --run {path}"
            )
        raise UserError(
            f"{path}: this folder holds no checkpoint; expected {checkpoint_name(1200)} or the "
            "like in it or in its folder checkpoints/. Name a checkpoint file or a run folder"
            f"{begun}"
        )
    if not exists(path):
        beside = [p.name for p in list_checkpoints(path.parent)]
        best = path.parent / BEST
        if best.exists():
            beside.append(BEST)
        hint = f"; that folder holds {', '.join(beside[-4:])}" if beside else ""
        raise UserError(f"{path}: no such checkpoint file{hint}")
    return path
