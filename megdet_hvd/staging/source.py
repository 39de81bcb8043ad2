"""What is to be copied, and an identity that changes when it changes.

The identity of a folder is that of its listing (paths, sizes, times of change), of an archive that
of its size and time of change. Contents are not read: that would cost as much as the copy.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from megdet_hvd.errors import UserError
from megdet_hvd.storage import cannot_read, retried

ARCHIVES = (".tar.gz", ".tgz", ".tar")
"""How the name of an archive ends."""
THREADS = 16
"""Files looked at or copied at once: a shared file system answers each after a while."""


@dataclass(frozen=True)
class StagingSource:
    """A folder or an archive, looked at."""

    path: Path
    name: str
    """What its copies are called, before their identity."""
    identity: str
    files: dict[str, int]
    """Size in bytes of each file of a folder, by path; of an archive, of that one file."""

    @property
    def is_archive(self) -> bool:
        """Whether it is to be unpacked."""
        return self.path.name.endswith(ARCHIVES)

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(self.files.values())


def look_at(path: Path) -> StagingSource:
    """List a folder, or look at an archive.

    Raises:
        UserError: it is neither, is empty, or can't be read.
        StorageError: it can't be read at the moment.
    """
    try:
        facts = retried(lambda: _facts(path))
    except OSError as error:
        raise cannot_read(error.filename or path, error) from None
    if not facts:
        raise UserError(f"{path}: this folder is empty; what should be copied?")
    return StagingSource(
        path, _name(path), identity_of(facts), {name: size for name, size, _ in facts}
    )


def _facts(path: Path) -> list[tuple[str, int, int]]:
    if path.is_dir():
        return _list_folder(path)
    if path.is_file() and path.name.endswith(ARCHIVES):
        found = path.stat()
        return [(path.name, found.st_size, found.st_mtime_ns)]
    what = "no such file or folder" if not path.exists() else "neither folder nor archive"
    raise UserError(f"{path}: {what}; give a folder, or a .tar or .tar.gz of one")


def identity_of(facts: list[tuple[str, int, int]]) -> str:
    """Twelve characters for a listing of path, bytes and time of change (ns), in any order."""
    digest = hashlib.sha256()
    for name, size, time_ns in sorted(facts):
        digest.update(os.fsencode(name) + f"\0{size}\0{time_ns}\n".encode())
    return digest.hexdigest()[:12]


def _name(path: Path) -> str:
    name = path.resolve().name
    for ending in ARCHIVES:
        if name.endswith(ending):
            name = name[: -len(ending)]
            break
    return re.sub(r"[^\w.-]+", "_", name).strip(".") or "data"


def _list_folder(folder: Path) -> list[tuple[str, int, int]]:
    names = list(_walk(folder))

    def fact(name: str) -> tuple[str, int, int]:
        found = (folder / name).stat()
        return name, found.st_size, found.st_mtime_ns

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(fact, names, chunksize=64))


def _walk(folder: Path) -> Iterator[str]:
    """Files below the folder, through links; relative paths."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()  # a link back to a folder above
            continue
        seen.add(real)
        inside = os.path.relpath(place, folder)
        for name in files:
            yield name if inside == "." else f"{inside}/{name}"


def _raise(error: OSError) -> None:
    raise error
