"""Called in a process of its own: files may not grow as large as a checkpoint."""

import resource
import signal
from pathlib import Path

from megdet_hvd.checkpoint.file import save_checkpoint
from megdet_hvd.errors import UserError
from tests.checkpoint.test_file import state


def refused(path: str) -> str:
    """The message."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead, as on a full disk
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        save_checkpoint(Path(path), state(9, values=1_000_000))
    except UserError as error:
        return str(error)
    raise AssertionError("it was written")
