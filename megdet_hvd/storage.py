"""Storage that fails for the moment, told from input that is wrong.

A network file system answers now and then with an error that says nothing of the file: the server
was restarted, a disk is being replaced, a process holds too many files. Such reads are tried again
shortly, and then end the run as :class:`~megdet_hvd.errors.StorageError`, which a job is requeued
for. A file that isn't there, or may not be read, is the user's to mend.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from megdet_hvd.errors import StorageError, UserError

T = TypeVar("T")

OF_FILES = frozenset(
    {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.EREMOTEIO}
)
"""Those that only files have: an error that comes without a file's name is of storage, too."""

TRANSIENT = OF_FILES | frozenset(
    {
        errno.ETIMEDOUT,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ENOTCONN,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ESHUTDOWN,
    }
)
"""Error numbers that say nothing of the file, only of the moment."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A full disk, or quota. For a cache that is as good as a failure of the moment."""

PAUSES_S = (0.2, 1.0)
"""Before each further try, seconds."""


def is_transient(error: BaseException) -> bool:
    """Whether an error speaks of the storage's moment and not of the file."""
    return isinstance(error, OSError) and error.errno in TRANSIENT


def retried(work: Callable[[], T], pauses_s: Sequence[float] | None = None) -> T:
    """What ``work`` returns, which is tried again where storage fails for the moment.

    Args:
        work: what is done; it must be able to be done again.
        pauses_s: before each further try; None: ``PAUSES_S``.

    Raises:
        OSError: the last try's error, where all failed; any other error at once.
    """
    for pause_s in PAUSES_S if pauses_s is None else pauses_s:
        try:
            return work()
        except OSError as error:
            if not is_transient(error):
                raise
        time.sleep(pause_s)
    return work()


def exists(path: Path) -> bool:
    """Whether there is a file or folder; tried again where storage fails. Raises OSError."""
    return retried(path.exists)


def cannot_read(path: Path | str, error: OSError) -> UserError | StorageError:
    """What to raise for a file that could not be read: the moment's fault, or the user's."""
    reason = error.strerror or str(error)
    if is_transient(error):
        return StorageError(
            f"{path}: cannot be read ({reason}). The storage fails for the moment; nothing says "
            "that the file is wrong. Start again once it answers"
        )
    return UserError(f"{path}: cannot be read ({reason})")


def cannot_keep(what: str, error: OSError, fix: str) -> UserError | StorageError:
    """What to raise for a cache that could not be written.

    ``what`` begins the text ("the scenes cannot be kept in …"), ``fix`` says what the user can do.

    A full disk counts as the moment's: others fill and empty it, and another machine has another.
    """
    text = f"{what} ({error.strerror or error}); {fix}"
    transient = is_transient(error) or error.errno in FULL
    return StorageError(text) if transient else UserError(text)


def as_storage_error(error: BaseException) -> BaseException:
    """An error that nobody took care of: as StorageError where storage failed, else as it is.

    For the outermost handlers. Errors of connections, which have no file's name, stay.
    """
    if isinstance(error, OSError) and (
        error.errno in OF_FILES or (is_transient(error) and error.filename is not None)
    ):
        named = isinstance(error.filename, str | bytes | os.PathLike)  # or by a number, or not
        name = os.fsdecode(error.filename) if named else "a file"
        told = StorageError(
            f"{name}: {error.strerror or error}. The storage fails for the moment; start again "
            "once it answers"
        )
        told.__cause__ = error
        return told.with_traceback(error.__traceback__)
    return error


class ReadFile:
    """A file that remembers the OSError that a reader in between may turn into something else.

    ``zipfile`` says "not a zip file" where the disk could not be read, and torch "failed reading".
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        self.error: OSError | None = None

    def __enter__(self) -> ReadFile:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if self.error is not None and error is not self.error:
            raise self.error from error

    def _noting(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except OSError as error:
            self.error = error
            raise

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        return self._noting(lambda: self._file.read(size))

    def readinto(self, buffer: memoryview) -> int:
        """As of a file."""
        return self._noting(lambda: int(self._file.readinto(buffer)))  # type: ignore[attr-defined]

    def readline(self, size: int = -1) -> bytes:
        """As of a file."""
        return self._noting(lambda: self._file.readline(size))

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file; a place before its beginning is an error of the seeker's."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    def seekable(self) -> bool:
        """It is."""
        return True


def temporary_beside(path: Path) -> Path:
    """A hidden name in the same folder that no other process has, on any machine.

    In the same folder, so that a rename stays in one file system. See :func:`is_temporary`.
    """
    owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{owner}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a name is one of :func:`temporary_beside`: left over, unless its writer lives."""
    return path.name.startswith(".") and path.name.endswith(".tmp")
