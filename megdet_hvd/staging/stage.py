"""One source brought to this node: found there, finished, or copied anew."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.staging.copy_folder import copy_folder
from megdet_hvd.staging.owner import own_folders
from megdet_hvd.staging.place import (
    check_room,
    is_whole,
    locked,
    missing,
    older_copies,
    unmark,
    write_mark,
)
from megdet_hvd.staging.source import StagingSource, look_at
from megdet_hvd.staging.unpack import only_folder, unpack
from megdet_hvd.storage import FULL, cannot_keep


@dataclass(frozen=True)
class Staged:
    """A whole copy on this node."""

    path: Path
    """Where to use it."""
    identity: str
    """Equal on all nodes that have the same copy."""
    copied_bytes: int | None
    """None: it was there already."""
    seconds: float
    older: tuple[Path, ...]
    """Other copies of the same name that lie beside it, or did."""


def stage_data(folder: Path, source: Path, say: Callable[[str], None], **options: bool) -> Staged:
    """Data, from a folder or an archive, into ``folder/megdet_hvd/data/NAME-IDENTITY``.

    Args:
        folder: on the node's own disk.
        source: what is copied.
        say: told what one has to wait for.
        options: ``remove_older`` removes older copies, also those that other jobs may be using.

    Raises:
        UserError: the source is no folder or archive, the disk is too small, or what lies on it
            under these names is not ours alone.
        StorageError: the disk has become full, or the source can't be read at the moment.
        RunError: the source changes while it is copied.
        OSError: reading or writing failed.
    """
    return _stage(folder, ("megdet_hvd", "data"), source, None, say, **options)


def stage_environment(
    folder: Path, archive: Path, say: Callable[[str], None], **options: bool
) -> Staged:
    """The archive of ``make pack`` into ``folder/megdet_hvd/env-IDENTITY``; as ``stage_data``."""
    return _stage(folder, ("megdet_hvd",), archive, "env", say, **options)


def _stage(
    shared: Path,
    inside: tuple[str, ...],
    path: Path,
    name: str | None,
    say: Callable[[str], None],
    *,
    remove_older: bool = False,
) -> Staged:
    start = time.monotonic()
    source = look_at(path)
    name = name or source.name
    place = shared.joinpath(*inside) / f"{name}-{source.identity}"
    with locked(shared, inside, place.name, say):
        own_folders(shared, *inside, place.name)
        older = older_copies(place, name)
        if remove_older:
            for other in older:
                unmark(other)
                shutil.rmtree(other, ignore_errors=True)
        copied = None
        if not is_whole(place):
            unmark(place)
            try:
                copied = _copy(source, place, [] if remove_older else older)
            except OSError as error:
                if error.errno in FULL or error.errno == errno.EFBIG:
                    fix = "choose another SITE_STAGING, or remove what lies there"
                    raise cannot_keep(f"{place}: the disk is full", error, fix) from None
                raise
        root = only_folder(place) if source.is_archive and name != "env" else place
        return Staged(root, source.identity, copied, time.monotonic() - start, tuple(older))


def _copy(source: StagingSource, place: Path, older: list[Path]) -> int:
    if source.is_archive:
        shutil.rmtree(place, ignore_errors=True)
        check_room(place, source.size, len(source.files), older)
        files = unpack(source, place)
        write_mark(place, files)
        return sum(files.values())
    wanted = missing(place, source.files)
    check_room(place, sum(source.files[name] for name in wanted), len(wanted), older)
    copied = copy_folder(source, place)
    write_mark(place, source.files)
    return copied
