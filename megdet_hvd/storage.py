"""Storage that fails for the moment, told from input that is wrong.

A network file system answers now and then with an error that says nothing of the file: the server
was restarted, a disk is being replaced, a process holds too many files. Such reads are tried again
shortly, and then end the run as :class:`~megdet_hvd.errors.StorageError`, which a job is requeued
for. A file that isn't there, or may not be read, is the user's to mend.
"""

import errno
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from megdet_hvd.errors import StorageError, UserError

T = TypeVar("T")

TRANSIENT = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
        errno.EAGAIN,
        errno.EBUSY,
        errno.ENOLCK,
        errno.EREMOTEIO,
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

PAUSES_S = (0.2, 1.0)
"""Before each further try, seconds."""


def is_transient(error: BaseException) -> bool:
    """Whether an error speaks of the storage's moment and not of the file."""
    return isinstance(error, OSError) and error.errno in TRANSIENT


def retried(work: Callable[[], T], pauses_s: Sequence[float] = PAUSES_S) -> T:
    """What ``work`` returns, which is tried again where storage fails for the moment.

    Raises:
        OSError: the last try's error, where all failed; any other error at once.
    """
    for pause_s in pauses_s:
        try:
            return work()
        except OSError as error:
            if not is_transient(error):
                raise
        time.sleep(pause_s)
    return work()


def cannot_read(path: Path | str, error: OSError) -> UserError | StorageError:
    """What to raise for a file that could not be read: the moment's fault, or the user's."""
    reason = error.strerror or str(error)
    if is_transient(error):
        return StorageError(
            f"{path}: cannot be read ({reason}). The storage fails for the moment; nothing says "
            "that the file is wrong. Start again once it answers"
        )
    return UserError(f"{path}: cannot be read ({reason})")
