"""Files that appear whole or not at all."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from megdet_hvd.errors import StorageError, UserError
from megdet_hvd.storage import is_transient, retried, temporary_beside


class _Watched:
    """A file that remembers the OSError that a writer in between may turn into something else."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def write_atomically(
    path: Path,
    write: Callable[[Any], object],
    before_it_shows: Callable[[], None] = lambda: None,
) -> None:
    """Have ``write(file)`` fill a file that takes the name ``path`` only once it is on the disk.

    Temporary file in the same folder, flush, fsync, rename, fsync of the folder: after a crash,
    a kill or a full disk ``path`` is the old file or the new one, never half of one. The folder
    is made where missing. ``before_it_shows`` is called right before the rename.

    Raises:
        OSError: the file can't be written (disk full, no permission); ``path`` is as it was.
            Where the storage fails for the moment it was tried again: ``write`` is called anew.
    """
    retried(lambda: _write_once(path, write, before_it_shows))


def _write_once(
    path: Path, write: Callable[[Any], object], before_it_shows: Callable[[], None]
) -> None:
    temporary = temporary_beside(path)
    watched: _Watched | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            watched = _Watched(file)
            write(watched)
            file.flush()
            os.fsync(file.fileno())
        before_it_shows()
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch.save turns the file's OSError into a RuntimeError about positions.
        if watched is not None and watched.error is not None and error is not watched.error:
            raise watched.error from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all. Raises OSError, as above."""
    write_atomically(path, lambda file: file.write(data))


def link_or_copy(path: Path, name: Path) -> None:
    """Let ``name`` stand for the file ``path`` too, whole or not at all.

    A hard link, so it costs no space and outlives the first name; a copy where the file system has
    no links.

    Raises:
        OSError: neither can be made; ``name`` is as it was.
    """
    temporary = temporary_beside(name)
    try:
        try:
            os.link(path, temporary)
        except OSError:
            _copy(path, temporary)
        os.replace(temporary, name)
        sync_folder(name.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)  # rename(2) leaves both names of one file


def _copy(path: Path, target: Path) -> None:
    with path.open("rb") as source, target.open("wb") as copied:
        shutil.copyfileobj(source, copied, 1 << 20)
        copied.flush()
        os.fsync(copied.fileno())


def cannot_write(path: Path, error: OSError) -> UserError | StorageError:
    """What to raise for a file that could not be written by one of the functions above.

    A full disk is the user's to mend: the same run would come to it again.
    """
    if is_transient(error):
        return StorageError(
            f"{path}: cannot be written ({error.strerror or error}). The files already there are "
            "untouched. The storage fails for the moment; start again once it answers"
        )
    return UserError(
        f"{path}: cannot be written ({error.strerror or error}). The files already there are "
        "untouched. Free some space there or choose another folder"
    )


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last through a power cut, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Some network file systems don't open folders; the rename stands.
        return
    with suppress(OSError):
        os.fsync(handle)
    os.close(handle)
