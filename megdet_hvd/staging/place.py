"""Where a copy lies on the node: its lock, and the mark that says it is whole.

The mark is written last, so a copy without it is half made, however that came about.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.staging.owner import own_folders
from megdet_hvd.staging.source import THREADS
from megdet_hvd.storage import cannot_keep, retried

MARK = ".megdet_staged.json"
"""In the copy's folder: the size of every file, by path."""


@contextmanager
def locked(
    shared: Path, inside: tuple[str, ...], name: str, say: Callable[[str], None]
) -> Iterator[None]:
    """Hold the copy ``name`` against other jobs on this node; waits for one at work on it.

    It lies in the folders ``inside`` of ``shared``, which are made where they aren't there. The
    system lets go of it when the process ends, however that happens.

    Raises:
        UserError: the staging folder can't be written, or is not ours alone.
        StorageError: its disk is full, or fails for the moment.
    """
    try:
        file = (own_folders(shared, *inside) / f".{name}.lock").open("a", encoding="utf-8")
    except OSError as error:
        raise cannot_keep(
            f"{error.filename or shared}: can't be written",
            error,
            "the staging folder must be one of your own on every node, such as "
            "SITE_STAGING=/local/$USER",
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another job is copying {name}; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def write_mark(place: Path, files: dict[str, int]) -> None:
    """Say that the copy is whole, on disk before it is visible."""
    partial = place / f"{MARK}.partial"
    with partial.open("w", encoding="utf-8") as file:
        json.dump(files, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(place / MARK)


def is_whole(place: Path) -> bool:
    """Whether the mark is there and every file that it lists has its size still."""
    try:
        files = json.loads(retried(lambda: (place / MARK).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return False
    return isinstance(files, dict) and not missing(place, files)


def missing(place: Path, files: dict[str, int]) -> list[str]:
    """The files that are not there, or not with their size."""

    def lacks(name: str) -> bool:
        try:
            return retried(lambda: os.stat(place / name)).st_size != files[name]
        except OSError:
            return True

    names = list(files)
    with ThreadPoolExecutor(THREADS) as pool:
        return [n for n, absent in zip(names, pool.map(lacks, names, chunksize=256)) if absent]  # noqa: B905 - Python 3.9


def unmark(place: Path) -> None:
    """From here on the copy counts as half made."""
    (place / MARK).unlink(missing_ok=True)


def older_copies(place: Path, name: str) -> list[Path]:
    """Other copies of what is called ``name``, beside this one."""
    return sorted(
        other
        for other in place.parent.iterdir()
        if other.name.rpartition("-")[0] == name and other.is_dir() and other != place
    )


def check_room(place: Path, needed: int, files: int, older: list[Path]) -> None:
    """Raise UserError, with the sum, where a copy of so many bytes in so many files won't fit."""
    block = 4096
    rounded = needed + files * block // 2
    free = shutil.disk_usage(place.parent).free
    if rounded <= free:
        return
    text = (
        f"{place.parent}: {needed / 1e9:.2f} GB in {files} files are to be copied, which take "
        f"{rounded / 1e9:.2f} GB on disk, and {free / 1e9:.2f} GB are free"
    )
    if older:
        names = ", ".join(str(path) for path in older)
        text += f"; older copies lie in {names}: remove them, or give --remove-older"
    else:
        text += "; choose a larger disk, SITE_STAGING=/other/folder, or none"
    raise UserError(text)
